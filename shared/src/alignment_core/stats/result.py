"""The result of a paired comparison, and the parts that one run and several seeds share.

McNemar 1947 (Psychometrika 12), exact form; Student's t otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from alignment_core.stats.intervals import Interval, tango
from alignment_core.stats.power import detectable, detectable_t

if TYPE_CHECKING:
    from alignment_core.stats.layout import Floats
    from alignment_core.stats.missing import MissingDifference

THESE = "these checkpoints"
RUNS = "over runs"


@dataclass(frozen=True)
class PairedResult:
    """A paired comparison; the difference is b - a, means being averages of cluster averages.

    `low90`, `high90` serve equivalence and non-inferiority. `gained` counts pairs that are 1 only in b, `lost` only
    in a (one run of 0/1 values). `discordant` is the share of cells that differ. `effect` is P(b>a) + P(b=a)/2 for
    scores, None for 0/1 values. `detectable` is the smallest true difference this design finds with 80% power at .05.
    `seed_level` is the t interval of the seeds' differences, `seed_p` its p, `seed_sd` their spread. Undefined is None.
    """

    difference: float
    low: float
    high: float
    p: float
    method: str
    estimand: str
    n_prompts: int
    n_clusters: int
    n_seeds: int
    df: float | None
    effect: float | None
    detectable: float | None
    level: float
    low90: float
    high90: float
    se: float | None
    mean_a: float | None = None
    mean_b: float | None = None
    discordant: float | None = None
    gained: int | None = None
    lost: int | None = None
    seed_level: Interval | None = None
    seed_p: float | None = None
    seed_sd: float | None = None
    missing: int = 0
    bounds: tuple[float, float] | None = None
    undecided: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def test(self) -> str | None:
        """Name of the two-sided test of no difference that `p` is of; None where p is undefined."""
        if math.isnan(self.p):
            return None
        exact = self.method.startswith("mcnemar") or self.method.endswith("tango")
        return "exact McNemar" if exact else f"two-sided t, {self.method}"

    @property
    def width(self) -> float:
        """Of the 95% interval; an interval of width zero supports nothing."""
        return self.high - self.low


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar p from the discordant counts: (1, 6) gives .125, (0, 0) gives 1."""
    if b < 0 or c < 0:
        raise ValueError(f"discordant counts cannot be negative: {b}, {c}")
    return 1.0 if b + c == 0 else float(stats.binomtest(min(b, c), b + c, 0.5).pvalue)


def superiority(d: Floats) -> float | None:
    """P(b > a) + P(b = a)/2 over the cells of the differences d that are not missing."""
    known = d[~np.isnan(d)]
    return float((known > 0).mean() + 0.5 * (known == 0).mean()) if len(known) else None


def bounds_fields(found: MissingDifference) -> dict[str, Any]:
    both = None if found.low is None or found.high is None else (found.low, found.high)
    return {"bounds": both, "undecided": found.undecided, "warnings": found.warnings}


def t_fields(
    value: float, se: float, df: float, method: str, level: float, degenerate: Floats | None
) -> dict[str, Any]:
    """Intervals and p of a t test; `degenerate` holds cluster averages of 0/1 differences, kept within [-1, 1], for
    which Tango stands in where the standard error is zero."""
    if se == 0.0:
        return no_spread_fields(value, method, level, degenerate)
    half, half90 = (float(stats.t.ppf(0.5 + q / 2, df)) * se for q in (level, 0.90))
    least, most = (-1.0, 1.0) if degenerate is not None else (-math.inf, math.inf)
    return {
        "low": max(least, value - half),
        "high": min(most, value + half),
        "low90": max(least, value - half90),
        "high90": min(most, value + half90),
        "p": float(2 * stats.t.sf(abs(value) / se, df)),
        "method": method,
        "df": df,
        "se": se,
        "detectable": detectable_t(se, df),
    }


def no_spread_fields(value: float, method: str, level: float, degenerate: Floats | None) -> dict[str, Any]:
    same = {"df": None, "se": 0.0}
    if degenerate is None:
        # Nothing varies, so nothing says how much the difference could have been otherwise: no p.
        edge = {"low": value, "high": value, "low90": value, "high90": value, "detectable": None, "p": math.nan}
        return {**same, **edge, "method": f"{method}; no spread"}
    g = len(degenerate)
    b, c = float(np.maximum(degenerate, 0).sum()), float(np.maximum(-degenerate, 0).sum())
    (low, high), (low90, high90) = tango(b, c, g, level), tango(b, c, g, 0.90)
    edge = {
        "low": low,
        "high": high,
        "low90": low90,
        "high90": high90,
        "detectable": detectable(g, min(1.0, abs(value))),
    }
    return {**same, **edge, "p": mcnemar_exact(math.floor(b), math.floor(c)), "method": f"{method}; no spread: tango"}
