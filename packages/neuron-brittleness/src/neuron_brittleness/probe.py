"""Drift while training: a callback that reads the LoRA factors every N steps, and the training loss beside it.

Each measurement is a file `drift/drift_step_%06d.json`: the original's aggregates under `metrics`, drift by group and
matrix under `groups`, by rows under `rows`, and `loss`, the mean training loss over a fixed set of the training
examples (a batch's own loss is too noisy to match arms by). The factors themselves go to `factors/`, a few megabytes
a step, from which the model of that step can be had again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from alignment_core import io
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Example
from neuron_brittleness import drift, losses
from neuron_brittleness.matrices import adapted, matrices

if TYPE_CHECKING:
    from neuron_brittleness.groups import Group


class DriftProbe(TrainerCallback):  # type: ignore[misc]
    """Measures at step 0, every `every` steps, and at the last."""

    def __init__(
        self, groups: dict[str, Group], examples: Sequence[Example], max_length: int, every: int, folder: Path
    ) -> None:
        self.groups, self.examples, self.max_length = groups, examples, max_length
        self.every, self.folder = every, folder
        self.rows: list[losses.Row] = []
        self.base: drift.Reference | None = None
        (folder / "drift").mkdir(parents=True, exist_ok=True)
        (folder / "factors").mkdir(exist_ok=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        for_model = _unwrapped(model)
        self.rows = losses.rows(more["processing_class"], self.examples, self.max_length)
        self.base = drift.reference(matrices(for_model), self.groups, set(adapted(for_model)))
        if state.global_step == 0:
            self.measure(for_model, 0, state.is_world_process_zero)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.measure(_unwrapped(model), state.global_step, state.is_world_process_zero)

    def measure(self, model: Any, step: int, write: bool = True) -> None:
        """Write one measurement of a PeftModel."""
        assert self.base is not None
        found = {name: _in_float32(f) for name, f in drift.factors(model).items()}
        loss = mean_loss(model, self.rows)
        if not write:
            return
        save_factors(found, self.folder / "factors" / f"step_{step:06d}.safetensors")
        facts = {
            "step": step,
            "loss": loss,
            "examples": len(self.rows),
            "metrics": drift.original_metrics(found, self.base),
            "groups": drift.group_drift(found, self.base),
            "rows": drift.row_summary(found, matrices(model), self.base),
        }
        io.write_json(self.folder / "drift" / f"drift_step_{step:06d}.json", facts)


def _unwrapped(model: Any) -> Any:
    """The PeftModel inside what a distributed trainer hands over."""
    return getattr(model, "module", model)


def _in_float32(f: drift.Factors) -> drift.Factors:
    return drift.Factors(f.a.float(), f.b.float(), f.scale, f.free)


def mean_loss(model: Any, rows: Sequence[losses.Row]) -> float:
    """Mean over examples of the mean loss of their reply tokens; the model's mode is left as it was."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device

    def of(row: losses.Row) -> float:
        ids, labels = (torch.tensor([part], device=device) for part in row)
        return float(losses.reply_loss(model, ids, labels))

    with torch.no_grad():
        each = process_group().map_batches(rows, of)
    model.train(training)
    return sum(each) / len(each) if each else float("nan")


def save_factors(found: dict[str, drift.Factors], path: Path) -> None:
    """The factors A and B of each matrix, float32 safetensors."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, f in found.items():
        tensors[f"{name}.A"], tensors[f"{name}.B"] = f.a.cpu().contiguous(), f.b.cpu().contiguous()
    save_file(tensors, str(path))
