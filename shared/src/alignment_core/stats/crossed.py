"""Differences over prompts and training seeds: the crossed interval of `layout` as a finished comparison.

The seed-level t interval and the spread of the seeds stand beside it: with few seeds a reader wants to see them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from alignment_core.stats.intervals import mean_interval
from alignment_core.stats.layout import (
    Crossed,
    Floats,
    TooFewValues,
    as_matrix,
    cluster_index,
    cluster_means,
    crossed_variance,
    unpaired_variance,
)
from alignment_core.stats.result import RUNS, PairedResult, superiority, t_fields

TWO_SEEDS = "two seeds are too few: where seeds differ the interval misses up to .12 instead of .05; three at least"


def crossed(
    d: ArrayLike,
    clusters: Sequence[Any] | None = None,
    level: float = 0.95,
    binary: bool | None = None,
) -> PairedResult:
    """The crossed interval of paired differences d [P, S] over prompts and training seeds, S >= 2.

    Use it directly for a difference of differences ((b - a) - (control_b - control_a)). `binary` says that d is made
    of 0/1 values (so it lies in [-1, 1]); by default it is taken from the values -1, 0, 1."""
    x = as_matrix(d, "d")
    if x.shape[1] < 2:
        raise ValueError("one seed says nothing about other seeds: use one_run()")
    binary = bool(np.isin(x[~np.isnan(x)], (-1.0, 0.0, 1.0)).all()) if binary is None else binary
    means, kept = whole_clusters(x, clusters)
    return _over_runs_result(x[kept], means, crossed_variance(means), binary, "crossed", level, int(np.isnan(x).sum()))


def whole_clusters(x: Floats, clusters: Sequence[Any] | None, *others: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Cluster averages of x without the clusters that miss a seed in x or in one of `others`, and the rows kept."""
    index, count = cluster_index(clusters, len(x))
    means = cluster_means(x, index, count)
    whole: NDArray[np.bool_] = np.asarray(~np.isnan(means).any(axis=1))
    for other in others:
        whole &= ~np.isnan(cluster_means(other, index, count)).any(axis=1)
    for column in np.flatnonzero(np.isnan(x).all(axis=0)):
        raise TooFewValues(f"seed number {int(column) + 1} of {x.shape[1]} has no value at all: leave it out")
    if whole.sum() < 2:
        raise TooFewValues(f"only {int(whole.sum())} of {count} clusters have a value in every seed; 2 are needed")
    return means[whole], whole[index]


def _over_runs_result(
    d: Floats, means: Floats, two: Crossed, binary: bool, method: str, level: float, missing: int
) -> PairedResult:
    """`means` are the cluster averages of the differences by seed [G, S]."""
    value, se = float(two.mean), float(two.se)
    core = t_fields(value, se, float(two.df), method, level, means.mean(axis=1) if binary else None)
    by_seed = means.mean(axis=0)
    return PairedResult(
        **core,
        **_seed_level(by_seed, level),
        difference=value,
        estimand=RUNS,
        n_prompts=len(d),
        n_clusters=len(means),
        n_seeds=len(by_seed),
        effect=None if binary else superiority(d),
        level=level,
        discordant=float((d[~np.isnan(d)] != 0).mean()),
        missing=missing,
        warnings=(TWO_SEEDS,) if len(by_seed) == 2 else (),
    )


def _seed_level(by_seed: Floats, level: float) -> dict[str, Any]:
    interval = mean_interval(by_seed, level=level)
    sd = float(by_seed.std(ddof=1))
    se = sd / math.sqrt(len(by_seed))
    # Seeds that agree to the last digit say nothing about how much they could differ: no p.
    p = float(2 * stats.t.sf(abs(interval.value) / se, len(by_seed) - 1)) if se > 1e-12 else None
    return {"seed_level": interval, "seed_p": p, "seed_sd": sd}


def crossed_unpaired(
    x: Floats, y: Floats, clusters: Sequence[Any] | None, binary: bool, level: float
) -> tuple[PairedResult, NDArray[np.bool_]]:
    """b - a of two sides x [P, Sa], y [P, Sb] that share prompts but not seeds, and the prompts kept.

    `n_seeds` is the smaller number of seeds; `seed_p` is Welch's t test of the seeds' means."""
    left, kept = whole_clusters(x, clusters, y)
    right, _ = whole_clusters(y, clusters, x)
    two = unpaired_variance(left, right)
    value, method = float(two.mean), "crossed, seeds unpaired"
    d = right.mean(axis=1) - left.mean(axis=1)
    core = t_fields(value, float(two.se), float(two.df), method, level, d if binary else None)
    welch = stats.ttest_ind(right.mean(axis=0), left.mean(axis=0), equal_var=False) if float(two.se) > 0 else None
    result = PairedResult(
        **core,
        difference=value,
        estimand=RUNS,
        n_prompts=int(kept.sum()),
        n_clusters=len(left),
        n_seeds=min(x.shape[1], y.shape[1]),
        effect=None if binary else superiority(d),
        level=level,
        seed_p=None if welch is None or math.isnan(float(welch.pvalue)) else float(welch.pvalue),
        missing=int(np.isnan(x).sum() + np.isnan(y).sum()),
    )
    return result, kept
