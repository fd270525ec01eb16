"""The original study's outputs under its names, made of exact measurements, and its published figures.

`drift_analysis_report.txt` and `statistical_results.json` in the run folder; Cohen's d is given as the original
defines it, over single weights, with an interval, and is descriptive: weights of one matrix are not independent.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from scipy import stats

from alignment_core.evaluation.analysis import Evidence
from alignment_core.evaluation.results import Results
from alignment_core.io import write_json, write_text
from alignment_core.report.spec import TextTable
from alignment_core.stats.rules import RatioVerdict
from neuron_brittleness import drift_ratios, figures
from neuron_brittleness.arms import MATCHED
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.measured import Drift

PUBLISHED = (
    ("safety-critical (set difference)", "26.0%", ".15", "2.58e-5"),
    ("top safety", "39.1%", ".24", "5.39e-5"),
    ("top utility", "50.7%", ".34", "5.39e-5"),
    ("random", "", "", "4.94e-5"),
)


def cohens_d(a: dict[str, float], b: dict[str, float]) -> float | None:
    """(m1 - m2) / sqrt((s1^2 + s2^2) / 2) of two aggregates; None without spread."""
    spread = math.sqrt((a["std"] ** 2 + b["std"] ** 2) / 2)
    return (a["mean"] - b["mean"]) / spread if spread > 0 else None


def d_interval(d: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a one-sample standardised mean d of n units: d +- z sqrt(1/n + d^2 / 2n) (Hedges and Olkin 1985)."""
    half = float(stats.norm.ppf((1 + level) / 2)) * math.sqrt(1 / n + d * d / (2 * n))
    return d - half, d + half


def _ratio(found: RatioVerdict | None) -> dict[str, Any] | None:
    if found is None:
        return None
    d = found.cohens_d
    interval = None if d is None or found.n_layers < 3 else d_interval(d, found.n_layers)
    kept = ("ratio", "low", "high", "low90", "high90", "n_matrices", "n_layers")
    numbers = {
        k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in vars(found).items() if k in kept
    }
    effect = {"value": d, "low": interval and interval[0], "high": interval and interval[1], "units": "layers"}
    return {**numbers, "verdict": found.verdict, "because": found.because, "cohens_d_descriptive": effect}


def statistics(drift: Drift) -> dict[str, Any]:
    """Per arm: each seed's final aggregates, Cohen's d against utility and random, and the rule's verdict."""
    out: dict[str, Any] = {}
    for arm, seeds in drift.arms.items():
        each = {}
        for seed, measured in seeds.items():
            final = measured[-1]["metrics"]["absolute_change"]
            against = {
                other: {g: cohens_d(s, final[other]) for g, s in final.items() if g != other}
                for other in ("top_utility", "random")
                if other in final
            }
            each[str(seed)] = {"step": measured[-1]["step"], **measured[-1]["metrics"], "cohens_d": against}
        verdicts = {g: _ratio(drift_ratios.verdict(drift, arm, g)) for g in MATCHED}
        out[arm] = {"seeds": each, "matched_log_ratio": verdicts}
    return out


def write(folder: Path, evidence: Evidence, _: Results) -> None:
    """Write the original's two files and the figure of the changes' distributions into the run folder."""
    drift = Drift.read(evidence)
    statistic = statistics(drift)
    write_json(folder / "statistical_results.json", statistic)
    write_text(folder / "drift_analysis_report.txt", "\n".join(_lines(evidence.config, drift, statistic)) + "\n")
    figures.write(folder / "figures", drift)


def _lines(config: BrittlenessConfig, drift: Drift, statistic: dict[str, Any]) -> list[str]:
    lines = ["NEURON DRIFT ANALYSIS", "", f"model {config.model.name}, group {config.freeze.group}", ""]
    for arm, part in statistic.items():
        for seed, one in part["seeds"].items():
            lines.append(f"{arm}, seed {seed}, step {one['step']}: absolute change per weight")
            for group, s in one["absolute_change"].items():
                values = "  ".join(f"{key} {s[key]:.3e}" for key in ("mean", "std", "median"))
                lines.append(f"  {group:<20} {values}  n {s['count']:,}")
            for other, effects in one["cohens_d"].items():
                sizes = ", ".join(f"{g} {d:+.3f}" for g, d in effects.items() if d is not None)
                lines.append(f"  Cohen's d against {other} (descriptive): {sizes}")
        lines.append(f"{arm}: RMS change over the matched random group's, matrices as units, layers as clusters")
        for group, verdict in part["matched_log_ratio"].items():
            lines.append(f"  {group:<20} " + (verdict["because"] if verdict else "nothing to compare"))
            effect = verdict and verdict["cohens_d_descriptive"]
            if effect and effect["value"] is not None and effect["low"] is not None:
                size = f"{effect['value']:+.2f} [{effect['low']:+.2f}, {effect['high']:+.2f}]"
                lines.append(f"  {'':<20} Cohen's d over layers (descriptive) {size}")
        lines.append("")
    verdict = drift_ratios.verdict(drift, "free", config.freeze.group)
    lines.append(f"HYPOTHESIS EVALUATION: {verdict.verdict if verdict else 'undecided'}")
    return lines


def tables() -> tuple[TextTable, ...]:
    """The original's published figures."""
    note = (
        "Llama-2-7b-chat, one run. Its freezing held other rows than the selected ones, its drift was read after a "
        "merge in bf16 (the median change is exactly 0 in every group), and its threshold of .01 on changes near 5e-5 "
        "could return one verdict only."
    )
    columns = ("group", "overlap", "Jaccard", "mean |change| at step 3000")
    return (TextTable("The original's figures", columns, PUBLISHED, note),)
