"""The models, groups and prompts of one answering step, and what each of its conditions does to a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.evaluation.answer import answer as answer_prompts
from alignment_core.evaluation.answer import reference_losses
from alignment_core.evaluation.files import write_places
from neuron_brittleness import ablation, rows
from neuron_brittleness.conditions import NEW
from neuron_brittleness.group_files import read_cells, read_group
from neuron_brittleness.groups import Group
from neuron_brittleness.matching import matched
from neuron_brittleness.measured import EQUAL_ARMS, Between, matched_step, measurements
from neuron_brittleness.tuned import model_of

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded
    from neuron_brittleness.conditions import Condition, Made, Side
    from neuron_brittleness.config import BrittlenessConfig


def new_groups(scored: Path, rescored: Path, held: str, seed: int) -> dict[str, Group]:
    """What the tuned model's critical set holds beyond the old one, and its matched random set."""
    new = read_group(rescored, "b", held).minus(read_group(scored, "a", held), NEW[0])
    match = Group(NEW[1])
    for name, cells in read_cells(scored).items():
        match.put(name, matched(new.mask(name), cells, f"new {name}", seed)[0])
    return {group.name: group for group in (new, match)}


class Answering:
    """The work of one answering step: the prompts, models and groups of its conditions, and where their files go."""

    def __init__(self, config: BrittlenessConfig, made: Made, folder: Path) -> None:
        self.config, self.made, self.folder = config, made, folder
        self.prompts = rows.prompts(made.split.folder)
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
        return model_of(self.config, None if arm is None else self.made.arms[arm].folder, step)

    def group(self, name: str) -> Group:
        """One of the base's groups, or one of `NEW`."""
        if name not in self._groups:
            self._groups[name] = read_group(self.made.scored.folder, "a", name)
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
