"""Experiment 1 read back: what each arm's groups share with the base's, and the rule against the ceiling.

The files are those of `overlap_files.py`; reading them needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from alignment_core.evaluation.analysis import Evidence
from alignment_core.evaluation.results import Measurement
from alignment_core.io import read_json
from alignment_core.pipeline.step import Step
from alignment_core.stats.rules import RatioVerdict, log_ratio_rule
from neuron_brittleness.arms import ARMS, MATCHED
from neuron_brittleness.drift_ratios import bare, over_seeds


def _steps(evidence: Evidence, arm: str) -> list[Step]:
    return list(evidence.steps.get(f"overlap_{arm}", ()))


def measurements(evidence: Evidence) -> Iterator[Measurement]:
    """Jaccard of each arm's groups with the base's, in total and by layer; the null and the ceiling as subjects."""
    for arm in ARMS:
        for group in MATCHED:
            yield from _of_group(arm, group, _steps(evidence, arm))


def _of_group(arm: str, group: str, steps: list[Step]) -> Iterator[Measurement]:
    by_layer: dict[tuple[str, int], list[float]] = {}
    for step in steps:
        total = read_json(step / "aggregated_results.json")[group]
        n = total["tuned"]["a"]
        yield bare(f"jaccard_{group}_normalised", arm, total["normalised"], step.seed, {}, n)
        yield bare(f"mean_score_ratio_{group}", arm, total["mean_score_ratio"], step.seed, {}, n)
        yield from _jaccards(arm, group, total, step.seed, {})
        layers = read_json(step / f"layerwise_{group}.json")["layers"]
        for layer, one in ((int(k), v) for k, v in layers.items()):
            for m in _jaccards(arm, group, one, step.seed, {"layer": layer}):
                by_layer.setdefault((m.subject, layer), []).append(math.nan if m.value is None else m.value)
                yield m
    for (subject, layer), values in by_layer.items():
        yield from over_seeds(f"jaccard_{group}", subject, values, {"layer": layer})


def _jaccards(
    arm: str, group: str, one: Mapping[str, Any], seed: int | None, at: Mapping[str, Any]
) -> Iterator[Measurement]:
    """The arm's Jaccard index and, once for all arms, null and ceiling; none where both sets are empty."""
    tuned, ceiling = one["tuned"], one["ceiling"]
    if tuned["jaccard"] is None or ceiling["jaccard"] is None:
        return
    metric, n = f"jaccard_{group}", tuned["a"]
    yield bare(metric, arm, tuned["jaccard"], seed, at, n)
    if arm == "frozen":
        chance = bare(metric, "null", tuned["null_mean"], seed, at, n)
        bounds = {"low": tuned["null_low"], "high": tuned["null_high"], "method": "permutation in cells"}
        yield chance.model_copy(update=bounds)
        yield bare(metric, "ceiling", ceiling["jaccard"], seed, at, n)


def verdict(evidence: Evidence, arm: str = "frozen") -> RatioVerdict | None:
    """The rule on log(Jaccard of the tuned set with the base's / Jaccard of the base's halves), by matrix."""
    group = evidence.config.freeze.group
    seeds = [read_json(step / f"layerwise_{group}.json")["matrices"] for step in _steps(evidence, arm)]
    if not seeds:
        return None
    rows = {m: [s[m] for s in seeds] for m in seeds[0] if seeds[0][m]["tuned"]["a"]}
    x = [[math.log(_smoothed(p["tuned"]) / _smoothed(p["ceiling"])) for p in parts] for parts in rows.values()]
    return log_ratio_rule(np.array(x), [parts[0]["layer"] for parts in rows.values()]) if x else None


def _smoothed(part: Mapping[str, Any]) -> float:
    """Jaccard with half a weight added to numerator and denominator."""
    return float((part["both"] + 0.5) / (part["a"] + part["b"] - part["both"] + 0.5))
