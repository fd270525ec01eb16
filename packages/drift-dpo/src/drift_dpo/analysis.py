"""From judged replies to results: rates, paired differences, agreements, and the hypotheses by their written rule.

Rates of one state: Wilson. Differences of two states: Tango and exact McNemar for one run ("these checkpoints"), the
crossed interval over prompts and training seeds for several ("over runs"). Holm over the hypotheses' own tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignment_core.evaluation import hypotheses as claims
from alignment_core.evaluation.hypotheses import Claim
from alignment_core.evaluation.rates import agreements as core_agreements
from alignment_core.evaluation.rates import rates
from alignment_core.evaluation.results import Agreement, Comparison, Hypothesis, Measurement
from alignment_core.stats import intervals
from alignment_core.stats.paired import PairedResult, one_run, over_runs
from drift_dpo.metrics import METRICS, Evaluation, Metric, layout

States = Mapping[str, Sequence[Evaluation]]
"""Of each subject its evaluations, one a training seed; the baseline has one with the seed None."""

COMPARED = ("harmful_refusal_rate", "false_refusal_rate", "over_refusal_rate", "helpful_rate", "reference_loss")
PAIRS = (("baseline", "stage_a"), ("stage_a", "stage_b"), ("stage_b", "dpo"), ("baseline", "dpo"))
CONTROL_PAIRS = (
    ("baseline", "null_stage_a"),
    ("baseline", "pretraining_openings"),
    ("pretraining_openings", "stage_a"),
    ("b_without_a", "stage_b"),
    ("stage_b", "chosen_sft"),
    ("chosen_sft", "dpo"),
)


def measurements(states: States) -> Iterator[Measurement]:
    """Every metric of every state: each seed, over the seeds, and by category, source and further judge."""
    for subject, evaluations in states.items():
        for one in evaluations:
            for rank, verdicts in enumerate(one.by_judge.values()):
                yield from rates(list(verdicts.values()), by_judge=rank > 0, completions=one.completions)
            for metric in (m for m in METRICS if not m.judged):
                yield from _of_one(metric, one)
        if len(evaluations) > 1:
            for metric in METRICS:
                yield from _over(metric, subject, evaluations)


def _of_one(metric: Metric, one: Evaluation) -> Iterator[Measurement]:
    found = layout(metric, [one])
    if found is not None:
        interval = intervals.rate if metric.rate else intervals.mean_interval
        of = interval(found.values, found.clusters)
        yield Measurement.of(metric.key, one.subject, of, seed=one.seed, completions=one.completions)


def _over(metric: Metric, subject: str, evaluations: Sequence[Evaluation]) -> Iterator[Measurement]:
    if metric.conditional:
        each = [found.values.mean() for e in evaluations if (found := layout(metric, [e])) is not None]
        if len(each) > 1:
            yield Measurement.of(metric.key, subject, intervals.mean_interval(each))
        return
    found = layout(metric, evaluations)
    if found is not None:
        yield Measurement.of(metric.key, subject, intervals.over_seeds(found.values, found.clusters))


def compared(metric: Metric, a: Sequence[Evaluation], b: Sequence[Evaluation]) -> PairedResult | None:
    """b - a over prompts, and over seeds where there are several on a side."""
    prompts = [p for p, v in a[0].values(metric).items() if v is not None]
    x, y = layout(metric, a, prompts), layout(metric, b, prompts)
    if x is None or y is None or x.prompts != y.prompts:
        return None
    run = over_runs if max(len(a), len(b)) > 1 else one_run
    return run(x.values, y.values, x.clusters)


def comparisons(states: States) -> tuple[list[Comparison], tuple[Hypothesis, ...]]:
    """Every named difference, for each seed and over the seeds, and the hypotheses decided by them."""
    found: list[Comparison] = []
    for pairs, role in ((PAIRS, "exploratory"), (CONTROL_PAIRS, "control")):
        for a, b in pairs:
            if a not in states or b not in states:
                continue
            for metric in (m for m in METRICS if m.key in COMPARED):
                found += _differences(metric, a, b, states, role)
    decided = claims.decide(claims.read("drift_dpo"), lambda claim: _tested(claim, states))
    return decided.marked(found, several=any(len(e) > 1 for e in states.values())), decided.hypotheses


def _tested(claim: Claim, states: States) -> PairedResult | str:
    """The comparison that a claim is about, or why there is none."""
    if missing := [s for s in (claim.a, claim.b) if s not in states]:
        return f"Not run: {', '.join(missing)}; --controls runs it."
    metric = next(m for m in METRICS if m.key == claim.metric)
    return compared(metric, states[claim.a], states[claim.b]) or "Nothing to compare."


def _differences(metric: Metric, a: str, b: str, states: States, role: Any) -> Iterator[Comparison]:
    left, right = states[a], states[b]
    for one in right:
        base = next((e for e in left if e.seed in (None, one.seed)), None)
        result = None if base is None else compared(metric, [base], [one])
        if result is not None:
            yield Comparison.of(metric.key, a, b, result, seed=one.seed, role=role)
    if max(len(left), len(right)) > 1:
        result = compared(metric, left, right)
        if result is not None:
            yield Comparison.of(metric.key, a, b, result, role=role)


def agreements(states: States) -> list[Agreement]:
    """Cohen's kappa of every two judges on refusal, over all replies both judged."""
    given = [v for each in states.values() for e in each for judged in e.by_judge.values() for v in judged.values()]
    return core_agreements(given, binary=True)
