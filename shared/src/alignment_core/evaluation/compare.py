"""From two lists of values by prompt and seed to paired comparisons: the engine of `alignment-core compare`.

Rows are matched by `align`; prompts of different kinds are never pooled. The method follows from what the rows hold
(one run, paired seeds, one side held fixed, unpaired seeds) and is said in words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from alignment_core.evaluation.align import DEFAULTS, Options, Pairing, Side, align, shared_prompts
from alignment_core.evaluation.metrics import SHARES
from alignment_core.evaluation.tables import Table
from alignment_core.records import KINDS, Kind
from alignment_core.stats.equivalence import EquivalenceResult, NoninferiorityResult, equivalence, noninferiority
from alignment_core.stats.intervals import Interval, mean_interval, over_seeds, rate
from alignment_core.stats.layout import TooFewValues, is_binary
from alignment_core.stats.paired import one_run, over_runs
from alignment_core.stats.result import PairedResult

WIDTH_ZERO = "width zero: supports nothing"
_HIGHER_IS_BETTER = {metric.key: metric.better == "high" for metric in SHARES if metric.better is not None}


@dataclass(frozen=True)
class Compared:
    """The comparison b - a, each side's own level with its interval, and sentences that say what was done."""

    metric: str
    kind: Kind | None
    a: str
    b: str
    result: PairedResult
    level_a: Interval
    level_b: Interval
    pairing: Pairing
    notes: tuple[str, ...]
    equivalence: EquivalenceResult | None = None
    noninferiority: NoninferiorityResult | None = None
    higher_is_better: bool = True


def compare_kinds(
    a: Side, b: Side, name: Callable[[Kind | None], str], how: Options = DEFAULTS
) -> dict[str, Compared | str]:
    """The comparison of each kind of prompt by the metric's name on it, or why there is none.

    A prompt's kind is what either side says of it; without any kind there is one comparison, under `name(None)`.
    Raises `ValueError` in one line."""
    shared, notes = shared_prompts(a, b, how.prompts)
    out: dict[str, Compared | str] = {}
    for kind, prompts in _by_kind(a, b, shared).items():
        try:
            found = compare(a.only(prompts), b.only(prompts), name(kind), kind, how)
            out[name(kind)] = replace(found, notes=(*notes, *found.notes))
        except TooFewValues as error:
            out[name(kind)] = str(error)
    return out


def compare(a: Side, b: Side, metric: str = "", kind: Kind | None = None, how: Options = DEFAULTS) -> Compared:
    """Compare two sides as they stand; the difference is b - a. Raises `ValueError` in one line."""
    aligned = align(a, b, how, metric)
    x, y, clusters = aligned.a.values, aligned.b.values, aligned.a.clusters
    for side in (aligned.a, aligned.b):
        if side.empty:
            raise TooFewValues(f"every value of {side.subject} is missing: nothing to compare")
    if aligned.pairing == "one run":
        result = one_run(x, y, clusters, how.level, how.value_range)
    else:
        paired: Literal["paired", "unpaired"] = "unpaired" if aligned.pairing == "unpaired seeds" else "paired"
        result = over_runs(x, y, clusters, how.level, seeds=paired, value_range=how.value_range)
    up = _HIGHER_IS_BETTER.get(metric, how.higher_is_better)
    same, no_worse = (None, None) if how.margin is None else _margin_tests(result, how.margin, up)
    level_a, level_b = (side_level(side, how.level) for side in (aligned.a, aligned.b))
    return Compared(
        metric, kind, a.name, b.name, result, level_a, level_b, aligned.pairing, aligned.notes, same, no_worse, up
    )


def _margin_tests(
    result: PairedResult, margin: float, higher_is_better: bool
) -> tuple[EquivalenceResult, NoninferiorityResult]:
    same = equivalence(result, margin)
    no_worse = noninferiority(result, margin, higher_is_better=higher_is_better)
    if result.width > 0:
        return same, no_worse
    return replace(same, equivalent=False, because=WIDTH_ZERO), replace(no_worse, noninferior=False)


def side_level(side: Table, level: float = 0.95) -> Interval:
    """One side's rate or mean with its interval: Wilson or t for one run, crossed over seeds."""
    if side.several:
        return over_seeds(side.values, side.clusters, level)
    of = rate if is_binary(side.values) else mean_interval
    return of(side.values, side.clusters, level)


def _by_kind(a: Side, b: Side, shared: Sequence[str]) -> dict[Kind | None, set[str]]:
    """The shared prompts of each kind, in the kinds' order."""
    known: dict[str, Kind] = {}
    for side in (a, b):
        for prompt, kind in zip(side.prompt_id, side.kind or [], strict=side.kind is not None):
            if kind is not None and known.setdefault(prompt, kind) != kind:
                raise ValueError(f"{side.name}: prompt {prompt!r} is {kind}, elsewhere {known[prompt]}")
    if not known:
        return {None: set(shared)}
    if without := [prompt for prompt in shared if prompt not in known]:
        raise ValueError(f"{len(without)} prompts have no kind, for example {without[0]!r}; pass --kind")
    return {kind: found for kind in KINDS if (found := {p for p in shared if known[p] == kind})}
