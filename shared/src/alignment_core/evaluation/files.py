"""The files of a state, as the steps that answer and judge leave them.

completions.jsonl   what it replied (answered folder)
verdicts.jsonl      every judge's verdicts, those of the deciding judge first (judged folder)
scores.jsonl        rows {prompt_id, candidate, <name>: value}: further numbers of each reply (either folder)
losses.jsonl        rows {set, id, cluster, loss}: losses of rows that are no replies, in nats a token (answered)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from alignment_core.io import read_object
from alignment_core.pipeline.writers import write_json

Place = str | int | float | None
"""A value of `at`: where on a trajectory, in which category, layer, group, by which judge."""

COMPLETIONS, VERDICTS, SCORES, LOSSES = "completions.jsonl", "verdicts.jsonl", "scores.jsonl", "losses.jsonl"
INDEX = "states.json"
"""In a run folder: its states. In an answered folder: the states that it holds, where there are several."""


def write_places(answered: Path, places: Iterable[tuple[str, Mapping[str, Place], str]]) -> None:
    """Say in an answered folder which states it holds: (subject, place on a trajectory, folder inside) of each."""
    rows = [{"subject": subject, "at": dict(at), "folder": folder} for subject, at, folder in places]
    write_json(answered / INDEX, {"states": rows})


def read_places(answered: Path, subject: str) -> list[tuple[str, Mapping[str, Place], str]]:
    """What `write_places` wrote; a folder without it holds the one state `subject`."""
    path = answered / INDEX
    if not path.exists():
        return [(subject, {}, ".")]
    return [(row["subject"], row["at"], row["folder"]) for row in read_object(path)["states"]]
