"""Tables of harmful behaviours: HarmBench, AdvBench, StrongREJECT and JailbreakBench, told apart by their headings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Reading, Rejects, read, text
from alignment_core.records import Message, Prompt, fingerprint

if TYPE_CHECKING:
    from alignment_core.config import SourceSettings

_SETS = (
    # set, heading of the request, heading of the category
    ("strongreject", "forbidden_prompt", "category"),
    ("jailbreakbench", "Goal", "Category"),
    ("harmbench", "Behavior", "SemanticCategory"),
    ("advbench", "goal", "category"),
)


def parse(row: Mapping[str, Any]) -> Prompt:
    """One row; a HarmBench behaviour with a context has it below the request."""
    found = next(((name, heading, category) for name, heading, category in _SETS if heading in row), None)
    if found is None:
        raise ValueError(f"no heading is one of {', '.join(heading for _, heading, _ in _SETS)}")
    name, heading, category = found
    asked, context = text(row, heading), text(row, "ContextString", default="")
    asked = f"{asked}\n\n{context}" if context else asked
    number = text(row, "BehaviorID", default=fingerprint(asked))
    return Prompt(f"{name}:{number}", (Message("user", asked),), "harmful", text(row, category, default=""), name)


def load(settings: SourceSettings, rejects: Rejects) -> Reading[Prompt]:
    """Every behaviour of a table given as a path; see `sources.read` for the errors."""
    return read(SOURCES["behaviours"], settings, parse, rejects)
