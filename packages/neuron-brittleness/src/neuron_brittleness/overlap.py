"""Overlap of two sets of weights, against what sets of their kind share by chance and by one model's own noise.

Two scorings of one matrix share |W|, so an independent-sets null always rejects. The null here permutes labels within
matrix x |W| decile x Wanda decile. In a cell of N weights of which a are in the first set and b in the second, the
overlap of a random permutation is hypergeometric(N, a, b), independent from cell to cell: the draws are of the
permutation distribution itself, without permuting. The ceiling that shares no noise: the overlap of a tuned model's
set (scored on half 2) with the base's (half 1) stands against that of the base's two halves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alignment_core.stats.rules import normalised_overlap, random_p
from neuron_brittleness.matching import DECILES

if TYPE_CHECKING:
    from neuron_brittleness.groups import Group, Mask

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cells:
    """How often each cell of one matrix occurs: all weights, the first set's, the second's, both sets'."""

    size: NDArray[np.int64]
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    both: int


def tally(a: Mask, b: Mask, cells: NDArray[np.int16]) -> Cells:
    """Counts of one matrix."""
    n = DECILES * DECILES
    x, y = a.reshape(-1), b.reshape(-1)
    return Cells(
        np.bincount(cells, minlength=n),
        np.bincount(cells[x], minlength=n),
        np.bincount(cells[y], minlength=n),
        int((x & y).sum()),
    )


def null(cells: Cells, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Overlaps [draws] of the two sets under random permutation within cells."""
    used = (cells.a > 0) & (cells.b > 0)
    a, b, size = cells.a[used], cells.b[used], cells.size[used]
    found = rng.hypergeometric(a, size - a, b, size=(draws, len(a)))
    return np.asarray(found.sum(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class Overlap:
    """Overlap of two sets over some matrices."""

    a: int
    b: int
    both: int
    jaccard: float
    """NaN where both sets are empty."""
    share: float
    """both / a, the original's overlap."""
    null_mean: float
    null_low: float
    null_high: float
    p: float
    """Of an overlap at least this large under the null."""


def jaccard(both: int, a: int, b: int) -> float:
    """|A and B| / |A or B|, NaN for two empty sets."""
    return both / (a + b - both) if a + b - both else math.nan


def overlap(tallies: Mapping[str, Cells], draws: int, seed: int) -> Overlap:
    """Overlap over all the given matrices, with its null; `draws` of at least 100."""
    rng = np.random.default_rng([seed, len(tallies)])
    a, b, both = (sum(int(np.sum(getattr(c, part))) for c in tallies.values()) for part in ("a", "b", "both"))
    if a + b - both == 0:
        return Overlap(a, b, both, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)
    shared = np.sum([null(c, draws, rng) for c in tallies.values()], axis=0)
    drawn: Floats = shared / (a + b - shared)
    found = jaccard(both, a, b)
    low, high = np.quantile(drawn, (0.025, 0.975))
    share = both / a if a else math.nan
    return Overlap(a, b, both, found, share, float(drawn.mean()), float(low), float(high), random_p(found, drawn))


def layers(tallies: Mapping[str, Cells], layer: Mapping[str, int], draws: int, seed: int) -> dict[int, Overlap]:
    """The overlap of each layer's matrices."""
    out = {}
    for number in sorted(set(layer.values())):
        out[number] = overlap({m: c for m, c in tallies.items() if layer[m] == number}, draws, seed + number)
    return out


def tallies(a: Group, b: Group, cells: Mapping[str, NDArray[np.int16]]) -> dict[str, Cells]:
    """Counts of every matrix of two groups."""
    return {name: tally(a.mask(name), b.mask(name), cells[name]) for name in a.bits}


def against(found: Overlap, ceiling: Overlap) -> float:
    """(J - J0) / (Jc - J0) with the null of the tuned comparison: 0 at the null, 1 at the ceiling."""
    return normalised_overlap(found.jaccard, found.null_mean, ceiling.jaccard)
