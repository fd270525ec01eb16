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
from pathlib import Path
from typing import Any

import numpy as np

from alignment_core.io import read_jsonl, write_json, write_jsonl
from alignment_core.models.generate import generate
from alignment_core.models.score import ReplyLoss, reply_loss
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Completion
from neuron_brittleness import data, evaluation, scoring, training
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.evaluation import Act, Condition
from neuron_brittleness.groups import Group

TOLERANCE = 0.005
"""Topic losses this near to each other, as a share of the level, are equal."""
HALVINGS = 12
END = "_equal_cost"
"""The end of a subject that stands at its pair's common topic loss."""


@dataclass(frozen=True)
class Pair:
    """An act on a group of weights, and on its matched random group, in one model."""

    arm: str | None
    act: Act
    group: str
    other: str

    def subject(self, group: str) -> str:
        """The subject of the whole group, as the evaluation names it."""
        return "_".join(part for part in (self.arm, self.act, group) if part)


def base_pairs(config: BrittlenessConfig) -> list[Pair]:
    """The base's cell of the 2x2 ablation that no fine-tuning seed changes."""
    held = config.freeze.group
    return [Pair(None, "zero", held, scoring.MATCHED[held])]


def tuned_pairs(config: BrittlenessConfig) -> list[Pair]:
    """The other cells of the 2x2 ablation, and the rewinds."""
    held, new = config.freeze.group, ("new", "new_matched")
    old = (held, scoring.MATCHED[held])
    cells = [Pair(None, "zero", *new), Pair("frozen", "zero", *old), Pair("frozen", "zero", *new)]
    return [*cells, Pair("free", "undo", *old), Pair("free", "keep", *old)]


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


def answer(
    config: BrittlenessConfig,
    pairs: Sequence[Pair],
    dealt: Path,
    scored: Path,
    arms: dict[str, Path],
    extra: dict[str, Group],
    seed: int | None,
    folder: Path,
    answered: Path,
) -> None:
    """Replies and losses of both sides of each pair, as the evaluation writes them, and `levels.json`.

    The replies of a side that is not cut are those of the evaluation in `answered`.
    """
    asked, how = data.prompts(dealt), config.generate.here()
    referenced = [p for p in asked if p.reference]
    subjects: list[str] = []
    facts: list[dict[str, Any]] = []
    for pair in pairs:
        loaded = training.model_of(config, arms[pair.arm] if pair.arm else None)
        names = (pair.group, pair.other)
        known = {n: extra[n] if n in extra else scoring.read_group(scored, "a", n) for n in names}

        def losses(
            name: str, share: float, pair: Pair = pair, loaded: Any = loaded, known: dict[str, Group] = known
        ) -> list[ReplyLoss]:
            with evaluation.intervention(loaded.model, _condition(pair, name, share), known, config.data.split_seed):
                return reply_loss(loaded, referenced, batch_size=config.generate.batch_size)

        mean = {n: _mean_of(losses, n) for n in names}
        start, full = mean[names[0]](0.0), (mean[names[0]](1.0), mean[names[1]](1.0))
        found = equalise(start, full, tuple(mean[n] for n in names))
        sides = [] if found is None else [asdict(c) for c in found]
        facts.append({"pair": asdict(pair), "start": start, "whole": full, "sides": sides})
        for name, side in zip(names, found or (), strict=False):
            subject = pair.subject(name) + END
            subjects.append(subject)
            file = folder / f"{subject}.jsonl"
            if side.share < 1:
                condition = _condition(pair, name, side.share)
                with evaluation.intervention(loaded.model, condition, known, config.data.split_seed):
                    generate(asked, how, loaded, subject=subject, seed=seed or 0, file=file)
            elif process_group().is_main:
                same = read_jsonl(answered / f"{pair.subject(name)}.jsonl", Completion.from_json)
                write_jsonl(file, [replace(c, subject=subject) for c in same])
            given = [{"prompt_id": f.prompt_id, "loss": f.loss} for f in losses(name, side.share) if f.tokens]
            if process_group().is_main:
                write_jsonl(folder / f"losses_{subject}.jsonl", given)
    if process_group().is_main:
        write_json(folder / "levels.json", facts)
        write_json(folder / "subjects.json", subjects)


def _condition(pair: Pair, name: str, share: float) -> Condition:
    return Condition(pair.subject(name), pair.arm, act=pair.act, group=name, share=share)


def _mean_of(losses: Callable[[str, float], list[ReplyLoss]], name: str) -> Callable[[float], float]:
    return lambda share: float(np.mean([f.loss for f in losses(name, share) if f.tokens]))
