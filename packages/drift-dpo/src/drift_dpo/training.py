"""What each step does: which rows a training takes, from which adapter, and what a state is asked."""

from __future__ import annotations

import logging
from pathlib import Path

from alignment_core.config import GenerateSettings, TrainSettings
from alignment_core.evaluation.answer import answer as answer_prompts
from alignment_core.evaluation.answer import reference_losses, write_losses
from alignment_core.evaluation.state import SCORES
from alignment_core.io import read_json
from alignment_core.models import load
from alignment_core.models.train import sft as train_sft
from alignment_core.pipeline.step import Step
from alignment_core.pipeline.writers import write_jsonl
from alignment_core.records import Completion, Example, Message, Prompt
from drift_dpo import data
from drift_dpo.config import DataConfig, DriftConfig
from drift_dpo.dpo import dpo as train_dpo
from drift_dpo.drift import first_token_kl

log = logging.getLogger(__name__)


def adapter(step: Step | None) -> Path | None:
    """Where a training step left its adapter; None for the baseline."""
    return None if step is None else step / "adapter"


def split(settings: DataConfig, folder: Path) -> None:
    """Build the data and log what each stage got, what was left out, and which sets overlap."""
    data.build(settings, folder).log(log)


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
        data.chosen(rows) if part == "chosen" else data.examples(rows, f"{part}_train"),
        model=config.model,
        lora=config.lora,
        train=train if steps_of is None else _matched(config, steps_of),
        seed=seed,
        folder=folder,
        start=adapter(start),
        validation=data.examples(rows, f"{part}_val") if part.startswith("stage") else [],
    )


def _matched(config: DriftConfig, dpo_step: Step) -> TrainSettings:
    """Stage B's SFT settings at DPO's batch and number of optimiser steps: the control of SFT on `chosen`."""
    steps = read_json(dpo_step / "train_report.json")["steps"]
    like_dpo = {"batch_size": config.dpo.batch_size, "accumulate": config.dpo.accumulate, "max_steps": steps}
    return config.stage_b.model_copy(update=like_dpo)


def dpo(config: DriftConfig, seed: int, rows: Path, start: Step, folder: Path) -> None:
    """DPO from stage B's adapter, which is also the reference."""
    train_dpo(
        data.pairs(rows),
        model=config.model,
        lora=config.lora,
        train=config.dpo,
        seed=seed,
        folder=folder,
        start=start / "adapter",
        validation=data.pairs(rows, "dpo_eval"),
    )


def own_replies(
    config: DriftConfig, sampled: GenerateSettings, seed: int, rows: Path, accept_missing: bool, folder: Path
) -> None:
    """The baseline's replies to stage A's prompts, as training examples in `own_train.jsonl`."""
    asked = data.examples(rows, "stageA_train")
    prompts = [
        Prompt(f"stageA/{i}", e.messages[:-1], "benign", e.source, cluster=e.cluster) for i, e in enumerate(asked)
    ]
    loaded = load.load(config.model)
    replies = answer_prompts(
        loaded, prompts, sampled, folder, subject="baseline", seed=seed, accept_missing=accept_missing
    )
    made = [_as_example(e, c) for e, c in zip(asked, replies, strict=True) if c.text.strip()]
    write_jsonl(folder / "own_train.jsonl", made)


def answer(
    config: DriftConfig,
    subject: str,
    trained: Step | None,
    rows: Path,
    seed: int | None,
    accept_missing: bool,
    folder: Path,
) -> None:
    """Greedy replies of one state, the losses of the reference answers, and each first token's KL to the baseline."""
    prompts = data.prompts(rows)
    loaded = load.load(config.model, adapter(trained))
    answer_prompts(loaded, prompts, config.generate, folder, subject=subject, seed=seed, accept_missing=accept_missing)
    write_losses(folder, reference_losses(loaded, prompts, config.generate.batch_size))
    kl = first_token_kl(loaded, prompts, config.generate.batch_size).tolist()
    write_jsonl(
        folder / SCORES, [{"prompt_id": p.id, "first_token_kl": value} for p, value in zip(prompts, kl, strict=True)]
    )


def _as_example(asked: Example, reply: Completion) -> Example:
    said = (*asked.messages[:-1], Message("assistant", reply.text))
    return Example(said, asked.category, asked.source, asked.cluster)
