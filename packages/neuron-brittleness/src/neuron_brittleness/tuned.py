"""The base, or a fine-tuned arm's model: at its end, or at a step that was measured on its way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignment_core.models import load
from neuron_brittleness import freeze
from neuron_brittleness.matrices import adapted

if TYPE_CHECKING:
    from neuron_brittleness.config import BrittlenessConfig


def model_of(config: BrittlenessConfig, trained: Path | None, step: int | None = None) -> load.Loaded:
    """The base (None), or an arm's model: at its end, or at a measured step."""
    loaded = load.load(config.model)
    if trained is not None:
        loaded.model = freeze.put_on(loaded.model, trained / "adapter")
        if step is not None:
            load_factors(loaded.model, trained / "factors" / f"step_{step:06d}.safetensors")
        loaded.model.eval()
    return loaded


def load_factors(model: Any, path: Path) -> None:
    """Put saved factors into a PeftModel's adapter."""
    from safetensors.torch import load_file

    tensors = load_file(str(path))
    with torch.no_grad():
        for name, module in adapted(model).items():
            module.lora_A["default"].weight.copy_(tensors[f"{name}.A"])
            module.lora_B["default"].weight.copy_(tensors[f"{name}.B"])
