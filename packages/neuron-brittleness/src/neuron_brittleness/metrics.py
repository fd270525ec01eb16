"""What is measured, compared and claimed: the core's metrics, drift, overlap, and the study's contrasts and rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from alignment_core.evaluation.analysis import Analysis, Contrast, Evidence, Role
from alignment_core.evaluation.hypotheses import Claim, Outcome
from alignment_core.evaluation.metrics import COMMON, Metric
from alignment_core.evaluation.results import Measurement
from alignment_core.stats.rules import RatioVerdict
from neuron_brittleness import drift_ratios, equal, overlap_ratios
from neuron_brittleness.arms import ARMS, MATCHED
from neuron_brittleness.conditions import EQUAL_COST, base_pairs, dose, tuned_pairs
from neuron_brittleness.equal import REFUSAL, TAKEOVER
from neuron_brittleness.measured import EQUAL_ARMS, Drift

ARM_LABELS = dict(zip(ARMS, ("free arm", "frozen arm", "matched frozen arm"), strict=True))
GROUP_LABELS = {"set_diff": "set difference", "top_safety": "top safety", "top_utility": "top utility"}


def _end(arm: str) -> str:
    """What the free arm's metrics lack and the others' end with."""
    return "" if arm == "free" else f"_{arm}"


DRIFT = (
    *(Metric(f"drift_absolute{_end(arm)}", f"mean |change|, {label}", unit="value", digits=6)
      for arm, label in ARM_LABELS.items()),
    *(Metric(f"drift_ratio{_end(arm)}", f"drift over matched, {label}", unit="ratio", about="Ratio of RMS changes.")
      for arm, label in ARM_LABELS.items()),
    *(Metric(f"drift_ratio{_end(arm)}_at_equal_loss", f"{ARM_LABELS[arm]}, equal training loss", unit="ratio")
      for arm in EQUAL_ARMS),
    Metric("drift_frozen_over_free", "frozen over free, equal steps", unit="ratio", digits=3,
           about="Ratio of RMS changes of the same weights."),
    Metric("drift_frozen_over_free_at_equal_loss", "equal training loss", unit="ratio", digits=3),
    Metric("training_loss", "training loss", better="low", unit="nats"),
)  # fmt: skip
"""Subjects are groups of weights; those of the training loss are arms."""
OVERLAP = (
    *(Metric(f"jaccard_{group}", f"Jaccard, {label}", unit="value", about="With the base's set.")
      for group, label in GROUP_LABELS.items()),
    *(Metric(f"jaccard_{group}_normalised", f"between chance and ceiling, {label}", unit="value",
             about="(J - chance) / (ceiling - chance).") for group, label in GROUP_LABELS.items()),
    *(Metric(f"mean_score_ratio_{group}", f"mean score ratio, {label}", unit="ratio",
             about="New set's mean score over the old.") for group, label in GROUP_LABELS.items()),
)  # fmt: skip
"""Subjects are arms, chance and the ceiling."""
METRICS = (*COMMON, *DRIFT, *OVERLAP)


def contrasts(evidence: Evidence) -> Iterator[Contrast]:
    """(a, b): b - a is compared."""
    config, held = evidence.config, evidence.config.freeze.group
    other = MATCHED[held]
    yield Contrast(equal.equal_topic_loss(held), dose(held, 1))
    yield Contrast(*TAKEOVER)
    yield Contrast(dose(other, 1), dose(held, 1))
    yield Contrast("baseline", dose(held, 1))
    yield Contrast("baseline", dose(other, 1), "control")
    yield Contrast("baseline", "free")
    yield Contrast("free", "frozen")
    yield Contrast("matched_frozen", "frozen", "control")
    yield Contrast(equal.equal_loss("free"), equal.equal_loss("frozen"))
    yield Contrast("free", f"free_undo_{held}")
    pairs = tuned_pairs(config)
    for pair in pairs:
        role: Role = "control" if pair.subject(pair.group) == "zero_new" else "exploratory"
        yield Contrast(pair.subject(pair.other), pair.subject(pair.group), role)
    for pair in (*base_pairs(config), *pairs):
        yield Contrast(pair.subject(pair.other) + EQUAL_COST, pair.subject(pair.group) + EQUAL_COST)
    yield Contrast(TAKEOVER[0] + EQUAL_COST, TAKEOVER[1] + EQUAL_COST)


def own(evidence: Evidence) -> Iterator[Measurement]:
    """Figures of groups of weights: drift on the way, ratios, overlaps."""
    yield from drift_ratios.measurements(Drift.read(evidence))
    yield from overlap_ratios.measurements(evidence)


# Claims

DRIFT_TESTS = {"drift_more": "H1", "drift_similar": "H2", "drift_less": "H3"}
DRIFT_RULE = (
    "log ratio of RMS change, matrices as units, layers as clusters: 90% within [.8, 1.25] similar; 95% beyond 1 and "
    "the point beyond the margin more or less"
)
OVERLAP_RULE = "the same rule on log(Jaccard with the base / Jaccard of the base's two halves)"


def claim(written: Claim, evidence: Evidence) -> Claim | Outcome:
    """A claim on drift or overlap decided by the ratio's rule; one on refusals as a test of a comparison."""
    held = evidence.config.freeze.group
    if written.test in DRIFT_TESTS:
        found = drift_ratios.verdict(Drift.read(evidence), "free", held)
        return by_ratio(found, DRIFT_TESTS[written.test], DRIFT_RULE)
    if written.test == "overlap_less":
        return by_ratio(overlap_ratios.verdict(evidence), "H3", OVERLAP_RULE)
    if written.test == "equal_cost_below":
        cost, a = equal.at_equal_topic_loss(evidence), equal.equal_topic_loss(held)
        note = "" if cost is None else cost[1]
        return replace(written, test="below", metric=REFUSAL, a=a, b=dose(held, 1), note=note)
    if written.test == "takeover_below":
        return replace(written, test="below", metric=REFUSAL, a=TAKEOVER[0], b=TAKEOVER[1])
    raise ValueError(f"{written.name}: no test {written.test!r}")


def by_ratio(found: RatioVerdict | None, wanted: str, rule: str) -> Outcome:
    """What the ratio's rule says of a claim: the range it finds is the claim's (supported) or another one
    (contradicted), or it finds none (inconclusive)."""
    if found is None:
        return Outcome("not tested", "nothing to compare", rule)
    if found.verdict == "undecided":
        return Outcome("inconclusive", found.because, rule)
    return Outcome("supported" if found.verdict == wanted else "contradicted", found.because, rule)


ANALYSIS = Analysis(
    metrics=METRICS,
    compared=equal.METRICS,
    contrasts=contrasts,
    tables=equal.tables,
    own=own,
    claim=claim,
    not_run="controls=true runs it",
)
