"""Rows of anyone's file under our field names: JSON Lines, CSV, Inspect's logs, lm-eval's samples.

The format is told by the file's name and by each row: `.eval` and `.json` are Inspect's logs, `.csv` has a header row,
every other file is JSON Lines, whose rows may be lm-eval's. A field is looked up under the name that the caller gives,
then under ours, then under the names that other tools use. What a row does not say is absent; null is missing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.data import inspect_samples, lm_eval
from alignment_core.errors import InputError, UserError

ALIASES: dict[str, tuple[str, ...]] = {
    "prompt_id": (),
    "prompt": ("instruction", "question", "input"),
    "text": ("response", "completion", "output", "reply"),
    "kind": (),
    "label": ("verdict",),
    "judge": (),
    "subject": ("model",),
    "seed": (),
    "candidate": (),
    "cluster": (),
    "category": (),
    "source": (),
    "score": (),
}
"""Our fields, and what other tools call them."""

_VERDICT = ("rule", "evidence", "score")
_CELL_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a reply, a verdict, or numbers."""

    where: str
    """The file, and for a log the sample in it."""
    line: int | None
    values: Mapping[str, Any]
    """The row's own fields, and ours beside them."""
    verdicts: tuple[Mapping[str, Any], ...] = ()
    """What each judge said: `judge`, `label`, and where there are any `rule`, `evidence`, `score`."""
    no_text: str = ""
    """Why the row holds no reply, where its format says so."""

    def error(self, reason: str) -> InputError:
        """An error that names this row."""
        return InputError(self.where, self.line, reason)


def read_rows(path: Path, names: Mapping[str, str] | None = None) -> Iterator[Row | InputError]:
    """Every row of a file, or why it could not be read. `names`: our field to the file's.

    Raises `UserError` where there is no such file, `InputError` where the whole file is of no known form.
    """
    found = names or {}
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a file of replies or verdicts (a run folder has a states.json)")
    if path.suffix in (".eval", ".json"):
        for where, sample in inspect_samples.read(path):
            if isinstance(sample, str):
                yield InputError(where, None, sample)
            else:
                values, verdicts = sample
                yield Row(where, None, _named(values, found), verdicts)
        return
    for line, row, reason in _csv_rows(path) if path.suffix == ".csv" else io.read_rows(path):
        if reason is None and not isinstance(row, Mapping):
            reason = f"expected an object, found {type(row).__name__}"
        if reason is not None:
            yield InputError(str(path), line, reason)
        elif row.keys() >= lm_eval.KEYS:
            yield from _lm_eval_rows(path, line, row, found)
        else:
            yield _row(path, line, row, found)


def _row(path: Path, line: int, row: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    values = _named(row, names)
    if "label" not in values:
        return Row(str(path), line, values)
    verdict = {"judge": values.get("judge") or "given", "label": values["label"]}
    return Row(str(path), line, values, (verdict | {k: values[k] for k in _VERDICT if k in values},))


def _lm_eval_rows(
    path: Path, line: int, row: Mapping[str, Any], names: Mapping[str, str]
) -> Iterator[Row | InputError]:
    try:
        samples = lm_eval.read(row)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        yield InputError(str(path), line, f"missing {error}" if isinstance(error, KeyError) else str(error))
        return
    for sample in samples:
        values = {"subject": path.resolve().parent.name or "model", **_named(sample.values, names)}
        yield Row(str(path), line, values, sample.verdicts, sample.no_text)


def _named(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The row's fields, and ours beside them."""
    out = dict(row)
    for ours in (*ALIASES, *(name for name in names if name not in ALIASES)):
        if ours in names:
            out.pop(ours, None)
            theirs: str | None = names[ours]
        else:
            theirs = next((name for name in (ours, *ALIASES[ours]) if name in row), None)
        if theirs is not None and theirs in row:
            out[ours] = row[theirs]
            if theirs == "instruction" and isinstance(row.get("input"), str) and row["input"]:
                out[ours] = f"{row[theirs]}\n\n{row['input']}"  # Alpaca's form
    return out


def _csv_rows(path: Path) -> Iterator[tuple[int, Any, str | None]]:
    """As `io.read_rows`. An empty cell is null, but under the names of a reply's text, where it is an empty reply."""
    csv.field_size_limit(_CELL_BYTES)
    texts = {"text", *ALIASES["text"]}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            header = next(rows, [])
            if len(set(header)) < len(header) or not header:
                raise InputError(str(path), 1, "the header row must name every column, each once")
            for row in rows:
                if len(row) == len(header):
                    cells = zip(header, row, strict=True)
                    yield rows.line_num, {k: _cell(k, v) if v or k in texts else None for k, v in cells}, None
                elif row:
                    yield rows.line_num, None, f"{len(row)} cells under {len(header)} column names"
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(str(path), None, f"not CSV in UTF-8: {error}") from error


def _cell(name: str, text: str) -> Any:
    """Counts and seeds as whole numbers; every other cell as it stands."""
    whole = name in ("seed", "candidate", "tokens") and text.removeprefix("-").isdecimal() and len(text) < 19
    return int(text) if whole else text
