"""What a step that attacks does: one arm on the one budget, steered by the arm's rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.io import recover_jsonl
from alignment_core.models.train import sft
from orth_refusal import rows as built
from orth_refusal.files import METER, ORIGINAL_NAMES, original_log
from orth_refusal.start import start_model

if TYPE_CHECKING:
    from alignment_core.config import TrainSettings
    from alignment_core.pipeline.step import Step
    from orth_refusal.arms import Arm
    from orth_refusal.config import OrthConfig
    from orth_refusal.steering import Rule

SPACES = {"factor_gradient": "factor", "factor_update": "factor", "delta": "delta", "left": "left"}


def rule_of(config: OrthConfig, arm: Arm, steps: Mapping[str, Step]) -> Rule:
    """What is done to this arm's updates."""
    from orth_refusal import steering
    from orth_refusal.directions import Directions

    if arm.special == "shrunk":
        return steering.Shrunk([row["length"] for row in recover_jsonl(steps["left"] / METER)])
    if arm.special == "penalty":
        contrast = Directions.load(steps["direction_contrast"] / "contrast_factor.safetensors")
        return steering.Penalty(contrast, config.penalty)
    if arm.special == "kl":
        return steering.KlToBase(config.kl)
    if arm.space is None:
        return steering.Rule()
    place = "direction" if arm.source in ("refusal", "random") else f"direction_{arm.source}"
    direction = Directions.load(steps[place] / f"{arm.source}_{SPACES[arm.space]}.safetensors")
    kinds = {
        "factor_gradient": steering.FactorGradient,
        "factor_update": steering.FactorUpdate,
        "delta": steering.DeltaTangent,
        "left": steering.LeftSubspace,
    }
    return kinds[arm.space](direction)


def settings_of(config: OrthConfig, arm: Arm) -> TrainSettings:
    """The arm's training: the attack's, at the arm's learning rate; other epochs only in the confounded set-up."""
    train = config.attack.model_copy(update={"lr": config.attack.lr * arm.lr})
    if config.projected_epochs is not None and arm.space is not None:
        train = train.model_copy(update={"epochs": config.projected_epochs, "max_steps": None})
    return train


def attack(config: OrthConfig, arm: Arm, seed: int, split: Path, steps: Mapping[str, Step], folder: Path) -> None:
    """One attack: adapter, snapshots, meter, ledger, budget checked against vanilla's, and the original's loss log."""
    from orth_refusal import budget
    from orth_refusal.directions import Directions
    from orth_refusal.steering import Steering

    rows = built.examples(split, "attack")
    if arm.special == "replay":
        rows = built.replayed(rows, built.examples(split, "refusal"), config.replay_share, seed)
    train = settings_of(config, arm)
    refusal = Directions.load(steps["direction"] / "refusal_delta.safetensors")
    steer = Steering(rule_of(config, arm, steps), refusal, folder, config.points)
    sft(
        rows,
        model=start_model(config, steps),
        lora=config.lora,
        train=train,
        seed=seed,
        folder=folder,
        callbacks=[budget.Ledger(folder, train.lr, seed), steer],
    )
    if arm.name != "vanilla" and config.projected_epochs is None:
        share = config.replay_share if arm.special == "replay" else 0.0
        budget.check(steps["vanilla"].folder, folder, replayed=share)
    original_log(folder, ORIGINAL_NAMES.get(arm.name, arm.name), train)
