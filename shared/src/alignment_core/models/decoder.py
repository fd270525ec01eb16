"""The text decoder of a model: its numbered layers, their linear matrices, and how much of their weights those are.

Adapters, scores, freezing, steering and 4-bit loading see linear matrices (`nn.Linear`, GPT-2's `Conv1D`) alone. A
multimodal model's vision tower lies outside its text decoder and is left as it is; experts that lie in one tensor of
three dimensions are no linear matrices, so a mixture of experts is refused where it would be trained or scored. All
of it is read from the modules and works on a model without weights, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alignment_core.errors import UserError

LEAST = 0.95
"""Share of the layers' weights that must lie in linear matrices."""
_LINEAR = ("Linear", "Conv1D", "Linear4bit", "Linear8bitLt")


def plain(model: Any) -> Any:
    """The model under PEFT's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def layers(model: Any) -> tuple[str, Any]:
    """Name and module list of the text decoder's layers; `UserError` where there is no numbered list of them."""
    import torch

    base = plain(model)
    decoder = base.get_decoder()
    lists = [m for m in decoder.modules() if isinstance(m, torch.nn.ModuleList) and len(m)]
    if not lists:
        raise UserError(f"{type(base).__name__}: no numbered layers were found in its text decoder")
    found = max(lists, key=lambda m: sum(1 for _ in m.parameters()))
    return next(name for name, module in base.named_modules() if module is found), found


def linear(model: Any) -> dict[str, Any]:
    """The linear modules in the decoder's layers by name, in the model's order; of an adapted one what it adapts."""
    base = plain(model)
    prefix, _ = layers(base)
    return {
        name.removesuffix(".base_layer"): module
        for name, module in base.named_modules()
        if name.startswith(f"{prefix}.") and ".lora_" not in name and _linear(module)
    }


def _linear(module: Any) -> bool:
    return any(kind.__name__ in _LINEAR for kind in type(module).__mro__) and not hasattr(module, "lora_A")


def size(module: Any) -> int:
    """Weights of a linear module; a 4-bit one holds them packed."""
    whole = getattr(module, "in_features", None)
    return int(whole * module.out_features) if whole is not None else int(module.weight.numel())


@dataclass(frozen=True)
class Coverage:
    """How much of the decoder layers' weights lies in linear matrices; norms and biases are not counted."""

    matrices: int
    seen: int
    whole: int
    experts: int
    """Weights in tensors of three dimensions, one slice an expert."""

    @property
    def share(self) -> float:
        return self.seen / self.whole

    def __str__(self) -> str:
        return f"{self.matrices} linear matrices hold {self.share:.1%} of the decoder layers' weights"


def coverage(model: Any) -> Coverage:
    """What adapters, scores and 4-bit loading see of the decoder's layers."""
    found = linear(model)
    weights = {id(module.weight) for module in found.values()}
    others = [
        p
        for name, p in layers(model)[1].named_parameters()
        if id(p) not in weights and ".lora_" not in name and p.dim() > 1
    ]
    seen = sum(size(module) for module in found.values())
    experts = sum(int(p.numel()) for p in others if p.dim() == 3)
    return Coverage(len(found), seen, seen + sum(int(p.numel()) for p in others), experts)


def refusal(model: Any) -> str | None:
    """Why a model cannot be trained or scored here, in a line; None where it can."""
    found, kind = coverage(model), type(plain(model)).__name__
    if found.share >= LEAST:
        return None
    if found.experts:
        return (
            f"{kind} is a mixture of experts: {found.experts / found.whole:.0%} of its layers' weights are experts, "
            "which get no adapter, no score and no 4-bit form here; use a dense model"
        )
    return (
        f"{kind}: only {found.share:.0%} of its layers' weights lie in linear matrices, which adapters and scores see "
        f"alone; at least {LEAST:.0%} are needed"
    )


def check(model: Any) -> None:
    """`UserError` where adapters, scores and 4-bit loading would leave out a part of the layers' weights."""
    why = refusal(model)
    if why is not None:
        raise UserError(why)


def apart(model: Any) -> list[str]:
    """Names of the parts outside the text decoder that hold linear modules (a vision tower), the head left out."""
    base = plain(model)
    decoder, head = base.get_decoder(), base.get_output_embeddings()
    inside = next(name for name, module in base.named_modules() if module is decoder)
    if not inside:
        return []
    outside = [
        name
        for name, module in base.named_modules()
        if _linear(module) and module is not head and ".lora_" not in name and not name.startswith(f"{inside}.")
    ]
    depth = inside.count(".") + 1
    return list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in outside))
