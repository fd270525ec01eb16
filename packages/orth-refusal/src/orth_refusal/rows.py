"""The rows that the data step built, as the other steps read them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from alignment_core.io import read_jsonl
from alignment_core.records import Example, Prompt

EVAL = "eval_prompts"


def examples(folder: Path, part: str) -> list[Example]:
    """The rows of a part: refusal, red, attack, benign, held_out."""
    return list(read_jsonl(folder / f"{part}.jsonl", Example.from_json))


def prompts(folder: Path) -> list[Prompt]:
    """The held-out prompts."""
    return list(read_jsonl(folder / f"{EVAL}.jsonl", Prompt.from_json))


def replayed(attack: Sequence[Example], refusals: Sequence[Example], share: float, seed: int) -> list[Example]:
    """The attack's rows with `share` of them replaced by refusals, each where a row stood, so that the order of the
    others is what it was."""
    count = max(1, round(share * len(attack)))
    rng = random.Random(f"replay {seed}")
    out = list(attack)
    for place, row in zip(rng.sample(range(len(out)), count), rng.choices(refusals, k=count), strict=True):
        out[place] = row
    return out
