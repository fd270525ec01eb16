"""The linear matrices of a decoder, found by module discovery, always read as [outputs, inputs] in float.

Llama, Qwen3, Gemma 2, Phi and GPT-Neo hold `nn.Linear`, GPT-2 a transposed `Conv1D`, a 4-bit base bitsandbytes'
`Linear4bit`, which is dequantised when it is read. The embedding and the output head are no part of it: only matrices
inside a numbered layer count. A PEFT model has the same names as its base.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment_core.errors import UserError
from alignment_core.models import decoder

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def effective_change(module: Any, adapter: str = "default") -> Tensor:
    """What an adapted matrix's weights really change by, [outputs, inputs]: s BA, or s M*(BA) under a mask."""
    a, b = module.lora_A[adapter].weight.detach(), module.lora_B[adapter].weight.detach()
    delta: Tensor = (b @ a) * module.scaling[adapter]
    free = getattr(module.lora_variant.get(adapter), "free", None)
    return delta if free is None else delta.mul_(free)


Reader = Callable[[slice], Tensor]
"""Rows of a matrix, float."""


def dequantised_rows(packed: Tensor, state: Any) -> Reader:
    """A reader of a 4-bit matrix that dequantises the rows it is asked for alone, so that they stay in the cache.

    The scales' own quantisation is undone once. Where a scale's block spans two rows the whole matrix is held.
    """
    from bitsandbytes.functional import QuantState, dequantize_4bit, dequantize_blockwise

    columns, size = state.shape[1], state.blocksize
    if columns % size:
        whole: Tensor = dequantize_4bit(packed, state).float()
        return whole.__getitem__
    absmax: Tensor = dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax

    def read(here: slice) -> Tensor:
        first, last, _ = here.indices(state.shape[0])
        a, b = first * columns, last * columns
        part = QuantState(
            absmax=absmax[a // size : b // size].float(), shape=torch.Size((last - first, columns)), dtype=state.dtype,
            blocksize=size, code=state.code, quant_type=state.quant_type,
        )  # fmt: skip
        dense: Tensor = dequantize_4bit(packed.reshape(-1, 1)[a // 2 : b // 2], part)
        return dense.float()

    return read


@dataclass(frozen=True)
class Matrix:
    """One linear matrix; `shape` is (outputs, inputs) whatever way the module stores it."""

    name: str
    module: Any
    layer: int
    kind: str
    """The name inside its layer, for example `self_attn.q_proj`."""
    shape: tuple[int, int]
    transposed: bool
    quantised: bool
    adapter: Any = None
    """PEFT's LoRA module around this matrix, where there is one."""

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def weight(self) -> Tensor:
        """The weights [outputs, inputs], detached: a view of a float module's own, a 4-bit one dequantised."""
        raw = self.module.weight
        if self.quantised:
            from bitsandbytes.functional import dequantize_4bit

            dense: Tensor = dequantize_4bit(raw.data, raw.quant_state)
            return dense.detach().to(torch.float32)
        held: Tensor = raw.detach()
        return held.t() if self.transposed else held

    def reader(self) -> Reader:
        """Rows of the weights in float32; of a 4-bit matrix no more is dequantised than is asked for."""
        if self.quantised:
            return dequantised_rows(self.module.weight.data, self.module.weight.quant_state)
        held = self.weight()
        return lambda here: held[here].float()

    def effective(self, dtype: torch.dtype) -> Tensor:
        """The weights the model really works with: the base's, and what an adapter adds to them, not merged."""
        weight = self.weight().to(dtype)
        if self.adapter is None:
            return weight
        changed: Tensor = weight + effective_change(self.adapter).to(dtype)
        return changed

    def oriented(self, gradient: Tensor) -> Tensor:
        """A gradient of the module's weight as [outputs, inputs]."""
        return gradient.t() if self.transposed else gradient

    @property
    def original_key(self) -> str:
        """The original study's name of the matrix: `layer_0_self_attn.q_proj`."""
        return f"layer_{self.layer}_{self.kind}"


def plain_name(name: str) -> str:
    """A module's name without what PEFT puts around it."""
    return name.removeprefix("base_model.model.").removesuffix(".base_layer")


def matrices(model: Any) -> list[Matrix]:
    """Every linear matrix in the text decoder's layers, in the model's order; `UserError` when there is none, and when
    they leave out a part of the layers' weights."""
    from transformers.pytorch_utils import Conv1D

    decoder.check(model)
    around = adapted(model) if hasattr(model, "peft_config") else {}
    prefix, found = decoder.layers(model)[0], []
    for name, module in decoder.linear(model).items():
        place = _LAYER.search(name, len(prefix))
        assert place is not None, name
        if type(module).__name__ == "Linear8bitLt":
            raise UserError(f"{name}: 8-bit matrices cannot be scored; load the model as float or NF4")
        quantised, transposed = type(module).__name__ == "Linear4bit", isinstance(module, Conv1D)
        if quantised:
            rows, columns = module.out_features, module.in_features
        else:
            rows, columns = reversed(module.weight.shape) if transposed else module.weight.shape
        layer = int(place.group(1))
        found.append(
            Matrix(name, module, layer, name[place.end() :], (rows, columns), transposed, quantised, around.get(name))
        )
    return found


def adapted(model: Any) -> dict[str, Any]:
    """PEFT's LoRA modules by the plain name of the matrix they stand on; empty for a model without an adapter."""
    from peft.tuners.lora.layer import LoraLayer

    return {
        plain_name(path): module
        for path, module in model.named_modules()
        if isinstance(module, LoraLayer) and "default" in module.lora_A
    }
