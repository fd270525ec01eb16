"""What an arm's trajectory comes to: refusal at matched attack loss, and the area under its curve.

Primary summary: refusal at matched held-out attack loss. The level, of each seed, is where vanilla has made half of
its total fall; an arm's refusal is read where its own loss first falls to it, linear between evaluated steps. An arm
that never gets there is read at its last step, and marked. Second: the area under each prompt's refusal curve over
log(1 + step).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alignment_core.stats.trajectories import area, reach, value_at
from orth_refusal.metrics import HELPFUL, REFUSAL, Floats, Point, Trajectory, clusters, curves

Arms = Mapping[str, Sequence[Trajectory]]
"""Of each subject its trajectories, one a training seed; the baseline has one, the seed None."""
MATCHED, AREA, HELPFUL_MATCHED = "refusal_at_matched_loss", "refusal_area", "helpful_at_matched_loss"
STEPS, REACHED = "steps_to_matched_loss", "reached_matched_loss"


@dataclass(frozen=True)
class Summary:
    """One arm and seed: per-prompt values [P] at the matched loss, per-prompt areas [P], and where it was read."""

    refusal: Floats
    area: Floats
    helpful: Floats
    step: float
    reached: bool


def base_of(arms: Arms, seed: int | None) -> Point:
    """The point every arm of a seed starts from: a fresh adapter changes nothing."""
    return next(t for t in arms["baseline"] if t.seed in (None, seed)).points[0]


def level(base: Point, vanilla: Trajectory) -> float:
    """The held-out attack loss at which vanilla has made half of its total fall (to its lowest evaluated loss)."""
    losses = [base.loss("attack"), *(p.loss("attack") for p in vanilla.points)]
    return (losses[0] + min(losses)) / 2


def summary(base: Point, arm: Trajectory, matched: float) -> Summary:
    """The arm at the matched loss, and its area."""
    steps = (0, *arm.steps)
    losses = [base.loss("attack"), *(p.loss("attack") for p in arm.points)]
    found = reach(steps, losses, matched)
    refused, helpful = curves(REFUSAL, base, arm), curves(HELPFUL, base, arm)
    return Summary(
        value_at(steps, refused, found.step),
        area(steps, refused),
        value_at(steps, helpful, found.step),
        found.step,
        found.reached,
    )


def summaries(arms: Arms) -> dict[str, list[Summary]]:
    """Of every attack its summaries, one a seed in the seeds' order."""
    levels = {t.seed: level(base_of(arms, t.seed), t) for t in arms.get("vanilla", ())}
    return {
        name: [summary(base_of(arms, t.seed), t, levels[t.seed]) for t in each if t.seed in levels]
        for name, each in arms.items()
        if name not in ("baseline", "refusal_lora")
    }


def places(arms: Arms) -> dict[str, list[str]]:
    """Of each summary the clusters of its prompts."""
    base = arms["baseline"][0].points[0]
    return {MATCHED: clusters(REFUSAL, base), AREA: clusters(REFUSAL, base), HELPFUL_MATCHED: clusters(HELPFUL, base)}


def columns(metric: str, each: Sequence[Summary]) -> Floats:
    """A summary of every prompt and seed, [P, S]."""
    read = {MATCHED: "refusal", AREA: "area", HELPFUL_MATCHED: "helpful"}[metric]
    return np.stack([getattr(s, read) for s in each], axis=1)
