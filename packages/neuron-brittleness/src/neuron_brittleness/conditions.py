"""What is answered: a model with an intervention on a group of weights, and the pairs put at equal topic loss.

The topic loss is the mean loss of the reference replies to benign prompts (`reference_loss` in the results): what an
intervention costs the model's usefulness, so that refusal can be compared at equal cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from neuron_brittleness.arms import ARMS, MATCHED, ORIGINAL
from neuron_brittleness.measured import EQUAL_ARMS

if TYPE_CHECKING:
    from alignment_core.pipeline.step import Step
    from neuron_brittleness.config import BrittlenessConfig

Act = Literal["none", "zero", "undo", "keep"]
Side = Literal["", "before", "after"]
NEW = ("new", "new_matched")
"""What the frozen arm's critical set holds beyond the base's, and its matched random set."""
EQUAL_COST = "_equal_cost"
"""The end of a subject that stands at its pair's common topic loss."""


@dataclass(frozen=True)
class Condition:
    """One subject of the results: a model and what is done to it."""

    subject: str
    arm: str | None = None
    """The arm whose model it is; None for the base."""
    side: Side = ""
    """The measured step before or after the place of equal training loss; empty for the arm's end."""
    act: Act = "none"
    group: str = ""
    """The group that is acted on: one of the base's, or one of `NEW`."""
    share: float = 1.0
    """How much of the group."""


@dataclass(frozen=True)
class Pair:
    """An act on a group of weights, and on its matched random group, in one model."""

    arm: str | None
    act: Act
    group: str
    other: str

    def subject(self, group: str) -> str:
        """The subject of the whole group."""
        return "_".join(part for part in (self.arm, self.act, group) if part)

    def condition(self, group: str, share: float = 1.0) -> Condition:
        """The act on a share of one of its two groups."""
        return Condition(self.subject(group), self.arm, act=self.act, group=group, share=share)


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


def dose(group: str, share: float) -> str:
    """Subject of the base with a share of a group zeroed: `zero_set_diff_25` for a quarter, no number for all of it."""
    return f"zero_{group}" if share == 1 else f"zero_{group}_{100 * share:g}".replace(".", "p")


def base_conditions(config: BrittlenessConfig) -> list[Condition]:
    """The causal check on the base: the group and its matched random group in rising doses, other groups whole."""
    held = config.freeze.group
    doses = [
        Condition(dose(g, share), act="zero", group=g, share=share)
        for g in (held, MATCHED[held])
        for share in config.doses
    ]
    others = [g for g in ORIGINAL if g != held]
    return [Condition("baseline"), *doses, *(Condition(f"zero_{g}", act="zero", group=g) for g in others)]


def tuned_conditions(config: BrittlenessConfig) -> list[Condition]:
    """The arms at their ends, both arms around equal training loss, and the interventions on the tuned models."""
    out = [Condition(arm, arm) for arm in ARMS]
    sides: tuple[Side, ...] = ("before", "after")
    out += [Condition(f"{arm}_{side}", arm, side) for arm in EQUAL_ARMS for side in sides]
    if config.controls:
        out += [pair.condition(group) for pair in tuned_pairs(config) for group in (pair.group, pair.other)]
    return out


def base_pairs(config: BrittlenessConfig) -> list[Pair]:
    """The base's cell of the 2x2 ablation that no fine-tuning seed changes."""
    held = config.freeze.group
    return [Pair(None, "zero", held, MATCHED[held])]


def tuned_pairs(config: BrittlenessConfig) -> list[Pair]:
    """The other cells of the 2x2 ablation, and the rewinds."""
    held = config.freeze.group
    old = (held, MATCHED[held])
    cells = [Pair(None, "zero", *NEW), Pair("frozen", "zero", *old), Pair("frozen", "zero", *NEW)]
    return [*cells, Pair("free", "undo", *old), Pair("free", "keep", *old)]
