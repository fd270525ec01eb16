"""What a command is given to compare or judge: a file of any known form, or a run folder of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment_core.data import exchange
from alignment_core.data.exchange import Imported
from alignment_core.data.rows import Row
from alignment_core.data.rows import read_rows as read_file_rows
from alignment_core.errors import InputError
from alignment_core.evaluation.files import INDEX, VERDICTS
from alignment_core.evaluation.state import ReplyKey, StateFiles, read_index, reply_scores, texts
from alignment_core.io import read_jsonl
from alignment_core.records import Verdict


def read_rows(path: Path, names: Mapping[str, str] | None = None) -> Iterator[Row | InputError]:
    """The rows of a file, or the replies of a run folder with their verdicts and scores."""
    if not (path / INDEX).is_file():
        yield from read_file_rows(path, names)
        return
    for state in read_index(path):
        if not state.at:
            yield from _state_rows(state)


def read(path: Path, *, kind: str = "", subject: str = "", names: Mapping[str, str] | None = None) -> Imported:
    """As `exchange.read_file`, for a run folder, too."""
    return exchange.collect(path, read_rows(path, names), kind=kind, subject=subject)


def _state_rows(state: StateFiles) -> Iterator[Row]:
    said: dict[ReplyKey, list[dict[str, Any]]] = {}
    for v in read_jsonl(state.judged / VERDICTS, Verdict.from_json):
        said.setdefault((v.prompt_id, v.candidate), []).append(v.to_json())
    further = reply_scores(state)
    for completion in texts(state):
        key = (completion.prompt_id, completion.candidate)
        values = {**further.get(key, {}), **completion.to_json(), "subject": state.subject, "seed": state.seed}
        yield Row(str(state.answered), None, values, tuple(said.get(key, ())))
