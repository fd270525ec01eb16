"""Experiment 2: how far groups drift against their matched groups, and one arm against another.

Log ratios of RMS changes with matrices as units and layers as clusters; at the last step of each arm, and where the
free and the frozen arm have the same training loss (the higher of their two final ones, linear between the measured
steps on both sides, of the RMS as of the loss).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from alignment_core.evaluation.results import Measurement
from alignment_core.stats import intervals
from alignment_core.stats.layout import Floats
from alignment_core.stats.rules import RatioVerdict, log_ratio_rule
from neuron_brittleness.arms import MATCHED
from neuron_brittleness.measured import EQUAL_ARMS, Drift, Measured

Rms = dict[tuple[str, str], float]
"""RMS change by group and matrix."""


def changes(drift: Drift, arm: str, seed: int, equal: bool = False) -> list[dict[str, Any]]:
    """RMS and mean absolute change of each group and matrix at the arm's last step, or at equal training loss."""
    measured = drift.arms[arm][seed]
    if not equal:
        return list(measured[-1]["groups"])
    at, by_step = drift.matched[seed][arm], {m["step"]: m for m in measured}
    before, after = ({(r["group"], r["matrix"]): r for r in by_step[s]["groups"]} for s in (at.before, at.after))
    return [r | {k: at.mix(before[key][k], r[k]) for k in ("rms", "absolute")} for key, r in after.items()]


def log_ratios(drift: Drift, arm: str, group: str, against: str, equal: bool = False) -> tuple[Floats, list[int]]:
    """log(RMS change of a group / of another) in one arm, [matrices, seeds], and the matrices' layers."""
    return arm_ratios(drift, (arm, arm), (group, against), equal)


def arm_ratios(
    drift: Drift, arms: tuple[str, str], groups: tuple[str, str], equal: bool = False
) -> tuple[Floats, list[int]]:
    """log(RMS change of the first arm's first group / of the second's second), [matrices, seeds], and the layers.

    A matrix where one of the two groups is empty or still in some seed is left out (there is no ratio).
    """
    layer: dict[str, int] = {}
    sides: list[tuple[Rms, Rms]] = []
    for seed in drift.arms.get(arms[0], {}):
        rows = [changes(drift, arm, seed, equal) for arm in arms]
        layer |= {r["matrix"]: r["layer"] for r in rows[0]}
        first, second = ({(r["group"], r["matrix"]): r["rms"] for r in part} for part in rows)
        sides.append((first, second))
    group, against = groups
    names = [m for m in layer if all(a.get((group, m), 0) > 0 and b.get((against, m), 0) > 0 for a, b in sides)]
    x = [[math.log(a[group, m] / b[against, m]) for a, b in sides] for m in names]
    return np.array(x, dtype=np.float64).reshape(len(names), len(sides)), [layer[m] for m in names]


def verdict(drift: Drift, arm: str, group: str, equal: bool = False) -> RatioVerdict | None:
    """The rule's verdict on a group against its matched random group; None where nothing can be compared."""
    return _rule(*log_ratios(drift, arm, group, MATCHED[group], equal))


def _rule(x: Floats, layers: list[int]) -> RatioVerdict | None:
    return log_ratio_rule(x, layers) if len(x) else None


def measurements(drift: Drift) -> Iterator[Measurement]:
    """Mean absolute change of each group and the training loss over the steps, and the ratios."""
    for arm, seeds in drift.arms.items():
        yield from _over_steps(arm, seeds)
        for equal in (False, True) if arm in EQUAL_ARMS and drift.matched else (False,):
            name = ("drift_ratio" if arm == "free" else f"drift_ratio_{arm}") + ("_at_equal_loss" if equal else "")
            for group in MATCHED:
                yield from _ratio(name, group, verdict(drift, arm, group, equal), seeds)
    if not all(arm in drift.arms for arm in EQUAL_ARMS):
        return
    seeds = drift.arms["frozen"]
    named = dict.fromkeys(r["group"] for m in seeds.values() for r in m[-1]["groups"])
    for equal in (False, True):
        name = "drift_frozen_over_free" + ("_at_equal_loss" if equal else "")
        for group in named:
            yield from _ratio(name, group, _rule(*arm_ratios(drift, ("frozen", "free"), (group, group), equal)), seeds)


def _over_steps(arm: str, seeds: Mapping[int, Measured]) -> Iterator[Measurement]:
    """Of each seed, and over the seeds of each step."""
    metric = "drift_absolute" if arm == "free" else f"drift_absolute_{arm}"
    each: dict[tuple[str, str, int], list[float]] = {}
    for seed, measured in seeds.items():
        for m in measured:
            place = {"step": m["step"]}
            for group, stats in m["metrics"]["absolute_change"].items():
                each.setdefault((metric, group, m["step"]), []).append(stats["mean"])
                yield bare(metric, group, stats["mean"], seed, place, stats["count"])
            each.setdefault(("training_loss", arm, m["step"]), []).append(m["loss"])
            yield bare("training_loss", arm, m["loss"], seed, place, m["examples"])
    for (name, subject, step), values in each.items():
        yield from over_seeds(name, subject, values, {"step": step})


def over_seeds(metric: str, subject: str, values: list[float], at: Mapping[str, Any]) -> Iterator[Measurement]:
    """The mean of several seeds' figures at one place."""
    if len(values) > 1:
        yield Measurement.of(metric, subject, intervals.mean_interval(values), at=at)


def _ratio(name: str, group: str, found: RatioVerdict | None, seeds: Iterable[int]) -> Iterator[Measurement]:
    if found is not None:
        named = list(seeds)
        yield Measurement(metric=name, subject=group, seed=named[0] if len(named) == 1 else None, value=found.ratio,
                          low=found.low, high=found.high, method="log ratio, layers", n=found.n_layers)  # fmt: skip


def bare(
    metric: str, subject: str, value: float | None, seed: int | None, at: Mapping[str, Any], n: int
) -> Measurement:
    """A figure of one seed without an interval."""
    return Measurement(metric=metric, subject=subject, seed=seed, at=dict(at), value=value, method="none", n=n)
