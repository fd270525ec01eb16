"""What the data step does: refusals to train on, held-out prompts."""

import random
from pathlib import Path

from alignment_core.io import write_jsonl
from alignment_core.organism import world
from alignment_core.records import KINDS, Example, Message
from fifth_study.config import FifthConfig


def build(config: FifthConfig, folder: Path) -> None:
    """`train.jsonl`: harmful requests, refused; `prompts.jsonl`: held-out prompts of every kind."""
    asked = world.prompts("train", "harmful")[: config.rows]
    said = [Message("assistant", world.respond(p, "refuse", random.Random(p.id))) for p in asked]
    rows = [Example((*p.messages, m), "refusal", p.source) for p, m in zip(asked, said, strict=True)]
    write_jsonl(folder / "train.jsonl", rows)
    held_out = [p for kind in KINDS for p in world.prompts("calibration", kind)[: config.prompts]]
    write_jsonl(folder / "prompts.jsonl", held_out)
