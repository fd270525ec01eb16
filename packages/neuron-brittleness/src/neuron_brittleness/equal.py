"""Values that stand at an equal level: of training loss, of topic loss, and of what zeroing costs (the take-over).

Each is a `Table` of the core, measured, compared and decided like the states it is made of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from alignment_core.evaluation.analysis import Evidence
from alignment_core.evaluation.metrics import COMMON, named
from alignment_core.evaluation.state import State
from alignment_core.evaluation.tables import Table, same_prompts, table
from alignment_core.stats.layout import Floats
from alignment_core.stats.trajectories import Reached, reach, value_at
from neuron_brittleness.arms import MATCHED
from neuron_brittleness.conditions import EQUAL_COST, NEW, dose
from neuron_brittleness.measured import EQUAL_ARMS, Drift

REFUSAL, TOPIC_LOSS = "harmful_refusal_rate", "reference_loss"
METRICS = (REFUSAL, "false_refusal_rate", "helpful_rate", TOPIC_LOSS)
"""What is compared of every two subjects."""
TAKEOVER = ("base_new_minus_matched", "frozen_new_minus_matched")
"""Refusals with the new set zeroed minus with its matched set zeroed, in the base and in the frozen arm's model."""


def equal_loss(arm: str) -> str:
    """The subject of an arm where the free and the frozen one have the same training loss."""
    return f"{arm}_at_equal_loss"


def equal_topic_loss(group: str) -> str:
    """The subject of the base with so much of the matched group zeroed that it costs what zeroing the group costs."""
    return f"zero_{MATCHED[group]}_at_equal_topic_loss"


def tables(evidence: Evidence) -> Iterator[Table]:
    """All that this module makes of a run's states."""
    drift = Drift.read(evidence)
    for arm in EQUAL_ARMS:
        for metric in METRICS:
            found = at_equal_loss(evidence, drift, arm, metric)
            if found is not None:
                yield found
    cost = at_equal_topic_loss(evidence)
    if cost is not None:
        yield cost[0]
    for end in ("", EQUAL_COST):
        yield from takeover(evidence, end)


def _table(evidence: Evidence, subject: str, metric: str, seeds: Collection[int | None] | None = None) -> Table | None:
    """A metric of a subject, of the given seeds (None: all that have it); None where it was not measured."""
    states: Sequence[State] = evidence.states.get(subject, ())
    if seeds is not None:
        states = [one for one in states if one.seed in seeds]
    return table(named(COMMON)[metric], states) if states else None


def at_equal_loss(evidence: Evidence, drift: Drift, arm: str, metric: str) -> Table | None:
    """An arm's values where both arms have the same training loss, linear between its two measured steps."""
    sides = [_table(evidence, f"{arm}_{side}", metric) for side in ("before", "after")]
    if sides[0] is None or sides[1] is None:
        return None
    before, after = same_prompts(sides[0], sides[1])
    places = [drift.matched[seed][arm] for seed in after.seeds if seed is not None]
    columns = [at.mix(before.values[:, i], after.values[:, i]) for i, at in enumerate(places)]
    return replace(after, subject=equal_loss(arm), values=np.stack(columns, axis=1), completions=())


def at_equal_topic_loss(evidence: Evidence) -> tuple[Table, str] | None:
    """Harmful refusals of the base with so much of the matched group zeroed that the topic loss is that of the whole
    group zeroed, and where that is, in words.

    The matched group's curve over its doses is read, linear between them, where its topic loss first reaches the
    group's; where it never does it is read at its last dose, and the words say so.
    """
    group, doses = evidence.config.freeze.group, evidence.config.doses
    subjects = ["baseline", *(dose(MATCHED[group], share) for share in doses)]
    curve = [_table(evidence, subject, REFUSAL) for subject in subjects]
    losses = [_mean_loss(evidence, subject) for subject in (*subjects, f"zero_{group}")]
    refusals = [one for one in curve if one is not None]
    if len(refusals) < len(curve) or np.isnan(losses).any():
        return None
    grid, level = np.array([0.0, *doses]), losses[-1]
    at = reach(grid, -np.array(losses[:-1]), -level)
    values: Floats = value_at(grid, np.stack([one.values for one in refusals], axis=-1), at.step)
    made = replace(refusals[0], subject=equal_topic_loss(group), values=values, completions=())
    return made, _cost(at, level)


def _mean_loss(evidence: Evidence, subject: str) -> float:
    found = _table(evidence, subject, TOPIC_LOSS)
    return float("nan") if found is None else float(np.nanmean(found.values))


def _cost(at: Reached, level: float) -> str:
    reached = "" if at.reached else " (its last dose: it never costs as much)"
    return f"topic loss {level:.3f} is reached at {at.step:.0%} of the matched group{reached}"


def takeover(evidence: Evidence, end: str = "") -> Iterator[Table]:
    """Of the base and of the frozen arm: harmful refusals with the new set zeroed minus with its matched set zeroed.

    `end` is the end of the four subjects: of that at equal topic loss there are the seeds in which both models have it.
    """
    cells = [[f"{model}zero_{group}{end}" for group in NEW] for model in ("", "frozen_")]
    there = [{one.seed for one in evidence.states.get(subject, ())} for cell in cells for subject in cell]
    seeds = set.intersection(*there)
    for subject, (new, other) in zip(TAKEOVER, cells, strict=True):
        sides = [_table(evidence, one, REFUSAL, seeds) for one in (new, other)]
        if sides[0] is not None and sides[1] is not None:
            a, b = same_prompts(sides[0], sides[1])
            values = a.values - b.values
            yield replace(a, subject=subject + end, values=values, span=(-1.0, 1.0), completions=())
