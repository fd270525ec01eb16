"""databricks-dolly-15k: everyday requests written by people (instruction, context, response, category).

A file of Alpaca's shape (instruction, input, output) can stand in for it; its rows keep their own source's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alignment_core.data import alpaca
from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Reading, Rejects, Turn, read, text

if TYPE_CHECKING:
    from alignment_core.config import SourceSettings


def parse(row: Mapping[str, Any]) -> Turn:
    """One row; the prompt is the instruction and, where there is one, the context under a heading."""
    if "output" in row and "response" not in row:
        return alpaca.parse(row)
    instruction, context = text(row, "instruction"), text(row, "context", default="")
    prompt = f"{instruction}\n\nContext:\n{context}" if context else instruction
    return Turn(prompt, text(row, "response"), "dolly", tag=text(row, "category", default=""))


def load(settings: SourceSettings, rejects: Rejects) -> Reading[Turn]:
    """Every row of the set; see `sources.read` for the errors."""
    return read(SOURCES["dolly"], settings, parse, rejects)
