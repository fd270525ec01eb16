"""BeaverTails (arXiv 2307.04657): a prompt, one reply, and whether the reply is safe, by 14 categories of harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignment_core.config import SourceSettings
from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Reading, Rejects, flag, read, text
from alignment_core.records import fingerprint


@dataclass(frozen=True, slots=True)
class BeaverTailsRow:
    """One prompt with one reply; the same prompt recurs with other replies and other labels."""

    prompt: str
    reply: str
    safe: bool
    harms: tuple[str, ...] = ()

    @property
    def cluster(self) -> str:
        return fingerprint(self.prompt)


def parse(row: Mapping[str, Any]) -> BeaverTailsRow:
    """One row."""
    harms = row.get("category") or {}
    if not isinstance(harms, Mapping):
        raise ValueError(f"'category' must be an object, found {type(harms).__name__}")
    named = tuple(sorted(str(name) for name, yes in harms.items() if yes is True))
    return BeaverTailsRow(text(row, "prompt"), text(row, "response"), flag(row, "is_safe"), named)


def load(settings: SourceSettings, rejects: Rejects) -> Reading[BeaverTailsRow]:
    """Every training row of the 330k set; see `sources.read` for the errors."""
    return read(SOURCES["beavertails"], settings, parse, rejects)
