"""What a plan and a step's key need to know of an arm: its settings, what it reads, what it does in a phrase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment_core.pipeline.step import Step
from orth_refusal import data
from orth_refusal.arms import Arm
from orth_refusal.attack import settings_of
from orth_refusal.config import OrthConfig


def about(config: OrthConfig, arm: Arm) -> str:
    """The arm's training in a phrase."""
    train = settings_of(config, arm)
    equal = train.epochs == config.attack.epochs and train.max_steps == config.attack.max_steps
    said = train.describe(data.size(config.data, "attack"))
    return said if equal else f"{said}; CONFOUNDED: other epochs than vanilla's, so that nothing is decided"


def slice_of(config: OrthConfig, arm: Arm) -> dict[str, Any]:
    """The settings that decide an arm, for its step's key."""
    own = {"penalty": config.penalty, "kl": config.kl, "replay": config.replay_share}.get(arm.special)
    return {
        "train": settings_of(config, arm),
        "lora": config.lora,
        "points": config.points,
        "arm": [arm.space, arm.source, arm.special],
        "strength": own,
    }


def read_by(arm: Arm, split: Step, steps: Mapping[str, Step]) -> list[Step]:
    """The steps an arm reads: data, the refusal direction for the meter, vanilla's budget, and what its rule needs."""
    names = ["direction", "merged"]
    if arm.name != "vanilla":
        names.append("vanilla")
    if arm.source in ("benign", "oracle"):
        names.append(f"direction_{arm.source}")
    names += {"shrunk": ["left"], "penalty": ["direction_contrast"]}.get(arm.special, [])
    return [split, *(steps[name] for name in names if name in steps)]
