"""Equivalence and non-inferiority from a finished comparison.

Two one-sided tests (Schuirmann 1987): the 90% interval within the margin is TOST at .05.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike
from scipy import stats

from alignment_core.stats.crossed import crossed
from alignment_core.stats.intervals import quantile, tango_score
from alignment_core.stats.result import PairedResult


@dataclass(frozen=True)
class EquivalenceResult:
    """Whether two states are equivalent within the margin: the 90% interval inside it (TOST at .05).

    `can_decide` is False where this n could not show equivalence (80% power) even if the truth were exactly 0;
    `needed_n` is the number of clusters that could, None where no number of prompts can (the seeds' spread). `p` is
    the larger one-sided p (None where nothing varies over clusters). Missing values that could carry the interval out
    of the margin leave it not shown."""

    low90: float
    high90: float
    margin: float
    equivalent: bool
    can_decide: bool
    needed_n: int | None
    because: str
    p: float | None = None


EQUIVALENCE_SHIFT = float(stats.norm.ppf(0.95) + stats.norm.ppf(0.90))
"""2.93: standard errors that the margin must span for TOST at .05 to reach 80% power at a true difference of 0."""


def equivalence_n(discordant: float, margin: float) -> int:
    """Pairs that one run needs before equivalence within `margin` can be shown: 2.93^2 pi_d / margin^2 (pi_d = .1,
    margin .05: 343), and at least so many that perfect agreement would show it."""
    if not 0 < margin < 1:
        raise ValueError(f"the margin must lie between 0 and 1, found {margin}")
    perfect = quantile(0.90) ** 2 * (1 - margin) / margin
    return math.ceil(max(EQUIVALENCE_SHIFT**2 * discordant / margin**2, perfect))


def _result(compared: PairedResult | ArrayLike, margin: float, clusters: Sequence[Any] | None) -> PairedResult:
    if margin <= 0:
        raise ValueError(f"the margin must be positive, found {margin}")
    return compared if isinstance(compared, PairedResult) else crossed(compared, clusters)


def _one_sided_p(r: PairedResult, margin: float, up: bool) -> float | None:
    """p of the null hypothesis that the difference is at most -margin (`up`), or at least margin."""
    if r.method.startswith("mcnemar") and r.gained is not None and r.lost is not None:
        gained, lost = (r.gained, r.lost) if up else (r.lost, r.gained)
        return float(stats.norm.sf(tango_score(gained, lost, r.n_prompts, -margin)))
    if r.se and r.df is not None:
        gain = r.difference if up else -r.difference
        return float(stats.t.sf((gain + margin) / r.se, r.df))
    return None


def missing_pull(r: PairedResult) -> tuple[float, float]:
    """How far the missing values could pull the difference down and up (0 or less, 0 or more)."""
    if r.bounds is None:
        return 0.0, 0.0
    return min(0.0, r.bounds[0] - r.difference), max(0.0, r.bounds[1] - r.difference)


def _power(r: PairedResult, margin: float) -> tuple[bool, int | None]:
    """(whether this design could show equivalence, the clusters that could)."""
    if r.method.startswith("mcnemar"):
        needed = equivalence_n(r.discordant or 0.0, margin)
        return r.n_clusters >= needed, needed
    if not r.se or r.df is None:
        return r.high90 - r.low90 < 2 * margin, None
    ratio = r.se * float(stats.t.ppf(0.95, r.df) + stats.norm.ppf(0.90)) / margin
    return ratio < 1, math.ceil(r.n_clusters * ratio**2) if r.n_seeds == 1 else None


def equivalence(
    compared: PairedResult | ArrayLike, margin: float, clusters: Sequence[Any] | None = None
) -> EquivalenceResult:
    """TOST from a finished comparison, or from differences d [P, S] over seeds."""
    r = _result(compared, margin, clusters)
    down, up = missing_pull(r)
    inside = -margin < r.low90 and r.high90 < margin
    equivalent = inside and -margin < r.low90 + down and r.high90 + up < margin
    can, needed = _power(r, margin)
    span = f"90% interval [{r.low90:+.3f}, {r.high90:+.3f}]"
    if equivalent:
        because = f"{span} lies within ±{margin:g}"
    elif inside:
        because = f"undecided: {span} lies within ±{margin:g}, but missing values could carry it outside"
    elif r.low90 >= margin or r.high90 <= -margin:
        because = f"{span} lies wholly outside ±{margin:g}: not equivalent"
    elif not can:
        need = f": about {needed} prompts are needed" if needed else ": more seeds are needed" if r.n_seeds > 1 else ""
        because = f"n cannot decide this{need}"
    else:
        because = f"{span} does not lie within ±{margin:g}"
    sides = (_one_sided_p(r, margin, True), _one_sided_p(r, margin, False))
    p = None if sides[0] is None or sides[1] is None else max(sides[0], sides[1])
    return EquivalenceResult(r.low90, r.high90, margin, equivalent, can, needed, because, p)


@dataclass(frozen=True)
class NoninferiorityResult:
    """Whether b is at most `margin` worse than a: `bound` is the one-sided 95% bound of b - a, `p` its test's p."""

    bound: float
    margin: float
    noninferior: bool
    p: float | None


def noninferiority(
    compared: PairedResult | ArrayLike,
    margin: float,
    *,
    higher_is_better: bool = True,
    clusters: Sequence[Any] | None = None,
) -> NoninferiorityResult:
    """One-sided 95% test that b is not worse than a by the margin or more; from a comparison or from d [P, S].

    The bound is the end of the 90% interval on the worse side. Missing values that could carry it past the margin
    leave non-inferiority not shown."""
    r = _result(compared, margin, clusters)
    down, up = missing_pull(r)
    bound, worst = (r.low90, r.low90 + down) if higher_is_better else (r.high90, r.high90 + up)
    good = worst > -margin if higher_is_better else worst < margin
    return NoninferiorityResult(bound, margin, good, _one_sided_p(r, margin, higher_is_better))
