"""How a command reads rows: which field is what, which verdicts count, which rows are meant.

What is compared is the share of a verdict, or a number under the metric's name; where no row holds a verdict, the rules
judge the replies' text. A null verdict is missing: it is no verdict and is never counted as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.data.rows import ALIASES, Row
from alignment_core.errors import InputError, UserError, nearest
from alignment_core.evaluation.metrics import SHARES, metric_name
from alignment_core.records import KINDS, LABELS, Kind, Label

if TYPE_CHECKING:
    from alignment_core.evaluation.align import Side

_NAMED: dict[str, tuple[Kind, Label]] = {metric_name(kind, label): (kind, label) for label in LABELS for kind in KINDS}


@dataclass(frozen=True)
class Reading:
    """How a row is read."""

    metric: str = "refusal"
    """A label (its share is compared), a share by its full name, or the name of a numeric field."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our field to the file's."""
    positive: tuple[str, ...] = ()
    """Foreign verdicts that count as 1, every other as 0; empty: the metric among our labels."""
    judge: str = "auto"
    """Whose verdicts: the file's first judge's (`auto`, or the rules' where no row holds one), those of the judge of
    that name, or (`rules`) the rules' on every row's text."""
    kind: str = ""
    """What the prompts are where a row does not say."""

    @property
    def label(self) -> Label | None:
        """The label whose share is compared; None for a number."""
        if self.metric in _NAMED:
            return _NAMED[self.metric][1]
        if self.positive and self.metric not in LABELS:
            return "refusal"
        return next((label for label in LABELS if label == self.metric), None)

    def of(self, kind: Kind | None) -> str:
        """The metric's name on a kind of prompt."""
        if kind is None:
            return self.metric
        return f"{kind}_{self.metric}" if self.label is None else metric_name(kind, self.label)


def pairs(text: str, what: str) -> dict[str, str]:
    """`a=b,c=d` as a dictionary; `UserError` shows the form."""
    out: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        key, separator, value = item.partition("=")
        if not separator or not key.strip() or not value.strip():
            raise UserError(f"cannot read {what} {text!r}: write key=value,key=value")
        out[key.strip()] = value.strip()
    return out


def field_map(text: str, *metrics: str) -> dict[str, str]:
    """`prompt_id=qid,text=output` as a map from our names to the file's; `metrics` are further names of ours."""
    known = (*ALIASES, *metrics)
    names = {"label" if ours == "verdict" else ours: theirs for ours, theirs in pairs(text, "--map").items()}
    for name in names:
        if name not in known:
            raise UserError(f"--map: no field {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return names


def side(path: Path, reading: Reading, where: Mapping[str, str], name: str) -> tuple[Side, str]:
    """The rows of one file or run that match `where` as columns, and whose verdicts they are ("" for numbers).

    Raises `InputError` with file and line."""
    from alignment_core.data.exchange import prompt_id
    from alignment_core.evaluation.align import Side

    rows = list(_matching(path, reading, where))
    if not rows:
        match = " that match " + ", ".join(f"{k}={v}" for k, v in where.items()) if where else ""
        raise UserError(f"{path}: no rows{match}")
    judge = _judge(path, rows, reading)
    if judge is not None:
        # Of a file with a row for each verdict those of one judge.
        rows = [row for row in rows if not row.verdicts or any(v.get("judge") == judge for v in row.verdicts)]
    columns: dict[str, list[Any]] = {key: [] for key in ("prompt_id", "value", "seed", "cluster", "kind")}
    for row in rows:
        try:
            columns["prompt_id"].append(prompt_id(row.values))
            columns["value"].append(_value(row, reading, judge))
            columns["kind"].append(_kind(row, reading))
            for key in ("seed", "cluster"):
                columns[key].append(_plain(row, key))
        except ValueError as error:
            raise row.error(str(error)) from error
    optional = {k: v if any(x is not None for x in v) else None for k, v in columns.items() if k in _OPTIONAL}
    whose = "" if reading.label is None else "the file" if judge == "given" else judge or "the rules"
    return Side(name, columns["prompt_id"], columns["value"], **optional), whose


_OPTIONAL = ("seed", "cluster", "kind")


def _matching(path: Path, reading: Reading, where: Mapping[str, str]) -> Iterator[Row]:
    from alignment_core.evaluation.inputs import read_rows

    wanted = _NAMED.get(reading.metric, (None, None))[0]
    for row in read_rows(path, reading.names):
        if isinstance(row, InputError):
            raise row
        of_kind = wanted is None or (row.values.get("kind") or reading.kind) in (wanted, "")
        if of_kind and all(str(row.values.get(k)) == v for k, v in where.items()):
            yield row


def _kind(row: Row, reading: Reading) -> Kind | None:
    found = row.values.get("kind") or reading.kind
    if not found and reading.metric in _NAMED:
        raise ValueError(f"{reading.metric} is on one kind of prompt, and the row does not say its kind; pass --kind")
    if found and found not in KINDS:
        raise ValueError(f"'kind' must be one of {', '.join(KINDS)}, found {found!r:.60}")
    return next((kind for kind in KINDS if kind == found), None)


def _plain(row: Row, name: str) -> str | int | float | None:
    """A seed or a cluster: text, a number, or null."""
    found = row.values.get(name)
    if found is None or isinstance(found, str | int | float):
        return found
    raise ValueError(f"{name!r} must be text or a number, found {type(found).__name__}")


def _judge(path: Path, rows: Sequence[Row], reading: Reading) -> str | None:
    """Whose verdicts are read; None where numbers are compared or the rules judge the text."""
    judges = dict.fromkeys(str(v.get("judge")) for row in rows for v in row.verdicts)
    if reading.label is None or reading.judge == "rules" or (reading.judge == "auto" and not judges):
        return None
    if reading.judge == "auto":
        return next(iter(judges))
    if reading.judge not in judges:
        hint = f"; there are those of {', '.join(judges)}" if judges else ""
        raise UserError(f"{path}: no verdict of the judge {reading.judge!r}{nearest(reading.judge, judges)}{hint}")
    return reading.judge


def _value(row: Row, reading: Reading, judge: str | None) -> float | None:
    """1, 0, a number, or None for missing."""
    if reading.label is None:
        return _number(row, reading.metric)
    if judge is None:
        return _judged(row, reading.label)
    said = next((v for v in row.verdicts if v.get("judge") == judge), None)
    if said is not None:
        return _positive(said.get("label"), reading)
    if row.values.get("failure") or ("text" in row.values and row.values["text"] is None):
        return None
    raise ValueError("no verdict, though other rows have one (null says that it is missing)")


def _number(row: Row, key: str) -> float | None:
    if key not in row.values:
        shares = f"{', '.join(LABELS)}, a share such as {SHARES[0].key}, or a numeric field"
        raise ValueError(f"no field {key!r}{nearest(key, (*row.values, *_NAMED))}; --metric takes {shares}")
    found = row.values[key]
    if isinstance(found, str):
        try:
            found = float(found)
        except ValueError:
            found = {"true": 1.0, "false": 0.0, "": None}.get(found.lower(), found)
    if found is not None and not isinstance(found, int | float):
        raise ValueError(f"{key!r} must be a number, true, false or null, found {found!r:.40}")
    return None if found is None or math.isnan(found) else float(found)


def _positive(found: Any, reading: Reading) -> float | None:
    if found is None:
        return None
    if reading.positive:
        return float(str(found) in reading.positive)
    if isinstance(found, bool) or found in (0, 1, "0", "1"):
        return float(found)
    if found not in LABELS:
        raise ValueError(f"the verdict is {found!r:.40}, none of {', '.join(LABELS)}; pass --positive LABEL,...")
    return float(found == reading.label)


def _judged(row: Row, label: Label) -> float | None:
    """The rules' verdict on the row's text; a null text is missing."""
    from alignment_core.judging import refusal

    values = row.values
    if "text" not in values:
        hint = nearest("text", values) or f"; this row has {', '.join(list(values)[:8])}"
        raise ValueError(row.no_text or f"neither a verdict nor a reply's text{hint}; name it with --map text=FIELD")
    text, prompt = values["text"], values.get("prompt")
    if text is None or values.get("failure"):
        return None
    if not isinstance(text, str):
        raise ValueError(f"'text' must be a string, found {type(text).__name__}")
    return float(refusal.judge(text, prompt if isinstance(prompt, str) else "").label == label)
