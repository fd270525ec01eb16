"""What the training step does: an adapter on the refusals."""

from pathlib import Path

from alignment_core.io import read_jsonl
from alignment_core.models.train import sft
from alignment_core.pipeline.step import Step
from alignment_core.records import Example
from fifth_study.config import FifthConfig


def tune(config: FifthConfig, seed: int, split: Step, folder: Path) -> None:
    """An adapter on the refusals."""
    rows = list(read_jsonl(split / "train.jsonl", Example.from_json))
    sft(rows, model=config.model, lora=config.lora, train=config.train, seed=seed, folder=folder)
