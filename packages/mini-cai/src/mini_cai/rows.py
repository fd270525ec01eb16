"""What the data and selection steps left, as the other steps read it: prompts, and flat rows of selected replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from alignment_core.io import read_json, read_jsonl
from alignment_core.records import KINDS, Example, Kind, Message, Prompt

PROMPTS, EVAL_PROMPTS, CANDIDATES = "prompts.jsonl", "eval_prompts.jsonl", "candidates.jsonl"
Role = Literal["best", "worst"]
NAMES: dict[str, Kind] = {"adversarial": "harmful", "cooperating": "benign", **{k: k for k in KINDS}}
"""The original's words for the kinds, and the project's own."""


def load(folder: Path, name: str = PROMPTS) -> list[Prompt]:
    """The prompts of the data step."""
    return list(read_jsonl(folder / name, Prompt.from_json))


@dataclass(frozen=True, slots=True)
class Row:
    """One selected candidate, flat: what filtered_selected.json holds."""

    id: str
    prompt: str
    candidate: str
    score: int | None
    reason: str
    role: Role
    number: int
    tokens: int
    cluster: str
    kind: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examples(rows: Sequence[Row]) -> list[Example]:
    """The same rows as training conversations."""
    return [
        Example((Message("user", r.prompt), Message("assistant", r.candidate)), "helpful", "mini-cai", r.cluster)
        for r in rows
    ]


def read(selected: Path, part: str) -> list[Example]:
    """A selection's `train` or `val` rows as conversations."""
    return examples([Row(**r) for r in read_json(selected / f"{part}_rows.json")])
