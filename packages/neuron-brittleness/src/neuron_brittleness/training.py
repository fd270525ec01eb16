"""The fine-tuning arms: free, frozen on a group, frozen on its matched random group; and models of their steps."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from alignment_core.models import load
from alignment_core.models.train import sft
from alignment_core.pipeline.process_group import process_group
from alignment_core.pipeline.run import Step
from alignment_core.stats.trajectories import reach
from neuron_brittleness import data, freeze, scoring
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.freeze import FreezeReport
from neuron_brittleness.probe import DriftProbe, load_factors, measured

log = logging.getLogger(__name__)

ARMS = ("free", "frozen", "matched_frozen")


def held(config: BrittlenessConfig, arm: str) -> str | None:
    """Name of the group an arm holds; None for the free one."""
    group = config.freeze.group
    return {"free": None, "frozen": group, "matched_frozen": scoring.MATCHED[group]}[arm]


def fine_tune(config: BrittlenessConfig, arm: str, seed: int, dealt: Path, scored: Path, folder: Path) -> None:
    """Train one arm and measure its drift on the way; a frozen arm's mask is saved with its adapter."""
    examples = data.examples(dealt, data.TUNE)
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
    if group is not None and process_group().is_main:
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


def matched_step(free: Step, frozen: Step) -> dict[str, Any]:
    """Where two arms have the same training loss: the higher of their two final ones.

    Of each arm: the step at which its loss curve (linear between measured steps) first falls to that level, the
    measured steps on both sides, and the weight of the later one.
    """
    curves = {arm: _losses(step.folder) for arm, step in (("free", free), ("frozen", frozen))}
    level = max(losses[-1] for _, losses in curves.values())
    out: dict[str, Any] = {"level": level}
    for arm, (steps, losses) in curves.items():
        found = reach(steps, losses, level)
        after = next(i for i, s in enumerate(steps) if s >= found.step)
        before = max(0, after - 1) if steps[after] > found.step else after
        gap = steps[after] - steps[before]
        weight = (found.step - steps[before]) / gap if gap else 1.0
        out[arm] = {"step": found.step, "before": steps[before], "after": steps[after], "weight": weight}
    return out


def _losses(folder: Path) -> tuple[list[int], list[float]]:
    found = measured(folder)
    return [m["step"] for m in found], [m["loss"] for m in found]
