"""Completions and verdicts to and from other tools.

So that an evaluation run here opens in Inspect's and lm-eval's viewers, and one that people already ran can be judged
by our rules and compared by our paired tests. What cannot be read is counted with its reason, never dropped:
rows in = kept + rejected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignment_core.data import inspect_log, lm_eval
from alignment_core.data.inspect_log import file_name
from alignment_core.data.rows import Row, read_rows
from alignment_core.errors import InputError, UserError
from alignment_core.records import KINDS, LABELS, Completion, Verdict, fingerprint

State = tuple[str, int | None]
"""Subject and seed."""


@dataclass(frozen=True)
class Imported:
    """What a file held."""

    completions: tuple[Completion, ...]
    verdicts: tuple[Verdict, ...]
    rejected: tuple[InputError, ...]
    """One entry for each row that could not be taken, with the reason."""


def read_file(path: Path, *, kind: str = "", subject: str = "", names: Mapping[str, str] | None = None) -> Imported:
    """Completions and verdicts of a file of any form that `read_rows` knows.

    Args:
        kind: what the prompts are where a row does not say.
        subject: the model's name, instead of the file's.
        names: our field to the file's.

    Raises `UserError` when nothing could be read.
    """
    return collect(path, read_rows(path, names), kind=kind, subject=subject)


def collect(path: Path, rows: Iterable[Row | InputError], *, kind: str = "", subject: str = "") -> Imported:
    """Rows as completions and verdicts; see `read_file`. A label that is none of ours beside a reply is no verdict."""
    reader = _Reader(path.stem, kind, subject)
    for row in rows:
        if isinstance(row, InputError):
            reader.rejected.append(row)
            continue
        try:
            reader.take(row)
        except ValueError as error:
            reader.rejected.append(row.error(str(error)))
    if not reader.completions and not reader.verdicts:
        rejected = reader.rejected
        why = f"; the first of {len(rejected)} reasons: {rejected[0].reason}" if rejected else ""
        raise UserError(f"{path}: no reply or verdict could be read{why}")
    return Imported(tuple(reader.completions.values()), tuple(reader.verdicts.values()), tuple(reader.rejected))


class _Reader:
    """Collects the records of one file."""

    def __init__(self, name: str, kind: str, subject: str) -> None:
        self.name, self.kind, self.subject = name, kind, subject
        self.completions: dict[tuple[Any, ...], Completion] = {}
        self.verdicts: dict[tuple[Any, ...], Verdict] = {}
        self.rejected: list[InputError] = []
        self._asked: Counter[tuple[Any, ...]] = Counter()

    def take(self, row: Row) -> None:
        """Add the row's reply and verdicts; `ValueError` says why it is no such row, or is there twice."""
        about = self._about(row.values)
        completion = None
        if "text" in row.values:
            completion = _completion(about, row.values)
        elif not row.verdicts:
            raise ValueError(row.no_text or _no_text(row.values))
        verdicts = [
            Verdict.from_json({**about, **said})
            for said in map(_verdict, row.verdicts)
            if completion is None or said["label"] is None or said["label"] in LABELS
        ]
        place = (about["prompt_id"], about["subject"], about["seed"], about["candidate"])
        if completion is not None and place in self.completions:
            raise ValueError(f"prompt {about['prompt_id']!r} stands there twice")
        for v in verdicts:
            if (*place, v.judge) in self.verdicts:
                raise ValueError(f"prompt {about['prompt_id']!r} has two verdicts of {v.judge}")
        if completion is not None:
            self.completions[place] = completion
        self.verdicts |= {(*place, v.judge): v for v in verdicts}

    def _about(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a reply and its verdicts share."""
        kind = values.get("kind") or self.kind
        if not kind:
            raise ValueError(f"does not say what kind of prompt it is; pass --kind, one of {', '.join(KINDS)}")
        subject = self.subject or values.get("subject") or self.name
        about = {"subject": subject, "kind": kind, "seed": values.get("seed"), "prompt_id": prompt_id(values)}
        about |= {key: _plain(values.get(key)) for key in ("category", "source", "cluster")}
        candidate = values.get("candidate")
        if candidate is None and values.get("prompt_id") is None and "text" in values:
            # Several replies to one prompt that has no id of its own are its candidates.
            place = (about["prompt_id"], subject, str(about["seed"]))
            candidate = self._asked[place]
            self._asked[place] += 1
        return {**about, "candidate": candidate or 0}


def _completion(about: Mapping[str, Any], values: Mapping[str, Any]) -> Completion:
    text = values["text"]
    further = {key: values[key] for key in ("tokens", "finish", "failure") if values.get(key) is not None}
    if text is None:
        further = {"failure": "the row holds no reply", **further}
    prompt = values.get("prompt")
    return Completion.from_json(
        {**about, "text": "" if text is None else text, "prompt": "" if prompt is None else prompt, **further}
    )


def _verdict(said: object) -> dict[str, Any]:
    if not isinstance(said, Mapping) or not said.keys() >= {"judge", "label"}:
        raise ValueError("a verdict must hold judge and label")
    return {key: said[key] for key in ("judge", "label", "rule", "evidence", "score") if key in said}


def _plain(value: Any) -> Any:
    """Null as the empty text, a number as its digits."""
    return "" if value is None else str(value) if type(value) in (int, float) else value


def prompt_id(values: Mapping[str, Any]) -> str:
    """A row's prompt id, or the prompt's fingerprint; `ValueError` where the row has neither."""
    found = values.get("prompt_id")
    if found is not None:
        return str(found)
    if isinstance(values.get("prompt"), str):
        return fingerprint(values["prompt"])
    # The field whose name looks most like an id.
    likely = next((k for k in values if "id" in k.lower()), next(iter(values), "FIELD"))
    raise ValueError(f"no prompt id and no prompt; name its field, for example --map prompt_id={likely}")


def _no_text(values: Mapping[str, Any]) -> str:
    return f"neither a verdict nor a reply's text; this row has {', '.join(list(values)[:8])}; pass --map text=FIELD"


def _by_state(completions: Iterable[Completion]) -> dict[State, list[Completion]]:
    states: dict[State, list[Completion]] = {}
    for c in completions:
        states.setdefault((c.subject, c.seed), []).append(c)
    return states


def _free(paths: Iterable[Path], overwrite: bool) -> None:
    """`UserError` where one of the files is there and may not be replaced."""
    if not overwrite and (there := [path for path in paths if path.exists()]):
        raise UserError(f"{there[0]}: exists; pass --overwrite, or name another folder")


def to_inspect(
    folder: Path,
    completions: Iterable[Completion],
    verdicts: Iterable[Verdict] = (),
    *,
    task: str,
    created: datetime | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write one `<state>[-s<seed>].eval` for each model state and seed; returns the files.

    Raises `UserError` before it writes when one of them is there, unless `overwrite`.
    """
    said, states = list(verdicts), _by_state(completions)
    paths = {state: folder / f"{file_name(*state)}.eval" for state in states}
    _free(paths.values(), overwrite)
    for state, mine in states.items():
        inspect_log.write(paths[state], mine, said, task=task, created=created)
    return list(paths.values())


def to_lm_eval(
    folder: Path,
    completions: Iterable[Completion],
    verdicts: Iterable[Verdict] = (),
    *,
    task: str,
    created: datetime | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write `<state>[-s<seed>]/samples_<task>_<time>.jsonl` for each model state and seed; returns the files.

    Raises `UserError` before it writes when samples of the task are there, unless `overwrite`, which removes them.
    """
    said: dict[State, dict[tuple[str, int], list[Verdict]]] = {}
    for v in verdicts:
        said.setdefault((v.subject, v.seed), {}).setdefault((v.prompt_id, v.candidate), []).append(v)
    stamp = (created or datetime.now(UTC)).strftime("%Y-%m-%dT%H-%M-%S.%f")
    states, name = _by_state(completions), f"samples_{file_name(task, None)}_"
    old = [path for state in states for path in sorted((folder / file_name(*state)).glob(f"{name}*.jsonl"))]
    _free(old, overwrite)
    paths = {state: folder / file_name(*state) / f"{name}{stamp}.jsonl" for state in states}
    for state, mine in states.items():
        lm_eval.write(paths[state], mine, said.get(state, {}))
    for path in set(old) - set(paths.values()):
        path.unlink()
    return list(paths.values())
