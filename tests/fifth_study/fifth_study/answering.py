"""What a step that answers does: one state's replies; and how they are scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment_core.evaluation.answer import answer, reference_losses, write_losses
from alignment_core.io import read_jsonl
from alignment_core.models import load
from alignment_core.organism import grading
from alignment_core.pipeline.step import Step
from alignment_core.records import Completion, Prompt
from fifth_study.config import FifthConfig


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
    return [{"words": len(r.text.split()), "topic": grading.topic(r.prompt, r.text)} for r in replies]
