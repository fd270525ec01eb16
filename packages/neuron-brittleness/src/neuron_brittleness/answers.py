"""Conditions put to the held-out prompts: replies and reference losses of each, in a folder of its own.

No server can hold zeroed weights or a masked adapter, and conditions are compared with each other: all replies are
made here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from alignment_core.evaluation.answer import answer as answer_prompts
from alignment_core.evaluation.answer import reference_losses, write_losses
from alignment_core.evaluation.state import write_places
from alignment_core.models.load import Loaded
from alignment_core.pipeline.step import Step
from neuron_brittleness import ablation, data, scoring, training
from neuron_brittleness.conditions import NEW, Condition, Side
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.groups import Group, matched
from neuron_brittleness.measured import EQUAL_ARMS, Between, matched_step, measurements

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """The finished steps that conditions are made of."""

    split: Step
    scored: Step
    arms: Mapping[str, Step] = field(default_factory=dict)
    rescored: Step | None = None
    """The frozen arm's scores."""

    @property
    def steps(self) -> list[Step]:
        """All of them."""
        return [s for s in (self.split, self.scored, *self.arms.values(), self.rescored) if s is not None]

    @property
    def seed(self) -> int | None:
        """The training seed; None for the base, which is the same for all."""
        return None if self.rescored is None else self.rescored.seed


def new_groups(scored: Path, rescored: Path, held: str, seed: int) -> dict[str, Group]:
    """What the tuned model's critical set holds beyond the old one, and its matched random set."""
    new = scoring.read_group(rescored, "b", held).minus(scoring.read_group(scored, "a", held), NEW[0])
    match = Group(NEW[1])
    for name, cells in scoring.read_cells(scored).items():
        match.put(name, matched(new.mask(name), cells, f"new {name}", seed)[0])
    return {group.name: group for group in (new, match)}


class Answering:
    """The work of one answering step: the prompts, models and groups of its conditions, and where their files go."""

    def __init__(self, config: BrittlenessConfig, made: Made, folder: Path) -> None:
        self.config, self.made, self.folder = config, made, folder
        self.prompts = data.prompts(made.split.folder)
        self._groups: dict[str, Group] = {}
        if made.rescored is not None:
            held, base = config.freeze.group, config.data.split_seed
            self._groups |= new_groups(made.scored.folder, made.rescored.folder, held, base)

    @cached_property
    def _at(self) -> dict[str, Between]:
        """Where the free and the frozen arm have the same training loss."""
        return matched_step(*(measurements(self.made.arms[arm].folder) for arm in EQUAL_ARMS))

    def load(self, arm: str | None, side: Side = "") -> Loaded:
        """The base (None), or an arm's model: at its end, or at a measured step beside equal training loss."""
        step = None if arm is None or not side else getattr(self._at[arm], side)
        return training.model_of(self.config, None if arm is None else self.made.arms[arm].folder, step)

    def group(self, name: str) -> Group:
        """One of the base's groups, or one of `NEW`."""
        if name not in self._groups:
            self._groups[name] = scoring.read_group(self.made.scored.folder, "a", name)
        return self._groups[name]

    @contextmanager
    def act(self, loaded: Loaded, condition: Condition) -> Iterator[None]:
        """What the condition does to the model, undone afterwards; the split seed draws its share of the group."""
        act: Any = nullcontext()
        if condition.act != "none":
            part = self.group(condition.group)
            if condition.share < 1:
                part = part.part(condition.share, self.config.data.split_seed, condition.subject)
            does = {"zero": ablation.zeroed, "undo": ablation.rewound, "keep": ablation.only}[condition.act]
            act = does(loaded.model, part)
        with act:
            yield

    def losses(self, loaded: Loaded, condition: Condition) -> list[dict[str, Any]]:
        """Rows of `losses.jsonl`: the loss of each benign prompt's reference under the condition."""
        with self.act(loaded, condition):
            return reference_losses(loaded, self.prompts, self.config.generate.batch_size)

    def replies(self, loaded: Loaded, condition: Condition, subject: str) -> None:
        """Greedy replies under the condition in `<subject>/completions.jsonl`."""
        how, place = self.config.generate.here(), self.place(subject)
        with self.act(loaded, condition):
            answer_prompts(loaded, self.prompts, how, place, subject=subject, seed=self.made.seed)

    def place(self, subject: str) -> Path:
        """The folder of a subject's files."""
        place = self.folder / subject
        place.mkdir(exist_ok=True)
        return place

    def write_subjects(self, subjects: Iterable[str]) -> None:
        """Say which subjects the step holds."""
        write_places(self.folder, [(subject, {}, subject) for subject in subjects])


def answer(config: BrittlenessConfig, conditions: Sequence[Condition], made: Made, folder: Path) -> None:
    """Replies and losses of every condition; conditions on one model are done one after the other."""
    if config.generate.endpoint is not None:
        log.warning("replies of zeroed and masked models, and of those compared with them, are made here: no server "
                    "can hold such weights (the endpoint answered for the safety data)")  # fmt: skip
    work = Answering(config, made, folder)
    for arm, side in dict.fromkeys((c.arm, c.side) for c in conditions):
        loaded = work.load(arm, side)
        for condition in [c for c in conditions if (c.arm, c.side) == (arm, side)]:
            work.replies(loaded, condition, condition.subject)
            write_losses(work.place(condition.subject), work.losses(loaded, condition))
    work.write_subjects(condition.subject for condition in conditions)
