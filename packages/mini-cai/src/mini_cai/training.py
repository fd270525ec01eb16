"""What a training step does: an adapter on a selection's rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.models import load
from mini_cai import rows

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings
    from mini_cai.config import CaiConfig


def fit(config: CaiConfig, model: ModelSettings, seed: int, selected: Path, folder: Path) -> None:
    """LoRA or QLoRA of `model` on the selected rows; the loss is on replies only."""
    from alignment_core.models.train import sft

    sft(
        rows.read(selected, "train"),
        model=model,
        lora=config.lora,
        train=config.train,
        seed=seed,
        folder=folder,
        validation=rows.read(selected, "val"),
    )
    load.free()
