"""From graded replies to results: levels, paired differences with ties, agreements, and the hypotheses by their rule.

Scores 1 to 5 of two models on the same prompts: mean difference with the crossed interval over prompts and training
seeds (one run: t over clusters), beside it P(>) + P(=)/2, the ties, the paired permutation test and Wilcoxon's test
with Pratt's zeros. Holm over the hypotheses' own tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alignment_core.evaluation import hypotheses as claims
from alignment_core.evaluation.hypotheses import Claim
from alignment_core.evaluation.rates import rates
from alignment_core.evaluation.results import Comparison, Hypothesis, Measurement
from alignment_core.stats import intervals
from alignment_core.stats.intervals import Interval
from alignment_core.stats.paired import PairedResult, one_run, over_runs
from alignment_core.stats.scores import ScoreComparison, compare_scores
from mini_cai.metrics import Judged, Layout, Metric, layout

States = Mapping[str, Sequence[Judged]]
"""Of each subject its judged replies, one entry a training seed."""

COMPARED = (
    "rubric_mean",
    "harmful_rubric_mean",
    "benign_rubric_mean",
    "borderline_rubric_mean",
    "mean_score",
    "safe_rate",
    "harmful_refusal_rate",
    "false_refusal_rate",
    "over_refusal_rate",
)
ARMS = ("best", "margin", "diverse", "revised")


def measurements(states: States, metrics: Sequence[Metric]) -> Iterator[Measurement]:
    """Every metric of every model: each seed, and over the seeds."""
    for subject, several in states.items():
        for one in several:
            yield from rates([g.verdict for g in one.replies], completions=one.completions)
            for metric in (m for m in metrics if not m.judged):
                yield from _of_one(metric, one)
            yield from _spread(one)
        if len(several) > 1:
            for metric in metrics:
                found = layout(metric, several)
                if not found.empty:
                    yield Measurement.of(metric.key, subject, intervals.over_seeds(found.values, found.clusters))


def _of_one(metric: Metric, one: Judged) -> Iterator[Measurement]:
    if metric.best:
        found = layout(metric, [one])
        values, clusters = found.values[:, 0].tolist(), list(found.clusters)
    else:
        here = one.of(metric.kind)
        values, clusters = [metric.read(g) for g in here], [g.verdict.cluster for g in here]
    if values and not np.isnan(values).all():
        interval = (intervals.rate if metric.rate else intervals.mean_interval)(values, clusters)
        yield Measurement.of(metric.key, one.subject, interval, seed=one.seed, completions=one.completions)


def _spread(one: Judged) -> Iterator[Measurement]:
    """The original's std_dev (of the population) and num_samples."""
    scores = [float(g.grade.score) for g in one.replies if g.grade.score is not None]
    lost = len(one.replies) - len(scores)
    for key, value in (
        ("std_dev", float(np.std(scores)) if scores else float("nan")),
        ("num_samples", float(len(scores))),
    ):
        plain = Interval(value, float("nan"), float("nan"), len(scores), "none", lost)
        yield Measurement.of(key, one.subject, plain, seed=one.seed, completions=one.completions)


def aligned(metric: Metric, a: Sequence[Judged], b: Sequence[Judged]) -> tuple[Layout, Layout] | None:
    """Both sides over the same prompts; None where one has no value at all."""
    x, y = layout(metric, a), layout(metric, b)
    if x.empty or y.empty:
        return None
    if x.prompts != y.prompts:
        raise ValueError(f"{a[0].subject} and {b[0].subject} were asked different prompts")
    return x, y


def compared(metric: Metric, a: Sequence[Judged], b: Sequence[Judged]) -> PairedResult | None:
    """b - a over prompts, and over seeds where there are several."""
    sides = aligned(metric, a, b)
    if sides is None:
        return None
    x, y = sides
    span = (0.0, 1.0) if metric.rate else (1.0, 5.0)
    run = over_runs if max(len(a), len(b)) > 1 else one_run
    return run(x.values, y.values, x.clusters, value_range=span)


def pairs(states: States) -> list[tuple[str, str]]:
    """What is compared: every trained arm with the baseline and with the random control."""
    arms = [a for a in ARMS if a in states]
    found = [("random", a) for a in arms] + [("baseline", a) for a in arms] + [("baseline", "random")]
    return [(a, b) for a, b in found if a in states and b in states]


def comparisons(states: States, metrics: Sequence[Metric]) -> tuple[list[Comparison], tuple[Hypothesis, ...]]:
    """Every named difference for each seed and over the seeds, and the hypotheses decided by them; H1's comparison is
    the primary one, the others are of its family."""
    found: list[Comparison] = []
    for a, b in pairs(states):
        for metric in (m for m in metrics if m.key in COMPARED):
            found += _differences(metric, a, b, states)
    decided = claims.decide(claims.read("mini_cai"), lambda claim: _tested(claim, states, metrics))
    several = any(len(e) > 1 for e in states.values())
    return decided.marked(found, several, primary=("H1",)), decided.hypotheses


def _tested(claim: Claim, states: States, metrics: Sequence[Metric]) -> PairedResult | str:
    """The comparison that a claim is about, or why there is none."""
    if absent := [s for s in (claim.a, claim.b) if s not in states]:
        return f"Not run: {', '.join(absent)}."
    metric = next(m for m in metrics if m.key == claim.metric)
    found = compared(metric, states[claim.a], states[claim.b])
    return found or f"No {claim.metric}: the prompts are not the organism's."


def _differences(metric: Metric, a: str, b: str, states: States) -> Iterator[Comparison]:
    left, right = states[a], states[b]
    role: Any = "control" if "random" in (a, b) else "exploratory"
    for one in right:
        base = next((e for e in left if e.seed == one.seed), None)
        result = None if base is None else compared(metric, [base], [one])
        if result is not None:
            yield Comparison.of(metric.key, a, b, result, seed=one.seed, role=role)
    if len(right) > 1:
        result = compared(metric, left, right)
        if result is not None:
            yield Comparison.of(metric.key, a, b, result, role=role)


def score_comparisons(states: States, metrics: Sequence[Metric]) -> Iterator[Measurement]:
    """Ties, improved fraction and the tests that do not lean on means, of each arm against its control and baseline,
    by the rubric and by the judge; `at` names what it stands against."""
    by_key = {m.key: m for m in metrics}
    for a, b in pairs(states):
        for key, judge in (("rubric_mean", "rubric"), ("mean_score", "critic")):
            sides = aligned(by_key[key], states[a], states[b])
            if sides is not None:
                yield from _scores(sides, a, b, judge, states[b])


def _scores(sides: tuple[Layout, Layout], a: str, b: str, judge: str, runs: Sequence[Judged]) -> Iterator[Measurement]:
    x, y = sides
    found: ScoreComparison = compare_scores(x.values, y.values, x.clusters)
    better = np.where(np.isnan(x.values) | np.isnan(y.values), np.nan, (y.values > x.values).astype(float))
    seed = runs[0].seed if len(runs) == 1 else None
    interval = intervals.rate(better[:, 0], x.clusters) if len(runs) == 1 else intervals.over_seeds(better, x.clusters)
    at = {"judge": judge, "against": a}
    yield Measurement.of("improved_fraction", b, interval, seed=seed, at=at)
    plain = (
        ("tied_fraction", found.ties, "share of prompts and seeds"),
        ("superiority", found.superiority, "P(>) + P(=)/2"),
        ("permutation_p", found.permutation_p, "paired permutation of prompts"),
        ("wilcoxon_p", float("nan") if found.wilcoxon_p is None else found.wilcoxon_p, "Wilcoxon, Pratt's zeros"),
    )
    for key, value, method in plain:
        of = Interval(value, float("nan"), float("nan"), interval.n, method, interval.missing)
        yield Measurement.of(key, b, of, seed=seed, at=at)
