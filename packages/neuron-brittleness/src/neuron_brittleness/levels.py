"""Interventions at equal topic loss: a group and its matched random group, the costlier one cut to the other's cost.

What an intervention does to refusals can only be read beside a control that harms the model as much. Of each pair the
whole of both groups is acted on first. The side that moves the topic loss further is then done to a random share of
its group alone, nested in larger shares and found by bisection, so that its topic loss is within `TOLERANCE` of the
other side's. Nothing is interpolated: the replies are those of models with equal topic losses. Where the two sides
move the loss in opposite ways there is no such share, and the pair is left out and named in `levels.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignment_core.evaluation.answer import write_losses
from alignment_core.evaluation.files import COMPLETIONS
from alignment_core.io import read_jsonl
from alignment_core.pipeline.writers import write_json, write_jsonl
from alignment_core.records import Completion
from neuron_brittleness.conditions import EQUAL_COST

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded
    from alignment_core.pipeline.step import Step
    from neuron_brittleness.conditions import Made, Pair
    from neuron_brittleness.config import BrittlenessConfig
    from neuron_brittleness.interventions import Answering

TOLERANCE = 0.005
"""Topic losses this near to each other, as a share of the level, are equal."""
HALVINGS = 12


@dataclass(frozen=True)
class Cut:
    """How much of a group's whole is acted on, and the topic loss there."""

    share: float
    loss: float


def cut(loss_of: Callable[[float], float], full: float, level: float) -> Cut:
    """The share at which the topic loss is the level, which lies between those of no share and of the whole."""
    low, high, best = 0.0, 1.0, Cut(1.0, full)
    for _ in range(HALVINGS):
        share = (low + high) / 2
        loss = loss_of(share)
        if abs(loss - level) < abs(best.loss - level):
            best = Cut(share, loss)
        if abs(loss - level) <= TOLERANCE * level:
            break
        low, high = (low, share) if (loss > level) == (full > level) else (share, high)
    return best


def equalise(start: float, full: tuple[float, float], losses: tuple[Callable[[float], float], ...]) -> list[Cut] | None:
    """Both sides of a pair at a common topic loss; None where the two move it in opposite ways."""
    whole = [Cut(1.0, loss) for loss in full]
    moved = [loss - start for loss in full]
    nearer = int(abs(moved[1]) < abs(moved[0]))
    level = full[nearer]
    if abs(full[0] - full[1]) <= TOLERANCE * level:
        return whole
    if moved[0] * moved[1] <= 0:
        return None
    whole[1 - nearer] = cut(losses[1 - nearer], full[1 - nearer], level)
    return whole


def answer(config: BrittlenessConfig, pairs: Sequence[Pair], made: Made, answered: Step, folder: Path) -> None:
    """Replies and losses of both sides of each pair that has a common cost, and `levels.json` about all pairs.

    The replies of a side that is not cut are those of its condition in `answered`.
    """
    from neuron_brittleness.interventions import Answering

    work = Answering(config, made, folder)
    subjects: list[str] = []
    facts: list[dict[str, Any]] = []
    for pair in pairs:
        loaded = work.load(pair.arm)
        mean = [partial(_mean_loss, work, loaded, pair, group) for group in (pair.group, pair.other)]
        start, full = mean[0](0.0), (mean[0](1.0), mean[1](1.0))
        found = equalise(start, full, tuple(mean))
        facts.append({"pair": asdict(pair), "start": start, "whole": full, "sides": [asdict(c) for c in found or ()]})
        for group, side in zip((pair.group, pair.other), found or (), strict=False):
            subjects.append(_side(work, loaded, pair, group, side, answered))
    work.write_subjects(subjects)
    write_json(folder / "levels.json", facts)


def _mean_loss(work: Answering, loaded: Loaded, pair: Pair, group: str, share: float) -> float:
    return float(np.mean([row["loss"] for row in work.losses(loaded, pair.condition(group, share))]))


def _side(work: Answering, loaded: Loaded, pair: Pair, group: str, side: Cut, answered: Step) -> str:
    """Files of one side of a pair at the common cost; returns its subject."""
    subject, condition = pair.subject(group) + EQUAL_COST, pair.condition(group, side.share)
    if side.share < 1:
        work.replies(loaded, condition, subject)
    else:
        same = read_jsonl(answered / pair.subject(group) / COMPLETIONS, Completion.from_json)
        write_jsonl(work.place(subject) / COMPLETIONS, [replace(c, subject=subject) for c in same])
    write_losses(work.place(subject), work.losses(loaded, condition))
    return subject
