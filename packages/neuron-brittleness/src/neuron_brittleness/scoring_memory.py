"""What scoring needs on a device, from the model's shape: for a plan."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from alignment_core.embedded import embedded_seed
from alignment_core.models.shape import architecture

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings
    from alignment_core.models.shape import Architecture
    from neuron_brittleness.config import BrittlenessConfig, ScoreSettings


def memory(shape: Architecture, model: ModelSettings, score: ScoreSettings) -> dict[str, float]:
    """Bytes of scoring: `sums` of one pass, `needed` by all, `transient` (one gradient, its absolute value, a
    selection); and the number of `passes`.

    The sums are float32, one a weight (SNIP), plus one an input for Wanda. A selection holds a matrix's scores, a
    copy and a byte mask; deciles sort it.
    """
    sizes = [i * o for _, i, o in shape.matrices]
    inputs = sum(i for _, i, _ in shape.matrices)
    needed = 4.0 * (sum(sizes) + inputs)
    if score.method in ("wanda", "magnitude"):
        needed = 4.0 * inputs
    bound = math.inf if score.memory_gb is None else 1e9 * score.memory_gb
    width = 4 if model.quantize == "nf4" or model.dtype == "float32" else 2
    transient = max(sizes) * max(2.0 * width, 4 * 4 + 8 + 1 + 8)
    largest = 4.0 * (max(sizes) + max(i for _, i, _ in shape.matrices))
    passes = 1 if needed <= bound else math.ceil(needed / max(bound - largest, largest))
    return {"sums": min(needed, bound), "needed": needed, "transient": transient, "passes": float(passes)}


def describe(config: BrittlenessConfig) -> str:
    """The scoring of one half in a phrase, with its memory where the model's shape is known."""
    score, shape = config.score, None if embedded_seed(config.model.name) else architecture(config.model)
    unit = "weights" if score.unit == "weights" else "rows"
    text = f"{score.method} of {unit} on {config.data.samples} safety and {config.data.samples} utility examples"
    if shape is None:
        return text
    need = memory(shape, config.model, score)
    streamed = "" if need["passes"] == 1 else f", streamed in about {need['passes']:.0f} passes"
    return (
        f"{text}; sums {need['sums'] / 1e9:.1f} GB of {need['needed'] / 1e9:.1f}{streamed}, "
        f"transient {need['transient'] / 1e9:.2f} GB (score.memory_gb bounds the sums)"
    )
