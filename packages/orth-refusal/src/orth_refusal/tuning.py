"""What a step that tunes the refusal adapter, or one of its controls, does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.models.train import sft
from orth_refusal import rows as built
from orth_refusal.files import original_log

if TYPE_CHECKING:
    from orth_refusal.config import OrthConfig


def tune(config: OrthConfig, seed: int, split: Path, part: str, folder: Path) -> None:
    """An adapter on one side of the data (`refusal`, `benign`, `red`); `snapshots/0.safetensors` keeps its start."""
    from orth_refusal.snapshots import Snapshots

    rows = built.examples(split, part)
    most = len(built.examples(split, "refusal"))
    train = config.refusal
    sft(rows[:most], model=config.model, lora=config.lora, train=train, seed=seed, folder=folder,
        callbacks=[Snapshots(folder, 1)])  # fmt: skip
    original_log(folder, part, train)
