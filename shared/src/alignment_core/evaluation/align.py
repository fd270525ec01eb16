"""Two lists of values by prompt and seed, matched: which prompts, which seeds, which cluster each prompt is in.

What cannot be matched honestly is a `ValueError` in one line; what was done is said in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alignment_core.evaluation.tables import Table
from alignment_core.records import Kind


@dataclass(frozen=True)
class Side:
    """Rows of one model: equally long columns.

    `value` is True/False, 0/1, a number, or None/NaN where there is none. `seed` None (all, or each) means a model
    without a training seed, `cluster` None or "" that the prompt stands alone, `kind` None that nothing says it."""

    name: str
    prompt_id: Sequence[str]
    value: Sequence[Any]
    seed: Sequence[Any] | None = None
    cluster: Sequence[Any] | None = None
    kind: Sequence[Kind | None] | None = None

    def __post_init__(self) -> None:
        n = len(self.prompt_id)
        columns = (("value", self.value), ("seed", self.seed), ("cluster", self.cluster), ("kind", self.kind))
        for what, column in columns:
            if column is not None and len(column) != n:
                raise ValueError(f"{self.name}: {n} prompt ids but {len(column)} of {what}")
        if n == 0:
            raise ValueError(f"{self.name}: no rows")

    def only(self, prompts: set[str]) -> Side:
        """The rows on `prompts`."""
        kept = [i for i, prompt in enumerate(self.prompt_id) if prompt in prompts]

        def of(column: Sequence[Any] | None) -> list[Any] | None:
            return None if column is None else [column[i] for i in kept]

        ids, values = [self.prompt_id[i] for i in kept], [self.value[i] for i in kept]
        return Side(self.name, ids, values, of(self.seed), of(self.cluster), of(self.kind))


Pairing = Literal["one run", "paired seeds", "a held fixed", "b held fixed", "unpaired seeds"]


@dataclass(frozen=True)
class Options:
    """How two sides are compared."""

    margin: float | None = None
    """Also test equivalence and non-inferiority of b."""
    level: float = 0.95
    prompts: Literal["same", "shared"] = "same"
    """`same` refuses sides with different prompts, `shared` compares what both have and says so."""
    seeds: Literal["auto", "shared", "unpaired"] = "auto"
    """See `align`."""
    repeats: Literal["refuse", "average"] = "refuse"
    """Several rows of one prompt and seed."""
    value_range: tuple[float, float] | None = None
    higher_is_better: bool = True
    """For non-inferiority, of a metric that does not say it itself."""


DEFAULTS = Options()


@dataclass(frozen=True)
class Aligned:
    """Both sides over the same prompts, in sorted order, and how their seeds were matched."""

    a: Table
    b: Table
    pairing: Pairing
    notes: tuple[str, ...]


def shared_prompts(a: Side, b: Side, prompts: Literal["same", "shared"]) -> tuple[list[str], list[str]]:
    """The prompts that both sides have, sorted, and a note where these are not all."""
    in_a, in_b = set(a.prompt_id), set(b.prompt_id)
    shared, only_a, only_b = sorted(in_a & in_b), sorted(in_a - in_b), sorted(in_b - in_a)
    counts = f"{len(shared)} prompts in both, {len(only_a)} only in {a.name}, {len(only_b)} only in {b.name}"
    if not shared:
        raise ValueError(f"no prompt is in both: {counts} ({only_a[0]!r} against {only_b[0]!r}); check the id field")
    if (only_a or only_b) and prompts == "same":
        example = (only_a or only_b)[0]
        raise ValueError(
            f"the two sides were asked different prompts: {counts}, for example {example!r}; pass --shared-prompts"
        )
    return shared, [f"only shared prompts compared: {counts}"] if only_a or only_b else []


def align(a: Side, b: Side, how: Options = DEFAULTS, metric: str = "") -> Aligned:
    """Match two sides by prompt and seed.

    One label (or none) on each side: one run. One on one side only: that side is held fixed against every seed of the
    other. The same several labels: paired. No label in common: unpaired, with a note. Some in common: refused unless
    `how.seeds` is "shared" (only those) or "unpaired" (each side by itself)."""
    units, notes = shared_prompts(a, b, how.prompts)
    seeds_a, seeds_b, pairing, said = _match_seeds(a, b, how.seeds)
    clusters = _clusters(a, b, units)
    tables = []
    for side, seeds in ((a, seeds_a), (b, seeds_b)):
        values, absent = _matrix(side, units, seeds, how.repeats)
        tables.append(Table(metric, side.name, tuple(units), clusters, seeds, values, span=how.value_range))
        if absent:
            said.append(f"{side.name}: {absent} of its prompt and seed cells have no row; they count as missing")
    return Aligned(tables[0], tables[1], pairing, (*notes, *said))


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


def _matrix(side: Side, units: Sequence[str], seeds: tuple[Any, ...], repeats: str) -> tuple[Any, int]:
    """Values [prompts, seeds], NaN where missing, and how many cells have no row. Of repeated rows the average of the
    values that are not missing."""
    rows, columns = ({key: i for i, key in enumerate(keys)} for keys in (units, seeds))
    total, known, count = (np.zeros((len(units), len(seeds))) for _ in range(3))
    labels: Iterable[Any] = side.seed if side.seed is not None else [None] * len(side.prompt_id)
    for prompt, seed, value in zip(side.prompt_id, labels, side.value, strict=True):
        number = _number(value, f"{side.name}, prompt {prompt!r}")
        if prompt not in rows or seed not in columns:
            continue
        cell = rows[prompt], columns[seed]
        count[cell] += 1
        if not math.isnan(number):
            total[cell] += number
            known[cell] += 1
    if repeats == "refuse" and (count > 1).any():
        i, j = np.argwhere(count > 1)[0]
        at = "" if seeds[j] is None else f" and seed {seeds[j]}"
        raise ValueError(
            f"{side.name}: {int(count[i, j])} rows for prompt {units[i]!r}{at}; keep one of each with --where-a or "
            "--where-b (is a subject, judge or candidate mixed in?), or pass --average"
        )
    values = np.divide(total, known, out=np.full_like(total, math.nan), where=known > 0)
    return values, int((count == 0).sum())


def _labels(side: Side) -> tuple[Any, ...]:
    found = set(side.seed) if side.seed is not None else {None}
    if None in found and len(found) > 1:
        raise ValueError(
            f"{side.name}: some rows have a seed and some have none; choose one model's with --where-a or --where-b "
            "subject=NAME"
        )
    return tuple(sorted(found, key=lambda s: (isinstance(s, str), s)) if None not in found else [None])


def _listed(labels: tuple[Any, ...]) -> str:
    shown = ", ".join(str(s) for s in labels[:8])
    return shown + (", …" if len(labels) > 8 else "")


def _match_seeds(a: Side, b: Side, seeds: str) -> tuple[tuple[Any, ...], tuple[Any, ...], Pairing, list[str]]:
    left, right = _labels(a), _labels(b)
    if len(left) == 1 and len(right) == 1:
        return left, right, "one run", ["one run on each side: inference about these checkpoints, not the recipes"]
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
        "pass --seeds shared (two at least), or --seeds unpaired"
    )


def _clusters(a: Side, b: Side, units: Sequence[str]) -> tuple[str, ...]:
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
    return tuple(f"cluster {known[unit]}" if unit in known else f"prompt {unit}" for unit in units)
