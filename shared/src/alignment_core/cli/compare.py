"""`alignment-core compare`: anyone's completions or verdicts, as JSON Lines, to a paired comparison.

A row holds `prompt_id`, and `seed` and `cluster` where there are any, and what is compared: a verdict (`verdict` or
`label`), a number under the metric's name, or the reply's `text`, which is then judged by the rules. Other names are
mapped. A null verdict is missing: it is no verdict and is never counted as one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core import io
from alignment_core.errors import InputError, UserError, nearest
from alignment_core.records import LABELS, fingerprint

if TYPE_CHECKING:
    from alignment_core.evaluation.compare import Compared, Side

FIELDS = ("prompt_id", "seed", "cluster", "text", "verdict", "prompt", "score")


@dataclass(frozen=True)
class Reading:
    """How a row is read."""

    metric: str = "refusal"
    """A label (its share is compared), or the name of a numeric field."""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Our field to the file's."""
    positive: tuple[str, ...] = ()
    """Foreign verdicts that count as 1, every other as 0; empty: the metric among our labels."""
    judge: str = "auto"
    """`rules` judges every row's text again; `auto` only where no row holds a verdict."""


def pairs(text: str, what: str) -> dict[str, str]:
    """`a=b,c=d` as a dictionary; `UserError` shows the form."""
    out: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        key, separator, value = item.partition("=")
        if not separator or not key.strip() or not value.strip():
            raise UserError(f"cannot read {what} {text!r}: write key=value,key=value")
        out[key.strip()] = value.strip()
    return out


def field_map(text: str) -> dict[str, str]:
    """`prompt_id=qid,text=output` as a map from our names to the file's."""
    names = pairs(text, "--map")
    for name in names:
        if name not in FIELDS:
            raise UserError(f"--map: no field {name!r}{nearest(name, FIELDS)}; there are {', '.join(FIELDS)}")
    return names


def side(path: Path, reading: Reading, where: Mapping[str, str], name: str) -> Side:
    """The rows of one file that match `where`, as columns. Raises `InputError` with file and line."""
    from alignment_core.evaluation.compare import Side

    rows = [(number, row) for number, row in _rows(path) if all(str(row.get(k)) == v for k, v in where.items())]
    if not rows:
        match = " that match " + ", ".join(f"{k}={v}" for k, v in where.items()) if where else ""
        raise UserError(f"{path}: no rows{match}")
    ids, seeds, clusters, values = [], [], [], []
    judged = reading.judge == "rules" or not any(_has_value(row, reading) for _, row in rows)
    for number, row in rows:
        try:
            ids.append(_prompt_id(row, reading))
            values.append(_judged(row, reading) if judged else _value(row, reading))
            seeds.append(_plain(row, reading, "seed"))
            clusters.append(_plain(row, reading, "cluster"))
        except ValueError as error:
            raise InputError(str(path), number, str(error)) from error
    known_seed, known_cluster = any(s is not None for s in seeds), any(c is not None for c in clusters)
    return Side(name, ids, values, seeds if known_seed else None, clusters if known_cluster else None)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row, reason in io.read_rows(path):
        if reason is None and not isinstance(row, dict):
            reason = f"expected an object, found {type(row).__name__}"
        if reason is not None:
            raise InputError(str(path), number, reason)
        yield number, row


def _get(row: Mapping[str, Any], reading: Reading, name: str) -> Any:
    return row.get(reading.names.get(name, name))


def _plain(row: Mapping[str, Any], reading: Reading, name: str) -> str | int | float | None:
    """A seed or a cluster: text, a number, or null."""
    found = _get(row, reading, name)
    if found is None or isinstance(found, str | int | float):
        return found
    raise ValueError(f"{reading.names.get(name, name)!r} must be text or a number, found {type(found).__name__}")


def _prompt_id(row: Mapping[str, Any], reading: Reading) -> str:
    found = _get(row, reading, "prompt_id")
    if found is not None:
        return str(found)
    prompt = _get(row, reading, "prompt")
    if isinstance(prompt, str):
        return fingerprint(prompt)
    raise ValueError(f"no prompt id; name its field, for example --map prompt_id={_likely(row)}")


def _likely(row: Mapping[str, Any]) -> str:
    """The row's field whose name looks most like an id."""
    return next((k for k in row if "id" in k.lower()), next(iter(row), "FIELD"))


def _verdict_key(row: Mapping[str, Any], reading: Reading) -> str | None:
    named = reading.names.get("verdict")
    return next((k for k in ([named] if named else ["verdict", "label"]) if k in row), None)


def _metric_key(reading: Reading) -> str:
    return reading.names.get(reading.metric, reading.metric)


def _has_value(row: Mapping[str, Any], reading: Reading) -> bool:
    return (reading.metric not in LABELS and not reading.positive) or _verdict_key(row, reading) is not None


def _value(row: Mapping[str, Any], reading: Reading) -> float | None:
    """1, 0, a number, or None for missing."""
    if reading.metric not in LABELS and not reading.positive:
        key = _metric_key(reading)
        if key not in row:
            raise ValueError(f"no field {key!r}{nearest(key, row)}; --metric takes {', '.join(LABELS)} or a number")
        found = row[key]
        if found is not None and not isinstance(found, int | float):
            raise ValueError(f"{key!r} must be a number, true, false or null, found {type(found).__name__}")
        return None if found is None or math.isnan(found) else float(found)
    key = _verdict_key(row, reading) or ""
    if not key:
        raise ValueError("no verdict, though other rows have one (null says that it is missing)")
    return _positive(row[key], reading, key)


def _positive(found: Any, reading: Reading, key: str) -> float | None:
    if found is None:
        return None
    if reading.positive:
        return float(str(found) in reading.positive)
    if isinstance(found, bool) or found in (0, 1):
        return float(found)
    if found not in LABELS:
        raise ValueError(f"{key!r} is {found!r}, none of {', '.join(LABELS)}; say which count as 1: --positive {found}")
    return float(found == reading.metric)


def _judged(row: Mapping[str, Any], reading: Reading) -> float | None:
    """The rules' verdict on the row's text; a null text is missing."""
    from alignment_core.judging import refusal

    if reading.metric not in LABELS:
        raise ValueError(f"the rules judge text by {', '.join(LABELS)}, not {reading.metric!r}")
    key = reading.names.get("text", "text")
    if key not in row:
        hint = nearest("text", row) or f"; this row has {', '.join(list(row)[:8])}"
        raise ValueError(f"neither a verdict nor a reply's text under {key!r}{hint}; name it with --map text=FIELD")
    text = row[key]
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"{key!r} must be a string, found {type(text).__name__}")
    return float(refusal.judge(text).label == reading.metric)


def to_json(found: Compared) -> dict[str, Any]:
    """The comparison as JSON: what is undefined is null."""
    whole = {f.name: getattr(found, f.name) for f in dataclasses.fields(found) if f.name != "aligned"}
    out: dict[str, Any] = _finite(whole)
    return out


def _finite(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _finite(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines(found: Compared, metric: str) -> Iterator[str]:
    """The comparison in words and figures, one line a fact."""
    from alignment_core.text import number, p_value

    r = found.result
    for name, level in ((found.a, found.level_a), (found.b, found.level_b)):
        missing = f", {level.missing} missing" if level.missing else ""
        yield f"{name}: {metric} {_span(level.value, level.low, level.high)} (n {level.n}{missing}, {level.method})"
    difference = f"{number(r.difference, 3, signed=True)} {_ends(r.low, r.high, signed=True)}"
    yield f"{found.b} - {found.a}: {difference}, p {p_value(r.p)} ({r.method}; speaks of {_estimand(r.estimand)})"
    rests = f"{r.n_prompts} prompts in {r.n_clusters} clusters, {r.n_seeds} seed{'s' if r.n_seeds != 1 else ''}"
    yield (
        rests
        + (f", df {r.df:.1f}" if r.df is not None else "")
        + (f"; {r.gained} gained, {r.lost} lost" if r.gained is not None and r.lost is not None else "")
    )
    if r.detectable is not None:
        yield f"this design finds a difference of {r.detectable:.3f} with 80% power at .05"
    if r.seed_level is not None and r.n_seeds > 1:
        yield f"over the seeds alone: {_span(r.seed_level.value, r.seed_level.low, r.seed_level.high)}"
    if r.missing and r.bounds is not None:
        yield f"whatever the missing values were, the difference lies in {_ends(*r.bounds, signed=True)}"
    if found.equivalence is not None:
        word = "equivalent" if found.equivalence.equivalent else "equivalence not shown"
        yield f"margin {found.equivalence.margin:g}: {word} ({found.equivalence.because})"
    if found.noninferiority is not None:
        word = "not inferior" if found.noninferiority.noninferior else "non-inferiority not shown"
        yield f"margin {found.noninferiority.margin:g}: {word} (95% bound {found.noninferiority.bound:+.3f})"
    yield from (f"note: {note}" for note in (*found.notes, *r.warnings))


def _estimand(text: str) -> str:
    return "training runs like these" if text == "over runs" else text


def _ends(low: float, high: float, *, signed: bool = False) -> str:
    from alignment_core.text import number

    return f"[{number(low, 3, signed=signed)}, {number(high, 3, signed=signed)}]"


def _span(value: float, low: float, high: float) -> str:
    from alignment_core.text import number

    return f"{number(value, 3)} {_ends(low, high)}"


def compare_files(
    a: Path,
    b: Path,
    reading: Reading,
    *,
    where: Sequence[Mapping[str, str]] = ({}, {}),
    names: Sequence[str] = ("", ""),
    **options: Any,
) -> Compared:
    """Read both files and compare; `options` go to `stats.compare.compare`. Raises `UserError` in one line."""
    from alignment_core.evaluation.compare import compare

    labels = [given or path.stem for given, path in zip(names, (a, b), strict=True)]
    if labels[0] == labels[1]:
        labels = ["A", "B"]
    sides = [side(path, reading, w, name) for path, w, name in zip((a, b), where, labels, strict=True)]
    try:
        return compare(*sides, **options)
    except ValueError as error:
        raise UserError(str(error)) from error
