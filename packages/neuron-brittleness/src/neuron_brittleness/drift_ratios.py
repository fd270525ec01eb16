"""Experiment 2: how far groups drift against their matched groups, and one arm against another.

Log ratios of RMS changes with matrices as units and layers as clusters; at the last step of each arm, and where the
free and the frozen arm have the same training loss (the higher of their two final ones, linear between the measured
steps on both sides, of the RMS as of the loss).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment_core.evaluation.results import Measurement
from alignment_core.stats import intervals
from alignment_core.stats.rules import RatioVerdict, log_ratio_rule
from neuron_brittleness.collect import Found

Floats = NDArray[np.float64]
MATCHED = {g: f"{g}_matched" for g in ("set_diff", "top_safety", "top_utility")}
ARMS_AT_EQUAL_LOSS = ("free", "frozen")


def changes(found: Found, arm: str, seed: int, equal: bool = False) -> list[dict[str, Any]]:
    """RMS and mean absolute change of each group and matrix at the arm's last step, or at equal training loss."""
    measured = found.drift[arm][seed]
    if not equal:
        return list(measured[-1]["groups"])
    at = found.matched[seed][arm]
    before, after = ({(r["group"], r["matrix"]): r for r in m["groups"]} for m in measured_at(measured, at))
    share = at["weight"]
    return [
        r | {k: before[key][k] * (1 - share) + r[k] * share for k in ("rms", "absolute")} for key, r in after.items()
    ]


def measured_at(measured: list[dict[str, Any]], at: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The measurements on both sides of a matched step."""
    by_step = {m["step"]: m for m in measured}
    return by_step[at["before"]], by_step[at["after"]]


def _logs(sides: list[tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]], group: str, against: str,
          layer: Mapping[str, int]) -> tuple[Floats, list[int]]:  # fmt: skip
    names = [m for m in layer if all(a.get((group, m), 0) > 0 and b.get((against, m), 0) > 0 for a, b in sides)]
    x = [[math.log(a[group, m] / b[against, m]) for a, b in sides] for m in names]
    return np.array(x, dtype=np.float64).reshape(len(names), len(sides)), [layer[m] for m in names]


def log_ratios(found: Found, arm: str, group: str, against: str, equal: bool = False) -> tuple[Floats, list[int]]:
    """log(RMS change of a group / of another) in one arm, [matrices, seeds], and the matrices' layers.

    A matrix where one of the two groups is empty or still in some seed is left out (there is no ratio).
    """
    return arm_ratios(found, (arm, arm), (group, against), equal)


def arm_ratios(
    found: Found, arms: tuple[str, str], groups: tuple[str, str], equal: bool = False
) -> tuple[Floats, list[int]]:
    """log(RMS change of the first arm's first group / of the second's second), seed by seed."""
    layer: dict[str, int] = {}
    sides = []
    for seed in found.drift.get(arms[0], {}):
        rows = [changes(found, arm, seed, equal) for arm in arms]
        layer |= {r["matrix"]: r["layer"] for r in rows[0]}
        first, second = ({(r["group"], r["matrix"]): r["rms"] for r in part} for part in rows)
        sides.append((first, second))
    return _logs(sides, *groups, layer)


def verdict(found: Found, arm: str = "free", group: str | None = None, equal: bool = False) -> RatioVerdict | None:
    """The rule's verdict on a group against its matched random group; None where nothing can be compared."""
    group = group or found.group
    x, layers = log_ratios(found, arm, group, MATCHED[group], equal)
    return log_ratio_rule(x, layers) if len(x) else None


def measurements(found: Found) -> Iterator[Measurement]:
    """Mean absolute change of each group and the training loss over the steps, and the ratios."""
    for arm, seeds in found.drift.items():
        yield from _over_steps(arm, seeds)
        for equal in (False, True) if arm in ARMS_AT_EQUAL_LOSS and found.matched else (False,):
            name = ("drift_ratio" if arm == "free" else f"drift_ratio_{arm}") + ("_at_equal_loss" if equal else "")
            for group in MATCHED:
                yield from _ratio(name, group, verdict(found, arm, group, equal), seeds)
    if not all(arm in found.drift for arm in ARMS_AT_EQUAL_LOSS):
        return
    seeds = found.drift["frozen"]
    named = dict.fromkeys(r["group"] for m in seeds.values() for r in m[-1]["groups"])
    for equal in (False, True) if found.matched else (False,):
        name = "drift_frozen_over_free" + ("_at_equal_loss" if equal else "")
        for group in named:
            x, layers = arm_ratios(found, ("frozen", "free"), (group, group), equal)
            yield from _ratio(name, group, log_ratio_rule(x, layers) if len(x) else None, seeds)


def _over_steps(arm: str, seeds: Mapping[int, list[dict[str, Any]]]) -> Iterator[Measurement]:
    metric = "drift_absolute" if arm == "free" else f"drift_absolute_{arm}"
    series: dict[tuple[str, int], list[float]] = {}
    losses: dict[int, list[float]] = {}
    for seed, measured in seeds.items():
        for m in measured:
            for group, stats in m["metrics"]["absolute_change"].items():
                series.setdefault((group, m["step"]), []).append(stats["mean"])
                yield bare(metric, group, stats["mean"], seed, {"step": m["step"]}, stats["count"])
            losses.setdefault(m["step"], []).append(m["loss"])
            yield bare("training_loss", arm, m["loss"], seed, {"step": m["step"]}, m["examples"])
    for (group, step), each in series.items():
        if len(each) > 1:
            yield Measurement.of(metric, group, intervals.mean_interval(each), at={"step": step})
    for step, each in losses.items():
        if len(each) > 1:
            yield Measurement.of("training_loss", arm, intervals.mean_interval(each), at={"step": step})


def _ratio(name: str, group: str, found: RatioVerdict | None, seeds: Mapping[int, Any]) -> Iterator[Measurement]:
    if found is not None:
        yield Measurement(metric=name, subject=group, seed=next(iter(seeds)) if len(seeds) == 1 else None,
                          value=found.ratio, low=found.low, high=found.high, method="log ratio, layers",
                          n=found.n_layers)  # fmt: skip


def bare(metric: str, subject: str, value: float | None, seed: int | None, at: dict[str, Any], n: int) -> Measurement:
    """A figure of one seed without an interval."""
    return Measurement(metric=metric, subject=subject, seed=seed, at=at, value=value, method="none", n=n)
