"""What the DPO step does: which pairs it takes, from which adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from drift_dpo import rows as read
from drift_dpo.dpo import dpo as train_dpo

if TYPE_CHECKING:
    from alignment_core.pipeline.step import Step
    from drift_dpo.config import DriftConfig


def dpo(config: DriftConfig, seed: int, rows: Path, start: Step, folder: Path) -> None:
    """DPO from stage B's adapter, which is also the reference."""
    train_dpo(
        read.pairs(rows),
        model=config.model,
        lora=config.lora,
        train=config.dpo,
        seed=seed,
        folder=folder,
        start=start / "adapter",
        validation=read.pairs(rows, "dpo_eval"),
    )
