"""What each training step is made of: which rows, from which adapter, for how many optimiser steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from alignment_core.config import GenerateSettings, TrainSettings
from alignment_core.io import read_json, write_jsonl
from alignment_core.models import load
from alignment_core.models.generate import generate
from alignment_core.models.train import sft as train_sft
from alignment_core.pipeline.process_group import process_group
from alignment_core.pipeline.run import Step
from alignment_core.records import Completion, Example, Message, Prompt
from drift_dpo import data
from drift_dpo.config import DataConfig, DriftConfig
from drift_dpo.dpo import dpo as train_dpo

log = logging.getLogger(__name__)


def identity(config: DriftConfig) -> dict[str, Any]:
    """What names the model in a step's key."""
    return load.identity(config.model)


def adapter(step: Step | None) -> Path | None:
    """Where a training step left its adapter; None for the baseline."""
    return None if step is None else step / "adapter"


def deal(settings: DataConfig, folder: Path) -> None:
    """Build the data and say what each stage got, what was left out, and which sets overlap."""
    data.build(settings, folder).tell(log)


def sft(
    config: DriftConfig,
    train: TrainSettings,
    seed: int,
    dealt: Path,
    part: str,
    start: Step | None,
    folder: Path,
) -> None:
    """SFT on `stageA`, `stageB`, the model's `own` replies or the pairs' `chosen` ones, from `start`'s adapter."""
    rows = data.chosen(dealt) if part == "chosen" else data.examples(dealt, f"{part}_train")
    held_out = data.examples(dealt, f"{part}_val") if part.startswith("stage") else []
    train_sft(
        rows,
        model=config.model,
        lora=config.lora,
        train=train,
        seed=seed,
        folder=folder,
        start=adapter(start),
        validation=held_out,
    )


def dpo(config: DriftConfig, seed: int, dealt: Path, start: Step, folder: Path) -> None:
    """DPO from stage B's adapter, which is also the reference."""
    train_dpo(
        data.pairs(dealt),
        model=config.model,
        lora=config.lora,
        train=config.dpo,
        seed=seed,
        folder=folder,
        start=start / "adapter",
        validation=data.pairs(dealt, "dpo_eval"),
    )


def matched(config: DriftConfig, dpo_step: Step) -> TrainSettings:
    """Stage B's SFT settings at DPO's batch and number of optimiser steps: the control of SFT on `chosen`."""
    steps = read_json(dpo_step / "train_report.json")["steps"]
    like_dpo = {"batch_size": config.dpo.batch_size, "accumulate": config.dpo.accumulate, "max_steps": steps}
    return config.stage_b.model_copy(update=like_dpo)


def own_replies(config: DriftConfig, sampled: GenerateSettings, seed: int, dealt: Path, folder: Path) -> None:
    """The baseline's replies to stage A's prompts, as training examples in `own_train.jsonl`."""
    asked = data.examples(dealt, "stageA_train")
    prompts = [
        Prompt(f"stageA/{i}", e.messages[:-1], "benign", e.source, cluster=e.cluster) for i, e in enumerate(asked)
    ]
    replies = generate(
        prompts, sampled, load.load(config.model), subject="baseline", seed=seed, file=folder / "completions.jsonl"
    )
    rows = [_as_example(e, c) for e, c in zip(asked, replies, strict=True) if c.text.strip()]
    if process_group().is_main:
        write_jsonl(folder / "own_train.jsonl", rows)


def _as_example(asked: Example, reply: Completion) -> Example:
    said = (*asked.messages[:-1], Message("assistant", reply.text))
    return Example(said, asked.category, asked.source, asked.cluster)
