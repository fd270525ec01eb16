"""Two model states asked the same prompts: the difference b - a, its interval, its test, and what it speaks about.

One run ("these checkpoints"): exact McNemar test (1947) and Tango's interval when every prompt stands alone, Student's
t on cluster averages otherwise. Several training seeds ("over runs"): the crossed interval over prompts and seeds of
`layout`, with the seed-level t beside it. Equivalence is two one-sided tests (Schuirmann 1987): the 90% interval within
the margin.

Arrays are [P] or [P, S] (prompts, seeds), 0/1, scores or -1/0/1 differences; NaN is missing. One run drops pairs with
a missing side; over runs a cluster without a value in every seed is left out. Both count what they dropped, and
`bounds` says what the missing values could do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from alignment_core.stats.crossed import crossed, crossed_unpaired, whole_clusters
from alignment_core.stats.equivalence import (
    EquivalenceResult,
    NoninferiorityResult,
    equivalence,
    equivalence_n,
    noninferiority,
)
from alignment_core.stats.intervals import tango
from alignment_core.stats.layout import Floats, TooFewValues, as_matrix, cluster_index, cluster_means, is_binary
from alignment_core.stats.missing import difference_bounds
from alignment_core.stats.power import detectable
from alignment_core.stats.result import (
    RUNS,
    THESE,
    PairedResult,
    bounds_fields,
    mcnemar_exact,
    superiority,
    t_fields,
)

__all__ = [
    "EquivalenceResult",
    "NoninferiorityResult",
    "PairedResult",
    "crossed",
    "equivalence",
    "equivalence_n",
    "holm",
    "mcnemar_exact",
    "noninferiority",
    "one_run",
    "over_runs",
]


def one_run(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Any] | None = None,
    level: float = 0.95,
    value_range: tuple[float, float] | None = None,
) -> PairedResult:
    """Compare two checkpoints on the same prompts: a, b [P] of 0/1 or scores, clusters [P] labels or None.

    0/1 values with every prompt its own cluster: exact McNemar and Tango. Otherwise Student's t on the cluster
    averages of the differences; where these do not vary at all, Tango over the clusters stands in for 0/1 values (a t
    interval or a bootstrap would say [0, 0]). Raises `ValueError` with no complete pair, or one cluster only."""
    x, y = as_matrix(a, "a"), as_matrix(b, "b")
    if x.shape != y.shape or x.shape[1] != 1:
        raise ValueError(f"one run compares two arrays of one value per prompt, found {x.shape} and {y.shape}")
    here = ~np.isnan(x[:, 0]) & ~np.isnan(y[:, 0])
    index, _ = cluster_index(clusters, len(x))
    binary, bounds = is_binary(x, y), difference_bounds(x, y, clusters, value_range)
    x, y, index = x[here], y[here], np.unique(index[here], return_inverse=True)[1].astype(np.int64)
    n, groups = len(x), len(np.unique(index))
    if n == 0:
        raise TooFewValues("no prompt has a value on both sides")
    d = y - x
    means = cluster_means(d, index, groups)[:, 0]
    if binary and groups == n:
        core = _mcnemar(means, level)
    else:
        if groups < 2:
            raise TooFewValues("all prompts are in one cluster: nothing is independent of anything")
        core = _student(means, binary, level)
    sides = {
        "mean_a": float(cluster_means(x, index, groups).mean()),
        "mean_b": float(cluster_means(y, index, groups).mean()),
    }
    if binary:
        sides |= {"gained": int((d > 0).sum()), "lost": int((d < 0).sum())}
    return PairedResult(
        **core,
        **sides,  # type: ignore[arg-type]
        difference=float(means.mean()),
        estimand=THESE,
        n_prompts=n,
        n_clusters=groups,
        n_seeds=1,
        effect=None if binary else superiority(d),
        level=level,
        discordant=float((d != 0).mean()),
        missing=int((~here).sum()),
        **bounds_fields(bounds),
    )


def _mcnemar(d: Floats, level: float) -> dict[str, Any]:
    n, b, c = len(d), int((d > 0).sum()), int((d < 0).sum())
    (low, high), (low90, high90) = tango(b, c, n, level), tango(b, c, n, 0.90)
    return {
        "low": low,
        "high": high,
        "low90": low90,
        "high90": high90,
        "p": mcnemar_exact(b, c),
        "method": "mcnemar, tango",
        "df": None,
        "se": math.sqrt(max(0.0, (b + c) / n - ((b - c) / n) ** 2) / n),
        "detectable": detectable(n, (b + c) / n),
    }


def _student(means: Floats, binary: bool, level: float) -> dict[str, Any]:
    g, value = len(means), float(means.mean())
    spread = float(means.std(ddof=1))
    # Averages of equal fractions differ by rounding: that is no spread.
    se = spread / math.sqrt(g) if spread > 1e-12 * max(1.0, abs(value)) else 0.0
    return t_fields(value, se, g - 1.0, "t over clusters", level, means if binary else None)


def over_runs(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Any] | None = None,
    level: float = 0.95,
    *,
    seeds: Literal["paired", "unpaired"] = "paired",
    value_range: tuple[float, float] | None = None,
) -> PairedResult:
    """Compare two recipes over training seeds: a [P, Sa], b [P, Sb] of 0/1 or scores.

    `paired`: column j of both is the same seed. A side of one column (a fixed model without seeds) stands against
    every seed of the other, and the estimand names it. `unpaired`: the sides share prompts but not seeds; each side's
    spread over its own seeds enters by itself."""
    x, y = as_matrix(a, "a"), as_matrix(b, "b")
    if len(x) != len(y):
        raise ValueError(f"{len(x)} prompts against {len(y)}")
    fixed = [name for name, side in (("a", x), ("b", y)) if side.shape[1] == 1]
    if len(fixed) == 2:
        raise ValueError("one seed on each side says nothing about other seeds: use one_run()")
    bounds, binary = difference_bounds(x, y, clusters, value_range), is_binary(x, y)
    if seeds == "unpaired" and not fixed:
        result, kept = crossed_unpaired(x, y, clusters, binary, level)
    else:
        if not fixed and x.shape != y.shape:
            raise ValueError(f"paired seeds need as many on both sides, found {x.shape[1]} and {y.shape[1]}")
        result = crossed(y - x, clusters, level, binary)
        kept = whole_clusters(y - x, clusters)[1]
    estimand = RUNS if not fixed else f"{RUNS} of {'b' if fixed[0] == 'a' else 'a'}, {fixed[0]} held fixed"
    index, count = cluster_index(clusters, len(x))
    if x.shape == y.shape or fixed:
        # The two levels stand on the very cells of the difference, so that they subtract to it.
        both = ~np.isnan(x) & ~np.isnan(y)
        x, y = np.where(both, x, np.nan), np.where(both, y, np.nan)
    levels = [float(cluster_means(side, index, count)[np.unique(index[kept])].mean()) for side in (x, y)]
    fields = bounds_fields(bounds)
    fields["warnings"] = result.warnings + bounds.warnings
    return replace(result, estimand=estimand, mean_a=levels[0], mean_b=levels[1], **fields)


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values: (.01, .04, .03) gives (.03, .06, .06). NaN stays NaN and counts no test."""
    raw = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(raw))
    if ((raw[known] < 0) | (raw[known] > 1)).any():
        raise ValueError("p-values lie in [0, 1]")
    order = known[np.argsort(raw[known], kind="stable")]
    adjusted = np.full(raw.shape, np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(raw[order] * np.arange(len(order), 0, -1)))
    return adjusted
