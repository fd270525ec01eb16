"""A trainer callback that keeps an adapter's weights on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import TrainerCallback

from alignment_core.models.lora import adapter_state
from alignment_core.pipeline.process_group import process_group
from alignment_core.pipeline.writers import rank_zero_only
from alignment_core.stats.trajectories import log_steps
from orth_refusal.files import SNAPSHOTS


class Snapshots(TrainerCallback):  # type: ignore[misc]
    """Keeps the adapter's weights at the start and on `points` steps evenly spaced in log(1 + step)."""

    def __init__(self, folder: Path, points: int) -> None:
        self.folder, self.points = folder, points

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.keep = set(log_steps(state.max_steps, self.points))
        if state.global_step == 0:
            self.save(model, 0)
        process_group().barrier()  # what was saved at the start is read by all

    @rank_zero_only
    def save(self, model: Any, step: int) -> None:
        """The adapter's weights after `step`, as safetensors."""
        (self.folder / SNAPSHOTS).mkdir(exist_ok=True, parents=True)
        save_file(adapter_state(model), str(self.folder / SNAPSHOTS / f"{step}.safetensors"))

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step in self.keep:
            self.save(model, state.global_step)
