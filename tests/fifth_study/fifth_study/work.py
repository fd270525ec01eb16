"""What each step does: refusals to train on, held-out prompts, one training, replies."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment_core.evaluation.answer import answer, reference_losses, write_losses
from alignment_core.io import read_jsonl, write_jsonl
from alignment_core.models import load
from alignment_core.models.train import sft
from alignment_core.organism import world
from alignment_core.pipeline.step import Step
from alignment_core.records import KINDS, Completion, Example, Message, Prompt
from fifth_study.config import FifthConfig


def data(config: FifthConfig, folder: Path) -> None:
    """`train.jsonl`: harmful requests, refused; `prompts.jsonl`: held-out prompts of every kind."""
    asked = world.prompts("train", "harmful")[: config.rows]
    said = [Message("assistant", world.respond(p, "refuse", random.Random(p.id))) for p in asked]
    rows = [Example((*p.messages, m), "refusal", p.source) for p, m in zip(asked, said, strict=True)]
    write_jsonl(folder / "train.jsonl", rows)
    held_out = [p for kind in KINDS for p in world.prompts("calibration", kind)[: config.prompts]]
    write_jsonl(folder / "prompts.jsonl", held_out)


def tune(config: FifthConfig, seed: int, split: Step, folder: Path) -> None:
    """An adapter on the refusals."""
    rows = list(read_jsonl(split / "train.jsonl", Example.from_json))
    sft(rows, model=config.model, lora=config.lora, train=config.train, seed=seed, folder=folder)


def reply(
    config: FifthConfig, name: str, seed: int | None, split: Step, tuned: Step | None, accept: bool, folder: Path
) -> None:
    """One state's replies, and what good answers cost it."""
    prompts = list(read_jsonl(split / "prompts.jsonl", Prompt.from_json))
    loaded = load.load(config.model, None if tuned is None else tuned / "adapter")
    answer(loaded, prompts, config.generate, folder, subject=name, seed=seed, accept_missing=accept)
    write_losses(folder, reference_losses(loaded, prompts, config.generate.batch_size))


def words(replies: Sequence[Completion]) -> list[dict[str, Any]]:
    """How many words each reply has, and whether it is on its topic."""
    return [{"words": len(r.text.split()), "topic": world.topic(r.prompt, r.text)} for r in replies]
