"""What a fine-tuning step does: an arm, free, frozen on a group, or frozen on its matched random group."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.models.train import sft
from neuron_brittleness import rows
from neuron_brittleness.arms import GROUPS, MATCHED
from neuron_brittleness.group_files import read_group

if TYPE_CHECKING:
    from neuron_brittleness.config import BrittlenessConfig
    from neuron_brittleness.freeze import FreezeReport

log = logging.getLogger(__name__)


def held(config: BrittlenessConfig, arm: str) -> str | None:
    """Name of the group an arm holds; None for the free one."""
    group = config.freeze.group
    return {"free": None, "frozen": group, "matched_frozen": MATCHED[group]}[arm]


def fine_tune(config: BrittlenessConfig, arm: str, seed: int, split: Path, scored: Path, folder: Path) -> None:
    """Train one arm and measure its drift on the way; a frozen arm's mask is saved with its adapter."""
    from neuron_brittleness import freeze
    from neuron_brittleness.probe import DriftProbe

    examples = rows.examples(split, rows.TUNE)
    name = held(config, arm)
    group = None if name is None else read_group(scored, "a", name)
    watched = {g: read_group(scored, "a", g) for g in GROUPS}
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
