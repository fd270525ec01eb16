"""True freezing of single weights under LoRA, and the original's freezing of whole rows.

With F the frozen set and M = 1 - F the effective weight is W = W0 + s M*(BA), * elementwise. With G = dL/dW the
gradients are dB = s (M*G) A', dA = s B' (M*G): a frozen weight's change is exactly zero, and every other weight is
as free as in plain LoRA. The dense product lives inside one forward or one backward call, never between them.

M*(BA) is not of rank r. Saved as a plain adapter it would unfreeze without a word, so the mask is saved beside the
factors and the adapter's kind is written as `MASKED_LORA`, which every plain loader refuses. A row freeze keeps rows
of B at zero and stays a plain adapter; it freezes every row with one selected weight, which is the original's rule
and, at a few percent of weights in wide rows, nearly every row.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from peft.tuners.lora.layer import LoraVariant
from torch import Tensor

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.models.adapter import CONFIG, attach
from alignment_core.pipeline.writers import rank_zero_only
from neuron_brittleness.groups import Group
from neuron_brittleness.matrices import adapted, effective_change

log = logging.getLogger(__name__)

Kind = Literal["weights", "rows"]
MASKED, FROZEN = "MASKED_LORA", "frozen.safetensors"


class _MaskedDelta(torch.autograd.Function):
    """y = s x (M*(BA))' with the dense product recomputed in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, free: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, a, b, free)
        ctx.scale = scale
        with torch.autocast(x.device.type, enabled=False):
            return (x @ (b @ a).mul_(free).t()).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, free = ctx.saved_tensors
        (gradient,) = gradients
        with torch.autocast(x.device.type, enabled=False):
            g = gradient.reshape(-1, gradient.shape[-1]).to(x.dtype) * ctx.scale
            dx = (gradient.to(x.dtype) * ctx.scale) @ (b @ a).mul_(free) if ctx.needs_input_grad[0] else None
            dense = (g.t() @ x.reshape(-1, x.shape[-1])).mul_(free)
            return dx, b.t() @ dense, dense @ a.t(), None, None


class MaskedDelta(LoraVariant):  # type: ignore[misc]
    """PEFT's way to another forward: the adapter acts through M*(BA) with this module's own mask."""

    def __init__(self, free: Tensor) -> None:
        self.free = free
        """M [outputs, inputs], on the adapter's device."""

    def supports_lora_conversion(self) -> bool:
        return False

    def forward(self, module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        a, b = module.lora_A[active_adapter].weight, module.lora_B[active_adapter].weight
        x = module.lora_dropout[active_adapter](x)
        if torch.is_autocast_enabled(x.device.type):
            kind = torch.get_autocast_dtype(x.device.type)
            x, a, b = x.to(kind), a.to(kind), b.to(kind)
        scale = float(module.scaling[active_adapter])
        change: Tensor = _MaskedDelta.apply(x.to(a.dtype), a, b, self.free, scale)
        return result + change.to(result.dtype)

    def merge_safe(self, module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        delta = effective_change(module, active_adapter)
        return orig_weight + (delta.t() if module.fan_in_fan_out else delta).to(orig_weight.dtype)

    def merge_unsafe(self, module: Any, active_adapter: str, orig_weight: Tensor) -> None:
        orig_weight.data = self.merge_safe(module, active_adapter, orig_weight.data)

    def unmerge(self, module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        delta = effective_change(module, active_adapter)
        return orig_weight - (delta.t() if module.fan_in_fan_out else delta).to(orig_weight.dtype)


def install(model: Any, free: Mapping[str, Any]) -> None:
    """Put masks M [outputs, inputs] (bool arrays) on adapted matrices by name; `UserError` for one without adapter."""
    modules = adapted(model)
    for name, mask in free.items():
        if name not in modules:
            raise UserError(f"{name}: there is no adapter on this matrix to mask; see lora.targets")
        place = modules[name].lora_A["default"].weight.device
        modules[name].lora_variant["default"] = MaskedDelta(torch.as_tensor(mask, device=place))


@dataclass(frozen=True)
class FreezeReport:
    """What a freeze really did, over the adapted matrices."""

    kind: Kind
    group: str
    weights: int
    """Weights in the adapted matrices."""
    asked: int
    """Of these, weights in the group."""
    frozen: int
    """Weights whose effective change is held at zero."""
    outside: int
    """Weights of the group in matrices without an adapter: they cannot change at all."""

    @property
    def share(self) -> float:
        return self.frozen / self.weights

    def line(self) -> str:
        """One line for the log."""
        return (
            f"freeze {self.kind} of {self.group}: asked {self.asked:,} of {self.weights:,} adapted weights "
            f"({self.asked / self.weights:.2%}), frozen {self.frozen:,} ({self.share:.2%}); {self.outside:,} more of "
            "the group are in matrices without an adapter"
        )


def freeze(model: Any, group: Group, kind: Kind) -> FreezeReport:
    """Freeze a group on a PeftModel with an adapter that is still zero there (B starts at zero).

    `weights`: exactly the group. `rows`: every output row with at least one weight of the group, as the original.
    Raises `UserError` where the group does not fit the model or nothing of it is adapted.
    """
    modules = adapted(model)
    masks = {name: group.mask(name) for name in modules}
    asked = sum(int(m.sum()) for m in masks.values())
    if asked == 0:
        raise UserError(f"group {group.name} has no weight in a matrix with an adapter: nothing to freeze")
    if kind == "weights":
        install(model, {name: ~mask for name, mask in masks.items()})
        frozen = asked
    else:
        frozen = sum(_freeze_rows(modules[name], mask.any(axis=1)) * mask.shape[1] for name, mask in masks.items())
    total = sum(m.size for m in masks.values())
    report = FreezeReport(kind, group.name, total, asked, frozen, group.size() - asked)
    log.info("%s", report.line())
    return report


def _freeze_rows(module: Any, rows: Any) -> int:
    """Hold these rows of B at zero; returns how many."""
    parameter = module.lora_B["default"].weight
    keep = torch.as_tensor(~np.asarray(rows), device=parameter.device)
    with torch.no_grad():
        parameter.mul_(keep[:, None])
    parameter.register_hook(_keep_rows(keep))
    return int(rows.sum())


def _keep_rows(keep: Tensor) -> Callable[[Tensor], Tensor]:
    """A gradient hook with its own rows: made in a loop, a closure would use the last matrix's rows for all."""
    return lambda gradient: gradient * keep[:, None].to(gradient.dtype)


# On disk


@rank_zero_only
def seal(folder: Path, group: Group, report: FreezeReport) -> None:
    """Write beside a saved adapter what was frozen; a per-weight freeze is closed to plain loaders."""
    io.write_json(folder.parent / "freeze.json", asdict(report) | {"share": report.share, "group_sha": group.digest()})
    if report.kind == "weights":
        group.save(folder / FROZEN)
        settings = io.read_json(folder / CONFIG)
        io.write_json(folder / CONFIG, settings | {"peft_type": MASKED})


def put_on(model: Any, folder: Path) -> Any:
    """A base model with the adapter in `folder` on it, frozen: a plain one, or a masked one with its mask."""
    settings = io.read_json(folder / CONFIG)
    if settings.get("peft_type") != MASKED:
        return attach(model, folder, trainable=False)
    with tempfile.TemporaryDirectory() as place:
        plain = Path(place)
        for file in folder.iterdir():
            if file.name not in (CONFIG, FROZEN):
                shutil.copy(file, plain / file.name)
        io.write_json(plain / CONFIG, settings | {"peft_type": "LORA"})
        tuned = attach(model, plain, trainable=False)
    group = Group.load(folder / FROZEN)
    install(tuned, {name: ~group.mask(name) for name in adapted(tuned)})
    return tuned
