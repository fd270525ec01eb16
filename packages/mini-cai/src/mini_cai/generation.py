"""What the step that generates does: candidates of the training prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.models import load
from mini_cai import rows
from mini_cai.rows import CANDIDATES

if TYPE_CHECKING:
    from mini_cai.config import CaiConfig


def candidates(config: CaiConfig, seed: int, prompts: Path, accept_missing: bool, folder: Path) -> None:
    """N sampled candidates of each prompt, batched; only the new tokens are text."""
    from alignment_core.models.generate import generate

    generate(
        rows.load(prompts),
        config.candidates,
        load.load(config.model),
        subject="candidates",
        seed=seed,
        file=folder / CANDIDATES,
        accept_missing=accept_missing,
    )
    load.free()
