"""`alignment-core compare`: two files of completions, verdicts or numbers, or two states, to paired comparisons.

Each kind of prompt is compared by itself, under the name that `judge` prints.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.cli.reading import Reading, side
from alignment_core.errors import UserError

if TYPE_CHECKING:
    from alignment_core.evaluation.align import Options
    from alignment_core.evaluation.compare import Compared
    from alignment_core.evaluation.fail_on import Decided


def compare_files(
    a: Path,
    b: Path,
    reading: Reading,
    how: Options,
    *,
    where: Sequence[Mapping[str, str]] = ({}, {}),
    names: Sequence[str] = ("", ""),
) -> dict[str, Compared | str]:
    """Read both files and compare each kind of prompt, by the metric's name on it; a text says why there is no
    comparison. Raises `UserError` in one line, also where there is none at all."""
    from alignment_core.evaluation.compare import compare_kinds

    labels = [given or path.stem for given, path in zip(names, (a, b), strict=True)]
    if labels[0] == labels[1]:
        labels = [w.get("subject", "") for w in where]
    if labels[0] == labels[1] or not all(labels):
        labels = ["A", "B"]
    (left, one), (right, other) = (
        side(path, reading, w, name) for path, w, name in zip((a, b), where, labels, strict=True)
    )
    try:
        found = compare_kinds(left, right, reading.of, how)
    except ValueError as error:
        raise UserError(str(error)) from error
    reasons = [why for why in found.values() if isinstance(why, str)]
    if len(reasons) == len(found):
        raise UserError(f"{next(iter(found))}: {reasons[0]}")
    said = _whose(left.name, one, right.name, other)
    return {k: v if isinstance(v, str) else replace(v, notes=(*said, *v.notes)) for k, v in found.items()}


def _whose(a: str, one: str, b: str, other: str) -> tuple[str, ...]:
    if not one:
        return ()
    return (f"verdicts of {one}" if one == other else f"verdicts of {one} in {a}, of {other} in {b}",)


def to_json(found: Mapping[str, Compared | str], decided: Sequence[Decided] = ()) -> dict[str, Any]:
    """The comparisons as JSON: what is undefined is null."""
    comparisons: list[Any] = []
    for metric, one in found.items():
        if isinstance(one, str):
            comparisons.append({"metric": metric, "not_compared": one})
        else:
            row = _finite(one)
            comparisons.append({**row, "result": {**row["result"], "test": one.result.test}})
    return {"comparisons": comparisons, "rules": [_finite(one) for one in decided]}


def _finite(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _finite(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines(found: Mapping[str, Compared | str], decided: Sequence[Decided] = ()) -> Iterator[str]:
    """The comparisons in words and figures: a block of lines each, then what became of the rules."""
    for i, (metric, one) in enumerate(found.items()):
        if i:
            yield ""
        if isinstance(one, str):
            yield f"{metric}: not compared: {one}"
        else:
            yield from _block(one)
    if decided:
        yield ""
    for rule in decided:
        yield f"fail-on {rule.rule}: {rule.outcome} ({rule.because})"


def _block(found: Compared) -> Iterator[str]:
    from alignment_core.evaluation.compare import WIDTH_ZERO
    from alignment_core.text import number, p_value

    r = found.result
    for name, level in ((found.a, found.level_a), (found.b, found.level_b)):
        missing = f", {level.missing} missing" if level.missing else ""
        span = _span(level.value, level.low, level.high)
        yield f"{name}: {found.metric} {span} (n {level.n}{missing}, {level.method})"
    unknown = "" if found.kind is not None else " (kind unknown)"
    difference = f"{number(r.difference, 3, signed=True)} {_ends(r.low, r.high, signed=True)}"
    p = "p undefined" if r.test is None else f"p {p_value(r.p)} ({r.test})"
    yield f"{found.b} - {found.a}: {found.metric}{unknown} {difference}, {p}; inference: {inference(r.estimand)}"
    if not r.width > 0:
        yield f"the interval has {WIDTH_ZERO}"
    rests = f"{r.n_prompts} prompts in {r.n_clusters} clusters, {r.n_seeds} seed{'s' if r.n_seeds != 1 else ''}"
    yield (
        rests
        + (f", df {r.df:.1f}" if r.df is not None else "")
        + (f"; {r.gained} gained, {r.lost} lost" if r.gained is not None and r.lost is not None else "")
    )
    if r.detectable is not None:
        yield f"minimum detectable difference (80% power): {r.detectable:.3f}"
    if r.seed_level is not None and r.n_seeds > 1:
        yield f"over the seeds alone: {_span(r.seed_level.value, r.seed_level.low, r.seed_level.high)}"
    if r.missing and r.bounds is not None:
        yield f"whatever the missing values were, the difference lies in {_ends(*r.bounds, signed=True)}"
    yield from _margins(found)
    yield from (f"note: {note}" for note in (*found.notes, *r.warnings))


def _margins(found: Compared) -> Iterator[str]:
    better = "higher" if found.higher_is_better else "lower"
    if found.equivalence is not None:
        word = "equivalent" if found.equivalence.equivalent else "equivalence not shown"
        yield f"margin {found.equivalence.margin:g}: {word} ({found.equivalence.because})"
    if found.noninferiority is not None:
        word = "not inferior" if found.noninferiority.noninferior else "non-inferiority not shown"
        yield (
            f"margin {found.noninferiority.margin:g}: {word} "
            f"({better} is better; 95% bound {found.noninferiority.bound:+.3f})"
        )


def inference(estimand: str) -> str:
    """What a comparison is about, for readers."""
    return {"these checkpoints": "these checkpoints only", "over runs": "training runs like these"}.get(
        estimand, estimand
    )


def _ends(low: float, high: float, *, signed: bool = False) -> str:
    from alignment_core.text import number

    return f"[{number(low, 3, signed=signed)}, {number(high, 3, signed=signed)}]"


def _span(value: float, low: float, high: float) -> str:
    from alignment_core.text import number

    return f"{number(value, 3)} {_ends(low, high)}"
