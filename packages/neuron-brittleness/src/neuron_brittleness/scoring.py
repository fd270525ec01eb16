"""What a scoring step does: the groups of the base, or of an arm's model, on halves of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuron_brittleness import rows

if TYPE_CHECKING:
    from alignment_core.pipeline.step import Step
    from neuron_brittleness.config import BrittlenessConfig


def score(config: BrittlenessConfig, split: Step, trained: Step | None, halves: Sequence[str], folder: Path) -> None:
    """Score the base (None) or an arm's model on these halves of the data, each in a folder of its name."""
    from neuron_brittleness.halves import score_half
    from neuron_brittleness.tuned import model_of

    loaded = model_of(config, None if trained is None else trained.folder)
    for half in halves:
        safety, utility = (rows.examples(split.folder, f"{kind}_{half}") for kind in ("safety", "utility"))
        score_half(config, loaded, safety, utility, folder / half, controls=trained is None)
