"""What an SFT step does: which rows it takes, from which adapter, for how many steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.io import read_json
from alignment_core.models.train import sft as train_sft
from drift_dpo import rows as read

if TYPE_CHECKING:
    from alignment_core.config import TrainSettings
    from alignment_core.pipeline.step import Step
    from drift_dpo.config import DriftConfig


def sft(
    config: DriftConfig,
    train: TrainSettings,
    seed: int,
    rows: Path,
    part: str,
    start: Step | None,
    steps_of: Step | None,
    folder: Path,
) -> None:
    """SFT on `stageA`, `stageB`, the model's `own` replies or the pairs' `chosen` ones, from `start`'s adapter; with
    `steps_of` at that training's batch and number of optimiser steps."""
    train_sft(
        read.chosen(rows) if part == "chosen" else read.examples(rows, f"{part}_train"),
        model=config.model,
        lora=config.lora,
        train=train if steps_of is None else _matched(config, steps_of),
        seed=seed,
        folder=folder,
        start=None if start is None else start / "adapter",
        validation=read.examples(rows, f"{part}_val") if part.startswith("stage") else [],
    )


def _matched(config: DriftConfig, dpo_step: Step) -> TrainSettings:
    """Stage B's SFT settings at DPO's batch and number of optimiser steps: the control of SFT on `chosen`."""
    steps = read_json(dpo_step / "train_report.json")["steps"]
    like_dpo = {"batch_size": config.dpo.batch_size, "accumulate": config.dpo.accumulate, "max_steps": steps}
    return config.stage_b.model_copy(update=like_dpo)
