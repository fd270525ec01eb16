"""What a finished fine-tuning measured on its way, and where the free and the frozen arm have the same training loss.

The files are those of `probe.py`; reading them needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.io import read_json
from alignment_core.stats.trajectories import reach
from neuron_brittleness.arms import ARMS

if TYPE_CHECKING:
    from alignment_core.evaluation.analysis import Evidence

Measured = Sequence[Mapping[str, Any]]
"""The measurements of one arm in one seed, in the order of their steps."""
EQUAL_ARMS = ("free", "frozen")
"""The arms that are compared at equal training loss."""


def measurements(trained: Path) -> Measured:
    """Every measurement of a finished training step."""
    return [read_json(file) for file in sorted((trained / "drift").glob("drift_step_*.json"))]


@dataclass(frozen=True)
class Between:
    """A place on an arm's way, between two measured steps."""

    step: float
    before: int
    after: int
    weight: float
    """Of the later measured step; the earlier one has the rest."""

    def mix(self, before: Any, after: Any) -> Any:
        """A value at the place, from its values at the two measured steps."""
        return before * (1 - self.weight) + after * self.weight


def matched_step(free: Measured, frozen: Measured) -> dict[str, Between]:
    """Where each arm has the higher of the two arms' final training losses: the step at which its loss (linear between
    measured steps) first falls to that level."""
    curves = {
        arm: ([m["step"] for m in measured], [m["loss"] for m in measured])
        for arm, measured in zip(EQUAL_ARMS, (free, frozen), strict=True)
    }
    level = max(losses[-1] for _, losses in curves.values())
    return {arm: _between(steps, losses, level) for arm, (steps, losses) in curves.items()}


def _between(steps: Sequence[int], losses: Sequence[float], level: float) -> Between:
    at = reach(steps, losses, level).step
    after = next(i for i, step in enumerate(steps) if step >= at)
    before = max(0, after - 1) if steps[after] > at else after
    gap = steps[after] - steps[before]
    return Between(at, steps[before], steps[after], (at - steps[before]) / gap if gap else 1.0)


@dataclass(frozen=True)
class Drift:
    """What all fine-tunings of a run measured."""

    arms: Mapping[str, Mapping[int, Measured]]
    """By arm and training seed."""

    @classmethod
    def read(cls, evidence: Evidence) -> Drift:
        """From the steps that the study returned as `finetune_<arm>`."""
        steps = {arm: evidence.steps.get(f"finetune_{arm}", ()) for arm in ARMS}
        return cls({arm: {s.seed or 0: measurements(s.folder) for s in each} for arm, each in steps.items() if each})

    @cached_property
    def matched(self) -> dict[int, dict[str, Between]]:
        """By seed, where the free and the frozen arm have the same training loss."""
        free, frozen = (self.arms.get(arm, {}) for arm in EQUAL_ARMS)
        return {seed: matched_step(free[seed], frozen[seed]) for seed in free if seed in frozen}
