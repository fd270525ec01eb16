"""The files that a training leaves beside its adapter, as the other steps and the original's readers find them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.io import recover_jsonl, write_json
from alignment_core.pipeline.writers import rank_zero_only

if TYPE_CHECKING:
    from alignment_core.config import TrainSettings
    from alignment_core.pipeline.step import Step

SNAPSHOTS = "snapshots"
"""Folder of a training: the adapter's weights after a step, as `<step>.safetensors`."""
ORIGINAL_NAMES = {"vanilla": "vanilla", "factor_gradient": "orthogonal", "penalty": "regularized"}
"""What the original called the arms it had."""
METER = "meter.jsonl"
"""File of an attack: of every step the cosines of the change with the refusal change, and the step's length."""


def snapshots(trained: Step) -> list[tuple[int, Path]]:
    """(step, file) of an adapter's snapshots after the start, in order."""
    found = sorted((int(f.stem), f) for f in (trained / SNAPSHOTS).glob("*.safetensors"))
    return [(step, file) for step, file in found if step > 0]


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
