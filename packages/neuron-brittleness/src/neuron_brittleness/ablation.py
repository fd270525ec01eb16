"""What a group of weights does, by intervention: zero it, undo its change, or keep only its change.

`zeroed` sets the effective weights of a group to exactly zero (in a 4-bit base by writing the code of 0, which
changes no other weight) and gives them back bit for bit. `rewound` undoes the fine-tuned change on a group;
`only` keeps the change on a group and undoes it everywhere else. All three work on a base and on an adapted model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuron_brittleness.freeze import MaskedDelta
from neuron_brittleness.matrices import Matrix, adapted, matrices

if TYPE_CHECKING:
    from neuron_brittleness.groups import Group


@contextmanager
def zeroed(model: Any, group: Group) -> Iterator[None]:
    """Every weight of the group is zero inside the block, fine-tuned change included.

    Raises `UserError` when the group has no mask for one of the model's matrices.
    """
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for matrix in matrices(model):
                where = torch.as_tensor(group.indices(matrix.name))
                if len(where):
                    saved.append(_zero(matrix, where))
        with _change(
            model, {name: ~group.mask(name) for name in adapted(model)} if hasattr(model, "peft_config") else {}
        ):
            yield
    finally:
        with torch.no_grad():
            for data, before in saved:
                data.copy_(before)


def _zero(matrix: Matrix, where: Tensor) -> tuple[Tensor, Tensor]:
    """Zero these row-major positions of [outputs, inputs]; returns the module's storage and what it held."""
    data: Tensor = matrix.module.weight.data
    before = data.clone()
    where = where.to(data.device)
    if not matrix.quantised:
        rows, columns = where // matrix.shape[1], where % matrix.shape[1]
        data[(columns, rows) if matrix.transposed else (rows, columns)] = 0
        return data, before
    code = int((matrix.module.weight.quant_state.code == 0).nonzero()[0])
    packed = data.reshape(-1)  # two codes a byte, the first in the high half
    high, low = where[where % 2 == 0] // 2, where[where % 2 == 1] // 2
    packed[high] = (packed[high] & 0x0F) | (code << 4)
    packed[low] = (packed[low] & 0xF0) | code
    return data, before


@contextmanager
def rewound(model: Any, group: Group) -> Iterator[None]:
    """The fine-tuned change is undone on the group inside the block."""
    with _change(model, {name: ~group.mask(name) for name in adapted(model)}):
        yield


@contextmanager
def only(model: Any, group: Group) -> Iterator[None]:
    """Only the fine-tuned change on the group is left inside the block."""
    with _change(model, {name: group.mask(name) for name in adapted(model)}):
        yield


@contextmanager
def _change(model: Any, free: dict[str, Any]) -> Iterator[None]:
    """The adapter acts through these masks, and through the ones it has."""
    modules = adapted(model) if free else {}
    before = {name: module.lora_variant.get("default") for name, module in modules.items()}
    for name, module in modules.items():
        mask = torch.as_tensor(free[name], device=module.lora_A["default"].weight.device)
        held = before[name]
        module.lora_variant["default"] = MaskedDelta(mask & held.free if isinstance(held, MaskedDelta) else mask)
    try:
        yield
    finally:
        for name, module in modules.items():
            if before[name] is None:
                module.lora_variant.pop("default", None)
            else:
                module.lora_variant["default"] = before[name]
