"""Values of one metric of one subject, as an array over prompts and training seeds: the unit of every statistic.

`table` reads it off states; a study's own science may make one directly (a refusal curve read at a matched loss). A
level is one side's figure with its interval, a difference the paired comparison of two tables over the same prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from alignment_core.stats import intervals
from alignment_core.stats.intervals import Interval
from alignment_core.stats.layout import Floats, TooFewValues, is_binary
from alignment_core.stats.paired import PairedResult, one_run, over_runs

if TYPE_CHECKING:
    from alignment_core.evaluation.files import Place
    from alignment_core.evaluation.metrics import Metric
    from alignment_core.evaluation.state import State

Seeds = tuple[int | None, ...]


@dataclass(frozen=True)
class Table:
    """Values [units, seeds] of a metric of a subject; NaN is missing. Units are prompts, or rows whose loss is read."""

    metric: str
    subject: str
    units: tuple[str, ...]
    clusters: tuple[str, ...]
    seeds: Seeds
    """`(None,)` for a subject that is the same for every training seed."""
    values: Floats
    at: Mapping[str, Place] = field(default_factory=dict)
    span: tuple[float, float] | None = None
    """Smallest and largest possible value."""
    completions: tuple[str | None, ...] = ()
    """Of each seed the path of the completions behind it, relative to the run folder."""

    def __post_init__(self) -> None:
        shape = (len(self.units), len(self.seeds))
        if self.values.shape != shape or len(self.clusters) != shape[0]:
            raise ValueError(f"{self.metric} of {self.subject}: values {self.values.shape}, units and seeds {shape}")

    @property
    def several(self) -> bool:
        """Whether there is more than one training seed."""
        return len(self.seeds) > 1

    @property
    def empty(self) -> bool:
        """Whether it holds no value at all."""
        return not self.units or bool(np.isnan(self.values).all())

    def one_seed(self, seed: int | None) -> Table | None:
        """The column of a seed, or of the seed that stands for all; None where there is neither."""
        place = next((i for i, s in enumerate(self.seeds) if s in (None, seed)), None)
        if place is None:
            return None
        files = (self.completions[place],) if self.completions else ()
        return replace(self, seeds=(self.seeds[place],), values=self.values[:, [place]], completions=files)

    def level(self) -> Interval:
        """Its rate or mean with a 95% interval: Wilson or t for one seed, crossed over prompts and seeds otherwise."""
        if self.several:
            try:
                return intervals.over_seeds(self.values, self.clusters)
            except TooFewValues:
                missing = int(np.isnan(self.values).sum())
                return Interval(math.nan, math.nan, math.nan, 0, "crossed, too few values", missing)
        shares = self.span in (None, (0.0, 1.0)) and is_binary(self.values)
        of = intervals.rate if shares else intervals.mean_interval
        return of(self.values, self.clusters)


def table(metric: Metric, states: Sequence[State]) -> Table | None:
    """A metric of one subject over its training seeds, prompts in the order of the first state.

    A prompt that the metric does not apply to in some seed is left out; None where it applies nowhere."""
    columns = [metric.values(state) for state in states]
    shared = [unit for unit in columns[0] if all(unit in column for column in columns[1:])]
    if not shared:
        return None
    first, at = states[0], states[0].at
    rows = first.losses.get(metric.rows, {})
    clusters = tuple(rows[u][1] if metric.rows else first.clusters[u] for u in shared)
    values = np.array([[column[u] for column in columns] for u in shared], dtype=np.float64)
    files = tuple(state.completions for state in states)
    seeds = tuple(state.seed for state in states)
    return Table(metric.key, first.subject, tuple(shared), clusters, seeds, values, at, metric.span, files)


def difference(a: Table, b: Table) -> PairedResult | str:
    """b - a over the same prompts, or why there is none, in words.

    One seed on each side: these checkpoints. Several: over runs, with a side of one seed held fixed against every seed
    of the other, seeds paired where both sides have the same ones. Prompts that one side lacks are left out."""
    x, y = same_prompts(a, b)
    if not x.units:
        return "Nothing to compare: the two sides share no prompt."
    if x.several and y.several and x.seeds != y.seeds:
        return f"Nothing to compare: {a.subject} has the seeds {a.seeds}, {b.subject} {b.seeds}."
    try:
        if x.several or y.several:
            return over_runs(x.values, y.values, x.clusters, value_range=a.span)
        return one_run(x.values, y.values, x.clusters, value_range=a.span)
    except TooFewValues as error:
        return f"Nothing to compare: {error}."


def same_prompts(a: Table, b: Table) -> tuple[Table, Table]:
    """Both tables on the prompts that both have, in a's order."""
    if a.units == b.units:
        return a, b
    there = set(b.units)
    shared = [u for u in a.units if u in there]
    return _only(a, shared), _only(b, shared)


def _only(one: Table, units: Sequence[str]) -> Table:
    place = {unit: i for i, unit in enumerate(one.units)}
    kept = [place[u] for u in units]
    clusters = tuple(one.clusters[i] for i in kept)
    return replace(one, units=tuple(units), clusters=clusters, values=one.values[kept])
