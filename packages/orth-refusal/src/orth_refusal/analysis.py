"""Paired differences of the arms' summaries, and the hypotheses decided by them.

Primary contrast: projection minus its random control, crossed over prompts and training seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignment_core.evaluation import hypotheses as claims
from alignment_core.evaluation.hypotheses import Claim
from alignment_core.evaluation.rates import agreements as core_agreements
from alignment_core.evaluation.results import Agreement, Comparison, Hypothesis
from alignment_core.stats.paired import PairedResult, one_run, over_runs
from alignment_core.stats.trajectories import max_t
from orth_refusal.arms import CONTROL_OF
from orth_refusal.summaries import AREA, HELPFUL_MATCHED, MATCHED, Arms, Summary, columns, places, summaries

CONTRASTS: tuple[tuple[str, str], ...] = (
    *((control, arm) for arm, control in CONTROL_OF.items()),
    *(("vanilla", arm) for arm in CONTROL_OF),
    ("benign_left", "left"),
    ("shrunk", "left"),
    ("half_lr", "left"),
    ("quarter_lr", "left"),
    ("oracle_left", "left"),
    ("replay", "left"),
    ("kl", "left"),
    ("vanilla", "penalty"),
    ("vanilla", "replay"),
    ("vanilla", "kl"),
    ("vanilla", "random_left"),
)
"""(a, b): b − a is compared."""


def compared(metric: str, a: Sequence[Summary], b: Sequence[Summary], groups: Sequence[str]) -> PairedResult | None:
    """b − a over prompts, and over seeds where there are several."""
    if not a or not b or not groups:
        return None
    run = over_runs if len(a) > 1 else one_run
    return run(columns(metric, a), columns(metric, b), groups)


def comparisons(arms: Arms, equal: bool) -> tuple[list[Comparison], tuple[Hypothesis, ...]]:
    """Every contrast on every summary, for each seed and over the seeds, and the hypotheses decided by them.

    `equal` False (the confounded set-up): nothing is decided.
    """
    each, where = summaries(arms), places(arms)
    found: list[Comparison] = []
    for a, b in CONTRASTS:
        if a in each and b in each:
            for metric in (MATCHED, AREA, HELPFUL_MATCHED):
                found += _differences(metric, a, b, arms, each, where[metric])
    decided = claims.decide(claims.read("orth_refusal"), lambda claim: _tested(claim, each, where, equal))
    marked = decided.marked(found, several=any(len(s) > 1 for s in each.values()))
    return [*_areas_together(marked, each)], decided.hypotheses


def _tested(
    claim: Claim, each: Mapping[str, list[Summary]], where: Mapping[str, list[str]], equal: bool
) -> PairedResult | str:
    """The comparison that a claim is about, or why there is none."""
    if not equal:
        return "The arms' budgets are unequal by design: confounded, nothing can be decided."
    if missing := [s for s in (claim.a, claim.b) if not each.get(s)]:
        return f"Not run: {', '.join(missing)}; --controls runs it."
    found = compared(claim.metric, each[claim.a], each[claim.b], where[claim.metric])
    return found or "Nothing to compare."


def _differences(
    metric: str, a: str, b: str, arms: Arms, each: Mapping[str, list[Summary]], groups: Sequence[str]
) -> Iterator[Comparison]:
    role: Any = "exploratory" if a in CONTROL_OF.values() or a == "vanilla" else "control"
    for one, left, right in zip(arms[b], each[a], each[b], strict=True):
        result = compared(metric, [left], [right], groups)
        if result is not None:
            yield Comparison.of(metric, a, b, result, seed=one.seed, role=role)
    if len(each[b]) > 1 and (result := compared(metric, each[a], each[b], groups)) is not None:
        yield Comparison.of(metric, a, b, result, role=role)


def _areas_together(found: list[Comparison], each: Mapping[str, list[Summary]]) -> Iterator[Comparison]:
    """The areas of the projections minus their random controls: p adjusted over the arms by max-T over the seeds."""
    pairs = [(control, arm) for arm, control in CONTROL_OF.items() if arm in each and control in each]
    adjusted: dict[tuple[str, str], float] = {}
    if pairs and len(each[pairs[0][1]]) > 1:
        d = [(columns(AREA, each[b]) - columns(AREA, each[a])).mean(axis=0) for a, b in pairs]
        adjusted = dict(zip(pairs, max_t(d).p_adjusted, strict=True))
    for c in found:
        if c.metric == AREA and c.seed is None and (c.a, c.b) in adjusted:
            c = c.model_copy(update={"family": "areas, max-T", "p_adjusted": adjusted[c.a, c.b]})
        yield c


def agreements(arms: Arms) -> list[Agreement]:
    """Cohen's kappa of every two judges on refusal, over the replies at the attacks' ends."""
    given = [v for each in arms.values() for one in each for judged in one.last.by_judge.values()
             for v in judged.values()]  # fmt: skip
    return core_agreements(given, binary=True)
