"""Plain JSON Lines in the project's own record shapes: examples, preference pairs, prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from alignment_core.config import SourceSettings
from alignment_core.data.catalogue import Source
from alignment_core.data.sources import Reading, Rejects, read
from alignment_core.records import Example, PreferencePair, Prompt

T = TypeVar("T", Example, PreferencePair, Prompt)


def load(path: Path, record: type[T], rejects: Rejects, source: str = "") -> Reading[T]:
    """Every row of a file or folder as a `record`. An example or pair without a `source` gets the one given here."""
    here = Source(source or path.name, "", "", ("*.jsonl",), "")

    def parse(row: Mapping[str, Any]) -> T:
        extra = {} if "source" in row or record.__name__ == "Prompt" else {"source": here.name}
        try:
            return record.from_json({**row, **extra})
        except (TypeError, KeyError) as error:
            raise ValueError(f"{record.__name__}: {error}") from error

    return read(here, SourceSettings(path=path), parse, rejects)
