"""Where the attacks start: the model as it is, or with the refusal adapter merged into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.embedded import embedded_seed
from alignment_core.models import load

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings
    from alignment_core.pipeline.step import Step
    from orth_refusal.config import OrthConfig


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
    # An embedded model's template comes with its folder.
    family = "own" if embedded_seed(config.model.name) else config.model.template
    return config.model.model_copy(
        update={"name": str(steps["merged"] / "model"), "revision": None, "template": family, "quantize": "none"}
    )
