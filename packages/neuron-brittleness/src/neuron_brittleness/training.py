"""The fine-tuning arms: free, frozen on a group, frozen on its matched random group; models of their steps, scored."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment_core.models import load
from alignment_core.models.train import sft
from alignment_core.pipeline.step import Step
from neuron_brittleness import data, freeze, scoring
from neuron_brittleness.config import MATCHED, BrittlenessConfig
from neuron_brittleness.freeze import FreezeReport
from neuron_brittleness.probe import DriftProbe, load_factors

log = logging.getLogger(__name__)


def held(config: BrittlenessConfig, arm: str) -> str | None:
    """Name of the group an arm holds; None for the free one."""
    group = config.freeze.group
    return {"free": None, "frozen": group, "matched_frozen": MATCHED[group]}[arm]


def fine_tune(config: BrittlenessConfig, arm: str, seed: int, split: Path, scored: Path, folder: Path) -> None:
    """Train one arm and measure its drift on the way; a frozen arm's mask is saved with its adapter."""
    examples = data.examples(split, data.TUNE)
    name = held(config, arm)
    group = None if name is None else scoring.read_group(scored, "a", name)
    watched = {g: scoring.read_group(scored, "a", g) for g in scoring.GROUPS}
    reports: list[FreezeReport] = []

    def prepare(model: Any) -> str:
        if group is None:
            return "free"
        reports.append(freeze.freeze(model, group, config.freeze.kind))
        return json.dumps([config.freeze.kind, group.digest()])

    sample = examples[: config.loss_examples]
    probe = DriftProbe(watched, sample, config.train.max_length, config.drift_every, folder)
    sft(
        examples,
        model=config.model,
        lora=config.lora,
        train=config.train,
        seed=seed,
        folder=folder,
        callbacks=[probe],
        prepare=prepare,
    )
    if group is not None:
        freeze.seal(folder / "adapter", group, reports[0])


def model_of(config: BrittlenessConfig, trained: Path | None, step: int | None = None) -> load.Loaded:
    """The base (None), or an arm's model: at its end, or at a measured step."""
    loaded = load.load(config.model)
    if trained is not None:
        loaded.model = freeze.put_on(loaded.model, trained / "adapter")
        if step is not None:
            load_factors(loaded.model, trained / "factors" / f"step_{step:06d}.safetensors")
        loaded.model.eval()
    return loaded


def score(config: BrittlenessConfig, split: Step, trained: Step | None, halves: Sequence[str], folder: Path) -> None:
    """Score the base (None) or an arm's model on these halves of the data, each in a folder of its name."""
    loaded = model_of(config, None if trained is None else trained.folder)
    for half in halves:
        safety, utility = (data.examples(split.folder, f"{kind}_{half}") for kind in ("safety", "utility"))
        scoring.score_half(config, loaded, safety, utility, folder / half, controls=trained is None)
