"""Alpaca (tatsu-lab/alpaca) and files of its shape: instruction, input (may be empty), output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Reading, Rejects, Turn, read, text

if TYPE_CHECKING:
    from alignment_core.config import SourceSettings


def parse(row: Mapping[str, Any]) -> Turn:
    """One row; the prompt is the instruction and, where there is one, the input below it."""
    instruction, given = text(row, "instruction"), text(row, "input", default="")
    tag = "with_input" if given else "no_input"
    return Turn(f"{instruction}\n\n{given}" if given else instruction, text(row, "output"), "alpaca", tag=tag)


def load(settings: SourceSettings, rejects: Rejects) -> Reading[Turn]:
    """Every row of the set; see `sources.read` for the errors."""
    return read(SOURCES["alpaca"], settings, parse, rejects)
