"""Arrays as the other rooms see them: cluster averages and the two-way layout of prompts by seeds.

The two-way layout is the classical one without replication (Searle, Casella and McCulloch, *Variance Components*,
1992, ch. 4): d_ij = mean + prompt_i + seed_j + rest_ij with mean squares MSp, MSs, MSe. The variance of the grand
mean over *both* prompts and seeds is estimated by

    V  = max(MSp + MSs - MSe, MSp, MSs) / (P S)
    df = max((V P S)^2 / (MSp^2/(P-1) + MSs^2/(S-1) + MSe^2/((P-1)(S-1))), S-1)

(Satterthwaite 1946). The same prompts asked of several seeds are not independent observations: pooling them forgets
the seeds' term. Everything here is float64 and works on leading batch axes, so that simulations run the very code
that reports use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class TooFewValues(ValueError):
    """The values at hand allow no such figure: none on both sides, or a single independent cluster."""


def as_matrix(values: ArrayLike, what: str = "values") -> Floats:
    """Booleans or floats of shape [P] or [P, S] as a float64 matrix [P, S]; None and NaN are missing (NaN)."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{what} must be a non-empty array of shape [prompts] or [prompts, seeds], found {x.shape}")
    if np.isinf(x).any():
        raise ValueError(f"{what} holds an infinite value")
    return x


def is_binary(*arrays: Floats) -> bool:
    """Whether every value that is not missing is 0 or 1."""
    return all(bool(np.isin(x[~np.isnan(x)], (0.0, 1.0)).all()) for x in arrays)


def cluster_index(clusters: Sequence[Any] | NDArray[Any] | None, n: int) -> tuple[NDArray[np.int64], int]:
    """For each of n prompts the number of its cluster (first-seen order does not matter) and how many there are.

    None means that every prompt stands alone."""
    if clusters is None:
        return np.arange(n, dtype=np.int64), n
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} cluster labels for {n} prompts")
    names, index = np.unique(np.asarray([str(c) for c in clusters]), return_inverse=True)
    return index.astype(np.int64), len(names)


def cluster_means(x: Floats, index: NDArray[np.int64], count: int) -> Floats:
    """Averages of the rows of x [P, S] within each cluster, [G, S]; missing cells are left out of the average, and a
    cluster with nothing left in a column is missing there."""
    present = ~np.isnan(x)
    total = np.zeros((count, x.shape[1]))
    size = np.zeros((count, x.shape[1]))
    np.add.at(total, index, np.where(present, x, 0.0))
    np.add.at(size, index, present.astype(np.float64))
    return np.where(size > 0, total / np.maximum(size, 1.0), np.nan)


@dataclass(frozen=True)
class Crossed:
    """Grand mean, its standard error and degrees of freedom over both prompts and seeds; arrays over batch axes."""

    mean: Floats
    se: Floats
    df: Floats
    ms_prompts: Floats
    ms_seeds: Floats
    ms_rest: Floats


def mean_squares(d: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """(grand mean, MSp, MSs, MSe) of d [..., P, S] without missing values, P >= 2 and S >= 2."""
    p, s = d.shape[-2:]
    grand = d.mean(axis=(-2, -1))
    rows = d.mean(axis=-1) - grand[..., None]
    columns = d.mean(axis=-2) - grand[..., None]
    rest = d - grand[..., None, None] - rows[..., :, None] - columns[..., None, :]
    return (
        grand,
        s * np.square(rows).sum(axis=-1) / (p - 1),
        p * np.square(columns).sum(axis=-1) / (s - 1),
        np.square(rest).sum(axis=(-2, -1)) / ((p - 1) * (s - 1)),
    )


def crossed_variance(d: Floats) -> Crossed:
    """The crossed standard error and df of the mean of d [..., P, S]; df is NaN where nothing varies."""
    p, s = d.shape[-2:]
    if p < 2 or s < 2:
        raise ValueError(f"the crossed interval needs at least 2 clusters and 2 seeds, found {p} and {s}")
    grand, msp, mss, mse = mean_squares(d)
    # Rounding leaves mean squares of 1e-34 where nothing varies: they are zero, not a tiny standard error.
    floor = 1e-24 * np.maximum(1.0, np.square(d).max(axis=(-2, -1)))
    msp, mss, mse = (np.where(ms < floor, 0.0, ms) for ms in (msp, mss, mse))
    vps = np.maximum(msp + mss - mse, np.maximum(msp, mss))
    below = msp**2 / (p - 1) + mss**2 / (s - 1) + mse**2 / ((p - 1) * (s - 1))
    ratio = np.divide(vps**2, below, out=np.full_like(vps, np.nan), where=below > 0)
    df = np.where(np.isnan(ratio), np.nan, np.maximum(ratio, s - 1.0))
    return Crossed(grand, np.sqrt(vps / (p * s)), df, msp, mss, mse)


def unpaired_variance(a: Floats, b: Floats) -> Crossed:
    """As `crossed_variance` for b minus a where the two sides share prompts but not seeds: a [..., P, Sa],
    b [..., P, Sb].

    The prompts' part comes from the per-prompt differences of the seed averages, the seeds' part from each side by
    itself: V = max(MSd/P + sum (MSs - MSe)/(P S), MSd/P, sum MSs/(P S)), df after Satterthwaite, at least the
    smaller number of seeds less one. `ms_prompts` is MSd/P; `ms_seeds` and `ms_rest` are the sums."""
    p, sa, sb = a.shape[-2], a.shape[-1], b.shape[-1]
    if min(p, sa, sb) < 2:
        raise ValueError("an unpaired comparison over seeds needs at least 2 clusters and 2 seeds on each side")
    d = b.mean(axis=-1) - a.mean(axis=-1)
    prompts = d.var(axis=-1, ddof=1) / p
    seeds, rest, below = np.zeros_like(prompts), np.zeros_like(prompts), prompts**2 / (p - 1)
    for side, s in ((a, sa), (b, sb)):
        _, _, mss, mse = mean_squares(side)
        mss, mse = mss / (p * s), mse / (p * s)
        seeds, rest = seeds + mss, rest + mse
        below = below + mss**2 / (s - 1) + mse**2 / ((p - 1) * (s - 1))
    v = np.maximum(prompts + seeds - rest, np.maximum(prompts, seeds))
    v = np.where(v < 1e-26, 0.0, v)
    ratio = np.divide(v**2, below, out=np.full_like(v, np.nan), where=(below > 0) & (v > 0))
    df = np.where(np.isnan(ratio), np.nan, np.maximum(ratio, min(sa, sb) - 1.0))
    return Crossed(d.mean(axis=-1), np.sqrt(v), df, prompts, seeds, rest)
