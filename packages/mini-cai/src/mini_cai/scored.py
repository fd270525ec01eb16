"""Candidates with their critiques, as the steps that generate and criticise leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core.io import read_jsonl, read_rows
from alignment_core.judging.critique import Critique
from alignment_core.records import Completion
from mini_cai.rows import CANDIDATES

SCORES = "scored.jsonl"


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate with its critique."""

    reply: Completion
    critique: Critique

    @property
    def value(self) -> float:
        return self.critique.value


def by_prompt(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Candidates of each prompt, in order."""
    out: dict[str, list[Scored]] = {}
    for one in scored:
        out.setdefault(one.reply.prompt_id, []).append(one)
    return out


def read(generated: Path, criticised: Path) -> list[Scored]:
    """Candidates with their critiques, from the two steps' files."""
    replies = read_jsonl(generated / CANDIDATES, Completion.from_json)
    said = read_jsonl(criticised / SCORES, Critique.from_json)
    return [Scored(r, c) for r, c in zip(replies, said, strict=True)]


def revisions(folder: Path) -> list[dict[str, Any]]:
    """The rounds of a revise step, first replies as round 0."""
    return [row for _, row, reason in read_rows(folder / "revisions.jsonl") if reason is None]
