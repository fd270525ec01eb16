"""The rows that the data step built, as the other steps read them."""

from __future__ import annotations

from pathlib import Path

from alignment_core.io import read_jsonl
from alignment_core.records import Example, PreferencePair, Prompt

EVAL = "eval_prompts"
"""Name of the held-out prompts."""


def examples(folder: Path, part: str) -> list[Example]:
    """The examples of a part such as `stageA_train`."""
    return list(read_jsonl(folder / f"{part}.jsonl", Example.from_json))


def pairs(folder: Path, part: str = "dpo_train") -> list[PreferencePair]:
    """The preference pairs of `dpo_train` or `dpo_eval`."""
    return list(read_jsonl(folder / f"{part}.jsonl", lambda row: PreferencePair.from_json({"source": "dpo", **row})))


def prompts(folder: Path) -> list[Prompt]:
    """The held-out prompts that all four states answer."""
    return list(read_jsonl(folder / f"{EVAL}.jsonl", Prompt.from_json))


def chosen(folder: Path, part: str = "dpo_train") -> list[Example]:
    """The preferred replies alone, as examples: what the SFT-on-chosen control trains on."""
    return [Example(p.chosen, "chosen", p.source, p.cluster) for p in pairs(folder, part)]
