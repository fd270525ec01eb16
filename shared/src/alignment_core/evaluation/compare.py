"""From two lists of judged rows to the right paired comparison: the engine behind `alignment-core compare`.

Rows are matched by prompt, and by seed where both sides have several. The choice of method follows from what the rows
hold (one run, paired seeds, one side held fixed, unpaired seeds) and is said in words; what cannot be matched
honestly is a `ValueError` in one line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alignment_core.stats.equivalence import EquivalenceResult, NoninferiorityResult, equivalence, noninferiority
from alignment_core.stats.intervals import Interval, mean_interval, over_seeds, rate
from alignment_core.stats.layout import Floats, as_matrix, is_binary
from alignment_core.stats.paired import one_run, over_runs
from alignment_core.stats.result import PairedResult


@dataclass(frozen=True)
class Side:
    """Judged rows of one model state: equally long columns.

    `value` is True/False, 0/1, a score, or None/NaN where the judge gave nothing. `seed` None (all, or each) means a
    model without a training seed. `cluster` None or "" means that the prompt stands alone."""

    name: str
    prompt_id: Sequence[str]
    value: Sequence[Any]
    seed: Sequence[Any] | None = None
    cluster: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        n = len(self.prompt_id)
        for what, column in (("value", self.value), ("seed", self.seed), ("cluster", self.cluster)):
            if column is not None and len(column) != n:
                raise ValueError(f"{self.name}: {n} prompt ids but {len(column)} of {what}")
        if n == 0:
            raise ValueError(f"{self.name}: no rows")


Pairing = Literal["one run", "paired seeds", "a held fixed", "b held fixed", "unpaired seeds"]


@dataclass(frozen=True)
class Aligned:
    """Two matrices [P, S] over the same prompts, in sorted prompt order, and how their seeds were matched."""

    a: Floats
    b: Floats
    prompts: tuple[str, ...]
    clusters: tuple[str, ...]
    seeds_a: tuple[Any, ...]
    seeds_b: tuple[Any, ...]
    pairing: Pairing
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """The comparison b - a, each side's own level with its interval, and sentences that say what was done."""

    a: str
    b: str
    result: PairedResult
    level_a: Interval
    level_b: Interval
    pairing: Pairing
    notes: tuple[str, ...]
    aligned: Aligned
    equivalence: EquivalenceResult | None = None
    noninferiority: NoninferiorityResult | None = None


def compare(
    a: Side,
    b: Side,
    *,
    margin: float | None = None,
    level: float = 0.95,
    prompts: Literal["same", "shared"] = "same",
    seeds: Literal["auto", "shared", "unpaired"] = "auto",
    repeats: Literal["refuse", "average"] = "refuse",
    value_range: tuple[float, float] | None = None,
    higher_is_better: bool = True,
) -> Compared:
    """Compare two sides; the difference is b - a.

    `prompts`: "same" refuses sides with different prompts, "shared" compares what both have and says so. `seeds`: see
    `align`. `repeats`: several rows of one prompt and seed are refused or averaged. With a `margin`, equivalence and
    non-inferiority of b are added. Raises `ValueError` in one line."""
    aligned = align(a, b, prompts=prompts, seeds=seeds, repeats=repeats)
    if aligned.pairing == "one run":
        result = one_run(aligned.a, aligned.b, aligned.clusters, level, value_range)
    else:
        how: Literal["paired", "unpaired"] = "unpaired" if aligned.pairing == "unpaired seeds" else "paired"
        result = over_runs(aligned.a, aligned.b, aligned.clusters, level, seeds=how, value_range=value_range)
    return Compared(
        a=a.name,
        b=b.name,
        result=result,
        level_a=side_level(aligned.a, aligned.clusters, level),
        level_b=side_level(aligned.b, aligned.clusters, level),
        pairing=aligned.pairing,
        notes=aligned.notes,
        aligned=aligned,
        equivalence=None if margin is None else equivalence(result, margin),
        noninferiority=None if margin is None else noninferiority(result, margin, higher_is_better=higher_is_better),
    )


def side_level(values: Floats, clusters: Sequence[Any], level: float = 0.95) -> Interval:
    """One side's rate or mean with its interval: Wilson or t for one run, crossed over seeds."""
    x = as_matrix(values)
    if x.shape[1] > 1:
        return over_seeds(x, clusters, level)
    return rate(x, clusters, level) if is_binary(x) else mean_interval(x, clusters, level)


def align(
    a: Side,
    b: Side,
    *,
    prompts: Literal["same", "shared"] = "same",
    seeds: Literal["auto", "shared", "unpaired"] = "auto",
    repeats: Literal["refuse", "average"] = "refuse",
) -> Aligned:
    """Match two sides by prompt and seed.

    One label (or none) on each side: one run. One on one side only: that side is held fixed against every seed of the
    other. The same several labels: paired. No label in common: unpaired, with a note. Some in common: refused unless
    `seeds` is "shared" (only those) or "unpaired" (each side by itself)."""
    cells_a, cells_b = _cells(a, repeats), _cells(b, repeats)
    names, notes = _shared_prompts(a, b, cells_a, cells_b, prompts)
    seeds_a, seeds_b, pairing, said = _match_seeds(a, b, seeds)
    left, absent_a = _matrix(cells_a, names, seeds_a)
    right, absent_b = _matrix(cells_b, names, seeds_b)
    notes += said
    for side, absent in ((a, absent_a), (b, absent_b)):
        if absent:
            notes.append(f"{side.name}: {absent} of its prompt and seed cells have no row; they count as missing")
    clusters = _clusters(a, b, names)
    return Aligned(left, right, tuple(names), clusters, seeds_a, seeds_b, pairing, tuple(notes))


def _number(value: Any, where: str) -> float:
    if value is None:
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: the value must be true, false, a number or null, found {value!r}") from None
    if math.isinf(number):
        raise ValueError(f"{where}: the value is infinite")
    return number


def _cells(side: Side, repeats: str) -> dict[tuple[str, Any], float]:
    """Value by (prompt, seed); the average of the values that are not missing where rows repeat."""
    found: dict[tuple[str, Any], list[float]] = {}
    labels: Sequence[Any] = side.seed if side.seed is not None else [None] * len(side.prompt_id)
    for prompt, seed, value in zip(side.prompt_id, labels, side.value, strict=True):
        found.setdefault((prompt, seed), []).append(_number(value, f"{side.name}, prompt {prompt!r}"))
    if repeats == "refuse":
        for (prompt, seed), values in found.items():
            if len(values) > 1:
                at = "" if seed is None else f" and seed {seed}"
                raise ValueError(
                    f"{side.name}: {len(values)} rows for prompt {prompt!r}{at}; keep one of each "
                    "(is a subject, judge or candidate mixed in?) or average them"
                )
    known = {cell: [v for v in values if not math.isnan(v)] for cell, values in found.items()}
    return {cell: sum(values) / len(values) if values else math.nan for cell, values in known.items()}


def _shared_prompts(a: Side, b: Side, cells_a: Any, cells_b: Any, prompts: str) -> tuple[list[str], list[str]]:
    in_a, in_b = {p for p, _ in cells_a}, {p for p, _ in cells_b}
    shared, only_a, only_b = sorted(in_a & in_b), sorted(in_a - in_b), sorted(in_b - in_a)
    counts = f"{len(shared)} prompts in both, {len(only_a)} only in {a.name}, {len(only_b)} only in {b.name}"
    if not shared:
        raise ValueError(f"no prompt is in both: {counts} ({only_a[0]!r} against {only_b[0]!r}); check the id field")
    if (only_a or only_b) and prompts == "same":
        example = (only_a or only_b)[0]
        raise ValueError(
            f"the two sides were asked different prompts: {counts}, for example {example!r}; compare the shared"
        )
    return shared, [f"only shared prompts compared: {counts}"] if only_a or only_b else []


def _labels(side: Side) -> tuple[Any, ...]:
    found = set(side.seed) if side.seed is not None else {None}
    if None in found and len(found) > 1:
        raise ValueError(f"{side.name}: some rows have a seed and some have none")
    return tuple(sorted(found, key=lambda s: (isinstance(s, str), s)) if None not in found else [None])


def _listed(labels: tuple[Any, ...]) -> str:
    shown = ", ".join(str(s) for s in labels[:8])
    return shown + (", …" if len(labels) > 8 else "")


def _match_seeds(a: Side, b: Side, seeds: str) -> tuple[tuple[Any, ...], tuple[Any, ...], Pairing, list[str]]:
    left, right = _labels(a), _labels(b)
    if len(left) == 1 and len(right) == 1:
        return left, right, "one run", ["one run on each side: this speaks of these checkpoints, not of the recipes"]
    for one, many, side, pairing in ((left, right, a, "a held fixed"), (right, left, b, "b held fixed")):
        if len(one) == 1:
            what = "has no seeds" if one[0] is None else f"has one seed ({one[0]})"
            note = f"{side.name} {what}: held fixed against the {len(many)} seeds of the other side"
            if one[0] is not None:
                note += "; its own spread over seeds is not in the interval"
            return left, right, ("a held fixed" if pairing == "a held fixed" else "b held fixed"), [note]
    shared = tuple(s for s in left if s in right)
    if seeds == "unpaired" or not shared:
        note = f"seeds not paired ({_listed(left)} against {_listed(right)}): each side's own spread is counted"
        return left, right, "unpaired seeds", [note]
    if left == right:
        return left, right, "paired seeds", [f"paired by {len(left)} seeds ({_listed(left)})"]
    if seeds == "shared" and len(shared) > 1:
        return shared, shared, "paired seeds", [f"paired by the {len(shared)} shared seeds ({_listed(shared)})"]
    raise ValueError(
        f"{a.name} has seeds {_listed(left)}, {b.name} has {_listed(right)}, {len(shared)} in common: "
        "compare the shared seeds (two at least), or treat them as unpaired"
    )


def _matrix(cells: dict[tuple[str, Any], float], names: list[str], seeds: tuple[Any, ...]) -> tuple[Floats, int]:
    keys = [[(name, seed) for seed in seeds] for name in names]
    matrix = np.array([[cells.get(key, math.nan) for key in row] for row in keys], dtype=np.float64)
    return matrix, sum(key not in cells for row in keys for key in row)


def _clusters(a: Side, b: Side, names: list[str]) -> tuple[str, ...]:
    """Each prompt's cluster; a prompt without one stands alone. Two different clusters for one prompt are refused."""
    known: dict[str, str] = {}
    for side in (a, b):
        for prompt, cluster in zip(side.prompt_id, side.cluster or [], strict=side.cluster is not None):
            if cluster is None or cluster == "":
                continue
            if known.setdefault(prompt, str(cluster)) != str(cluster):
                raise ValueError(
                    f"{side.name}: prompt {prompt!r} is in cluster {cluster!r}, elsewhere in {known[prompt]!r}"
                )
    return tuple(f"cluster {known[name]}" if name in known else f"prompt {name}" for name in names)
