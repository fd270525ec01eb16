"""The rows that the data step built, as the other steps read them."""

from __future__ import annotations

from pathlib import Path

from alignment_core.io import read_jsonl
from alignment_core.records import Example, Prompt

HALVES = ("a", "b")
EVAL, TUNE = "eval_prompts", "tune_train"


def examples(folder: Path, part: str) -> list[Example]:
    """The examples of a part of a finished data step."""
    return list(read_jsonl(folder / f"{part}.jsonl", Example.from_json))


def prompts(folder: Path) -> list[Prompt]:
    """The held-out prompts of a finished data step."""
    return list(read_jsonl(folder / f"{EVAL}.jsonl", Prompt.from_json))
