"""Training: the refusal adapter and its controls, the directions read from them, and every attack on one budget."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment_core.config import ModelSettings, TrainSettings
from alignment_core.io import recover_jsonl, write_json
from alignment_core.models import load
from alignment_core.models.train import sft
from alignment_core.pipeline.run import Step
from alignment_core.pipeline.writers import rank_zero_only
from orth_refusal import budget, data, directions, steering
from orth_refusal.arms import METER, ORIGINAL_NAMES, Arm
from orth_refusal.config import OrthConfig
from orth_refusal.directions import Adapter, Directions
from orth_refusal.steering import SNAPSHOTS, Rule, Steering

log = logging.getLogger(__name__)

SPACES = {"factor_gradient": "factor", "factor_update": "factor", "delta": "delta", "left": "left"}


def tune(config: OrthConfig, seed: int, split: Path, part: str, folder: Path) -> None:
    """An adapter on one side of the data (`refusal`, `benign`, `red`); `snapshots/0.safetensors` keeps its start."""
    rows = data.examples(split, part)
    most = len(data.examples(split, "refusal"))
    train = config.refusal
    sft(rows[:most], model=config.model, lora=config.lora, train=train, seed=seed, folder=folder,
        callbacks=[steering.Snapshots(folder, 1)])  # fmt: skip
    original_log(folder, part, train)


def trained(step: Step, base: Mapping[str, Any]) -> tuple[Adapter, Mapping[str, Any]]:
    """A tuned adapter and the factors it started from."""
    now = directions.read_adapter(step / "adapter", dict(base))
    return now, directions.read_weights(step / f"{SNAPSHOTS}/0.safetensors")


def read_directions(config: OrthConfig, seed: int, source: str, steps: Mapping[str, Step], folder: Path) -> None:
    """`<source>_<space>.safetensors` for what a source's adapter gives, and `directions.json` that describes them.

    `refusal`: factor, delta and left, and of each a random one of the same shape; `benign`, `oracle`: left;
    `contrast`: the original's blue − red in factor space.
    """
    base = load.identity(config.model)["weights"]
    found: dict[str, Directions] = {}
    if source == "contrast":
        blue, red = (trained(steps[name], base)[0] for name in ("refusal", "red"))
        found["contrast_factor"] = directions.contrast(blue, red)
    else:
        base = load.identity(start_model(config, steps))["weights"] if source == "oracle" else base
        now, start = trained(steps["vanilla" if source == "oracle" else source], base)
        found[f"{source}_left"] = directions.left(now, config.direction.rank, start)
        if source == "refusal":
            raw = config.direction.factor == "raw"
            found["refusal_factor"] = directions.factor(now, None if raw else start)
            found["refusal_delta"] = directions.delta(now, start)
            for name in ("factor", "delta", "left"):
                found[f"random_{name}"] = directions.random_like(found[f"refusal_{name}"], seed)
    for name, direction in found.items():
        direction.save(folder / f"{name}.safetensors")
    about = [directions.describe(d, folder / f"{name}.safetensors") for name, d in found.items()]
    write_json(folder / "directions.json", about)
    for row in about:
        if row["space"] == "left":
            log.info("%s: removes %.2f%% of the left dimensions", row["file"], 100 * float(str(row["removed_share"])))


def merge(config: OrthConfig, refusal: Step, folder: Path) -> None:
    """The base with the refusal adapter merged into it, as a model folder `model/`: the second set-up's start."""
    loaded = load.load(config.model.model_copy(update={"quantize": "none"}), refusal / "adapter")
    merged = loaded.model.merge_and_unload()
    merged.save_pretrained(folder / "model")
    loaded.tokenizer.save_pretrained(folder / "model")


def start_model(config: OrthConfig, steps: Mapping[str, Step]) -> ModelSettings:
    """The model every attack starts from."""
    if config.setup == "base":
        return config.model
    family = "own" if config.model.name == "organism" else config.model.template  # the organism's comes with its folder
    return config.model.model_copy(
        update={"name": str(steps["merged"] / "model"), "revision": None, "template": family, "quantize": "none"}
    )


def rule_of(config: OrthConfig, arm: Arm, steps: Mapping[str, Step]) -> Rule:
    """What is done to this arm's updates."""
    if arm.special == "shrunk":
        return steering.Shrunk([row["length"] for row in recover_jsonl(steps["left"] / METER)])
    if arm.special == "penalty":
        contrast = Directions.load(steps["direction_contrast"] / "contrast_factor.safetensors")
        return steering.Penalty(contrast, config.penalty)
    if arm.special == "kl":
        return steering.KlToBase(config.kl)
    if arm.space is None:
        return Rule()
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
    rows = data.examples(split, "attack")
    if arm.special == "replay":
        rows = data.replayed(rows, data.examples(split, "refusal"), config.replay_share, seed)
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


@rank_zero_only
def original_log(folder: Path, mode: str, train: TrainSettings) -> None:
    """`training_loss_<mode>.json` in the original's shape: mode, config, losses by step."""
    losses = [
        {"step": e["step"], "epoch": e["epoch"], "loss": e["loss"], "learning_rate": e["learning_rate"]}
        for e in recover_jsonl(folder / "train_log.jsonl")
        if "loss" in e
    ]
    write_json(
        folder / f"training_loss_{mode}.json",
        {"mode": mode, "config": train.model_dump(mode="json"), "losses": losses},
    )
