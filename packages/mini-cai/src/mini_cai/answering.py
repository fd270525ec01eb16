"""What a step that answers does: one model's replies to the evaluation prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.evaluation.answer import answer as answer_prompts
from alignment_core.models import load
from mini_cai import rows

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings
    from alignment_core.pipeline.step import Step
    from mini_cai.config import CaiConfig


def answer(
    config: CaiConfig,
    model: ModelSettings,
    subject: str,
    trained: Step | None,
    prompts: Path,
    seed: int,
    accept_missing: bool,
    folder: Path,
) -> None:
    """One model's replies to the evaluation prompts; the decode seed is the same for every model of a run's seed."""
    loaded = load.load(model, None if trained is None else trained / "adapter")
    asked = rows.load(prompts, rows.EVAL_PROMPTS)
    answer_prompts(loaded, asked, config.replies, folder, subject=subject, seed=seed, accept_missing=accept_missing)
    del loaded
    load.free()
