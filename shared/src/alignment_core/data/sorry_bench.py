"""SORRY-Bench (arXiv 2406.14598): unsafe instructions by category, plain (`base`) and in 20 mutated styles.

All styles of a question share its cluster. A category is the number that the set gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment_core.config import SourceSettings
from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Reading, Rejects, read, text
from alignment_core.records import Message, Prompt


def parse(row: Mapping[str, Any]) -> Prompt:
    """One row; its only turn is the prompt."""
    number, turns = row.get("question_id"), row.get("turns")
    if not isinstance(number, int | str) or isinstance(number, bool):
        raise ValueError(f"'question_id' must be a number, found {type(number).__name__}")
    if not isinstance(turns, list) or len(turns) != 1:
        raise ValueError("'turns' must be a list of one string")
    style, category = (
        text(row, "prompt_style", default="base"),
        text({"category": str(row.get("category", ""))}, "category"),
    )
    asked = text({"turns": turns[0]}, "turns")
    return Prompt(
        f"sorry-bench:{style}:{number}",
        (Message("user", asked),),
        "harmful",
        category,
        f"sorry-bench:{style}",
        f"sorry-bench:{number}",
    )


def load(settings: SourceSettings, rejects: Rejects) -> Reading[Prompt]:
    """Every question of every style that is there; see `sources.read` for the errors."""
    return read(SOURCES["sorry-bench"], settings, parse, rejects)
