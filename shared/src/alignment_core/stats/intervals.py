"""Intervals for one quantity: a rate, a mean, an agreement, a rate corrected for its detector's error.

Sources: Wilson 1927 (JASA 22); Tango 1998 (Stat Med 17) for the difference of paired proportions; Fleiss, Cohen and
Everitt 1969 (Psychol Bull 72) for kappa's standard error; Rogan and Gladen 1978 (Am J Epidemiol 107); Cochran,
*Sampling Techniques*, 1977, ch. 12 for two-phase (double) sampling. NaN or None is a missing value: it is left out of
the estimate and counted in `missing`; `missing_bounds` says what it could hide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from alignment_core.stats.layout import (
    TooFewValues,
    as_matrix,
    cluster_index,
    cluster_means,
    crossed_variance,
    is_binary,
)


@dataclass(frozen=True)
class Interval:
    """A value with its interval. `n` counts what the value rests on (prompts, units, pairs), `missing` what was left
    out. Undefined figures are NaN."""

    value: float
    low: float
    high: float
    n: int
    method: str
    missing: int = 0
    level: float = 0.95


def quantile(level: float) -> float:
    """Two-sided normal quantile: 1.96 for level .95."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}")
    return float(stats.norm.ppf(0.5 + level / 2))


def _wilson(p: float, n: float, level: float) -> tuple[float, float]:
    """Wilson bounds for a share p of a (possibly effective, fractional) number n."""
    z2 = quantile(level) ** 2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(max(0.0, z2 * (p * (1 - p) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    # At p = 0 and 1 the bounds are 0 and 1; rounding must not say otherwise.
    return (0.0 if p <= 0 else max(0.0, middle - half), 1.0 if p >= 1 else min(1.0, middle + half))


def wilson(k: float, n: int, level: float = 0.95, missing: int = 0) -> Interval:
    """Wilson score interval of k successes in n; n = 0 gives a NaN value and the whole of [0, 1]."""
    if n < 0 or not 0 <= k <= n:
        raise ValueError(f"{k} successes in {n} trials")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0, "wilson", missing, level)
    low, high = _wilson(k / n, n, level)
    return Interval(k / n, low, high, n, "wilson", missing, level)


def wilson_coverage(p: float, n: int, level: float = 0.95) -> float:
    """Exact probability that Wilson's interval covers p at n trials, summed over the binomial."""
    k = np.arange(n + 1)
    bounds = [_wilson(i / n, n, level) for i in k.tolist()]
    covered = np.array([low <= p <= high for low, high in bounds])
    return float(stats.binom.pmf(k[covered], n, p).sum())


def rate(values: ArrayLike, clusters: Sequence[Any] | None = None, level: float = 0.95) -> Interval:
    """Share of ones among 0/1 values [P] of one run. Prompts weigh equally.

    Wilson's interval when every prompt stands alone; with larger clusters Wilson at the effective number
    n / max(1, design effect) (linearised cluster variance; the number of clusters where nothing varies)."""
    x = as_matrix(values)
    if x.shape[1] != 1 or not is_binary(x):
        raise ValueError("rate() takes 0/1 values of one run, shape [prompts]")
    index, _ = cluster_index(clusters, len(x))
    here = ~np.isnan(x[:, 0])
    y, index = x[here, 0], index[here]
    n, missing = len(y), int((~here).sum())
    groups = len(np.unique(index))
    if n == 0 or groups == n:
        return wilson(float(y.sum()), n, level, missing)
    p = float(y.mean())
    effective = float(groups)
    if 0 < p < 1 and groups > 1:
        totals = np.bincount(index, weights=y - p)
        variance = groups / (groups - 1) * float(np.square(totals).sum()) / n**2
        effective = n / max(1.0, variance / (p * (1 - p) / n))
    low, high = _wilson(p, effective, level)
    return Interval(p, low, high, n, "wilson, clustered", missing, level)


def mean_interval(x: ArrayLike, clusters: Sequence[Any] | None = None, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of x [P]; with clusters, of the mean of the cluster averages.

    Fewer than two units: bounds are NaN."""
    d = as_matrix(x)
    if d.shape[1] != 1:
        raise ValueError("mean_interval() takes values of one run, shape [prompts]")
    index, count = cluster_index(clusters, len(d))
    means = cluster_means(d, index, count)[:, 0]
    means = means[~np.isnan(means)]
    missing = int(np.isnan(d).sum())
    if len(means) == 0:
        return Interval(math.nan, math.nan, math.nan, 0, "t", missing, level)
    value = float(means.mean())
    if len(means) < 2:
        return Interval(value, math.nan, math.nan, 1, "t", missing, level)
    half = float(stats.t.ppf(0.5 + level / 2, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means)))
    return Interval(value, value - half, value + half, len(means), "t", missing, level)


def over_seeds(values: ArrayLike, clusters: Sequence[Any] | None = None, level: float = 0.95) -> Interval:
    """Mean of values [P, S] over prompts and training seeds with the crossed interval (see `layout`).

    Clusters are averaged first; one with a missing cell in any seed is left out (`missing` counts cells). Where 0/1
    values never vary, Wilson over the clusters stands in. Bounds of 0/1 values are kept within [0, 1]."""
    x = as_matrix(values)
    index, count = cluster_index(clusters, len(x))
    binary, missing = is_binary(x), int(np.isnan(x).sum())
    means = cluster_means(x, index, count)
    means = means[~np.isnan(means).any(axis=1)]
    if len(means) < 2 or x.shape[1] < 2:
        raise TooFewValues(
            f"a mean over runs needs 2 seeds and 2 clusters with every seed, found {x.shape[1]}, {len(means)}"
        )
    two = crossed_variance(means)
    value, se = float(two.mean), float(two.se)
    if se == 0.0:
        low, high = _wilson(value, len(means), level) if binary else (value, value)
    else:
        half = float(stats.t.ppf(0.5 + level / 2, float(two.df))) * se
        low, high = value - half, value + half
    if binary:
        low, high = max(0.0, low), min(1.0, high)
    return Interval(value, low, high, len(means), "crossed", missing, level)


@dataclass(frozen=True)
class MissingBounds:
    """What the missing verdicts could do to a rate: all against, all for, and the share among complete cases."""

    low: float
    high: float
    complete: float
    missing: int


def missing_bounds(k: float, n_ok: int, n_missing: int) -> MissingBounds:
    """Bounds of the rate of k successes among n_ok judged, n_missing not judged: 60, 90, 10 gives [.60, .70]."""
    if not 0 <= k <= n_ok or n_missing < 0:
        raise ValueError(f"{k} successes among {n_ok} judged and {n_missing} missing")
    n = n_ok + n_missing
    if n == 0:
        return MissingBounds(0.0, 1.0, math.nan, 0)
    return MissingBounds(k / n, (k + n_missing) / n, k / n_ok if n_ok else math.nan, n_missing)


def tango_score(b: float, c: float, n: float, delta: float) -> float:
    """Tango's score statistic of (b - c)/n against a true difference delta, standard normal under it; it falls in
    delta. The nuisance share is its maximum likelihood estimate given delta."""
    linear = (2 * n - b + c) * delta - b - c
    root = math.sqrt(max(0.0, linear * linear + 8 * n * c * delta * (1 - delta)))
    lost = max(0.0, (root - linear) / (4 * n))
    variance = n * (2 * lost + delta * (1 - delta))
    over = b - c - n * delta
    if variance <= 1e-300:
        return math.copysign(math.inf, over) if abs(over) > 1e-12 * n else 0.0
    return over / math.sqrt(variance)


def tango(b: float, c: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Tango's score interval for the difference (b - c)/n of two paired shares.

    b pairs are 1 only on the second side, c only on the first, n pairs in all. Defined where nothing is discordant:
    b = c = 0, n = 100 gives -.0370 to .0370. Counts may be fractional (cluster averages)."""
    if n <= 0 or b < 0 or c < 0 or b + c > n * (1 + 1e-12):
        raise ValueError(f"{b} and {c} discordant among {n} pairs")
    z = quantile(level)

    def minus(target: float) -> float:
        def gap(delta: float) -> float:
            # Clipped so that the root finder's ends are finite at delta = -1 and 1.
            return float(np.clip(tango_score(b, c, n, delta), -1e6, 1e6)) - target

        if gap(-1.0) <= 0:
            return -1.0
        if gap(1.0) >= 0:
            return 1.0
        return float(optimize.brentq(gap, -1.0, 1.0, xtol=1e-12, rtol=1e-14))

    return minus(z), minus(-z)


def kappa(a: Sequence[Any] | NDArray[Any], b: Sequence[Any] | NDArray[Any], level: float = 0.95) -> Interval:
    """Cohen's kappa of two judges' labels of the same items, with Fleiss, Cohen and Everitt's standard error.

    Items where either label is None or NaN are left out. Where both judges always give one and the same label, kappa
    is undefined: NaN, and `method` says so. Where the standard error is 0 (perfect agreement) the lower bound comes
    from Wilson's bound of the observed agreement."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} labels against {len(b)}")
    pairs = [(str(x), str(y)) for x, y in zip(a, b, strict=True) if not (_absent(x) or _absent(y))]
    n, missing = len(pairs), len(a) - len(pairs)
    names = sorted({label for pair in pairs for label in pair})
    if len(names) < 2:
        why = "kappa undefined: one label only" if n else "kappa undefined: no items"
        return Interval(math.nan, math.nan, math.nan, n, why, missing, level)
    place = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    for x, y in pairs:
        table[place[x], place[y]] += 1.0 / n
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    agree, chance = float(np.trace(table)), float(rows @ columns)
    value = (agree - chance) / (1 - chance)
    own = float((np.diag(table) * (1 - (rows + columns) * (1 - value)) ** 2).sum())
    weights = (columns[:, None] + rows[None, :]) ** 2
    np.fill_diagonal(weights, 0.0)
    other = (1 - value) ** 2 * float((table * weights).sum())
    variance = (own + other - (value - chance * (1 - value)) ** 2) / (n * (1 - chance) ** 2)
    half = quantile(level) * math.sqrt(max(0.0, variance))
    low, high = value - half, value + half
    if half < 1e-7:
        below, above = _wilson(agree, n, level)
        low, high = (below - chance) / (1 - chance), (above - chance) / (1 - chance)
    return Interval(value, max(-1.0, low), min(1.0, high), n, "cohen's kappa", missing, level)


def _absent(label: Any) -> bool:
    return label is None or (isinstance(label, float) and math.isnan(label))


def rogan_gladen(p: float, sensitivity: float, specificity: float) -> float:
    """True rate behind an apparent rate p, for a detector whose error was measured *elsewhere*; kept within [0, 1].

    (.30, .9, .95) gives .2941. Style changes with fine-tuning and the error with it: prefer `two_phase` on this run."""
    if sensitivity + specificity <= 1:
        raise ValueError(f"sensitivity {sensitivity} and specificity {specificity}: no better than chance")
    return min(1.0, max(0.0, (p + specificity - 1) / (sensitivity + specificity - 1)))


def two_phase(strata: Sequence[Any], truth: ArrayLike, level: float = 0.95) -> Interval:
    """Corrected mean of a run from hand labels on a sample stratified by the detector's verdict.

    strata [N]: each completion's (or pair's) stratum, for example its verdict, or the pair of verdicts of two states.
    truth [N]: the hand label as 0/1 (or, for a paired difference, -1/0/1), NaN where nobody labelled. Estimate
    sum_h W_h mean_h, for two verdicts w PPV + (1-w)(1-NPV); variance of both phases,
    s^2/N + sum_h W_h^2 (1 - n_h/N_h) s_h^2/n_h. A stratum without one label is an error: nothing is known of it."""
    y = as_matrix(truth)[:, 0]
    index, count = cluster_index(strata, len(y))
    total = np.bincount(index, minlength=count).astype(float)
    names = np.unique(np.asarray([str(s) for s in strata]))
    mean, spread, n = np.zeros(count), np.zeros(count), np.zeros(count)
    for h in range(count):
        labelled = y[(index == h) & ~np.isnan(y)]
        if len(labelled) == 0:
            raise ValueError(f"stratum {str(names[h])!r} has {int(total[h])} completions and no label")
        n[h], mean[h] = len(labelled), labelled.mean()
        # Ten labels that agree do not prove that the stratum has no exception.
        exception = 0.5 / (len(labelled) + 1)
        sample = float(labelled.var(ddof=1)) if len(labelled) > 1 else 0.0
        spread[h] = max(sample, exception * (1 - exception))
    return _two_phase(total, n, mean, spread, is_binary(y[:, None]), level)


def two_phase_counts(total: ArrayLike, labelled: ArrayLike, positive: ArrayLike, level: float = 0.95) -> Interval:
    """`two_phase` from counts per stratum: completions, of these labelled, of these truly positive."""
    size, n, k = (np.asarray(x, dtype=float) for x in (total, labelled, positive))
    if not (size.shape == n.shape == k.shape) or (k > n).any() or (n > size).any():
        raise ValueError("per stratum: positive <= labelled <= total, and as many of each")
    strata = np.repeat(np.arange(len(size)), size.astype(int))
    truth = [[1.0] * int(p) + [0.0] * int(m - p) + [math.nan] * int(t - m) for t, m, p in zip(size, n, k, strict=True)]
    return two_phase(strata.tolist(), np.array([v for part in truth for v in part]), level)


def _two_phase(total: Any, n: Any, mean: Any, spread: Any, binary: bool, level: float) -> Interval:
    big = float(total.sum())
    share = total / big
    value = float(share @ mean)
    first = (float(share @ spread) + float(share @ np.square(mean - value))) / big
    second = float((share**2 * (1 - n / total) * spread / n).sum())
    variance = first + second
    labelled = int(n.sum())
    if binary and 0 < value < 1:
        low, high = _wilson(value, value * (1 - value) / variance, level)
    else:
        half = quantile(level) * math.sqrt(variance)
        low, high = value - half, value + half
        if binary:
            low, high = max(0.0, low), min(1.0, high)
    return Interval(value, low, high, labelled, "two-phase", int(big) - labelled, level)
