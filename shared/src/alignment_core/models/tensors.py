"""Safetensors files of other people: what a header says is checked before a tensor is read, and then the numbers.

The format (huggingface.co/docs/safetensors): eight bytes with the header's length, a JSON object of
`name: {dtype, shape, data_offsets}`, then the tensors without a hole. A JSON reader takes the last of two equal names
in silence, and a cast turns integers into weights; here both are errors.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

from alignment_core.errors import UserError

LARGEST_HEADER = 100_000_000
"""Bytes; the library's own limit."""
FLOATS = ("F64", "F32", "F16", "BF16")
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64,
    "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
}  # fmt: skip
LARGEST = 1e9
"""No weight of a model or an adapter is larger."""
NO_WEIGHT = "not finite, or larger than any weight"
_AT_ONCE = 1 << 24
"""Values that are looked at together."""


class Entry(NamedTuple):
    """A tensor as the header describes it."""

    dtype: str
    shape: tuple[int, ...]


def header(file: Path) -> dict[str, Entry]:
    """Type and shape of every tensor in a safetensors file, by name, without reading any.

    `UserError` unless the file is whole: one JSON header of unique names, and tensors that fill the rest of the file
    without a hole or an overlap.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            if length > min(size - 8, LARGEST_HEADER):
                raise ValueError("the header is longer than the file or the format allows")
            table = json.loads(stream.read(length), object_pairs_hook=_unique)
        table.pop("__metadata__", None)
        spans = sorted(_span(name, entry) for name, entry in table.items())
        end = 0
        for start, stop, name in spans:
            if start != end:
                raise ValueError(f"{name!r:.80} does not begin where the tensor before it ends")
            end = stop
        if end != size - 8 - length:
            raise ValueError("the tensors do not fill the file")
    except RecursionError as error:
        raise UserError(f"{file}: not a whole safetensors file (its header is nested too deeply)") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: not a whole safetensors file ({reason})") from error
    return {name: Entry(entry["dtype"], tuple(entry["shape"])) for name, entry in table.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in the header twice")
    return found


def _span(name: str, entry: dict[str, Any]) -> tuple[int, int, str]:
    """Where a tensor lies in the data; `ValueError` where its type, shape and place do not agree."""
    shape, (start, stop) = entry["shape"], entry["data_offsets"]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, start, stop))
    bits = _BITS.get(entry["dtype"])
    if bits is None or not whole:
        raise ValueError(f"{name!r:.80} has no known type and shape")
    if math.prod(shape) * bits != 8 * (stop - start):
        raise ValueError(f"{name!r:.80} is not as long as its type and shape say")
    return start, stop, name


def read(file: Path) -> dict[str, Any]:
    """The tensors of a whole safetensors file, by name, on the CPU; `UserError` for one that is not of finite
    floating-point numbers."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name, entry in header(file).items():
        if entry.dtype not in FLOATS:
            raise UserError(f"{file}: {name!r:.80} is of type {entry.dtype}; weights are floating-point numbers")
    try:
        state: dict[str, Any] = load_file(str(file))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    for name in sorted(state):
        if not believable(state[name]):
            raise UserError(f"{file}: {name!r:.80} holds a number that is {NO_WEIGHT}; no model can be made of it")
    return state


def believable(tensor: Any) -> bool:
    """Whether every number of a tensor is finite and below `LARGEST`; one of integers is. Needs little memory beside
    the tensor."""
    import torch

    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    for part in tensor.detach().flatten().split(_AT_ONCE):
        if part.numel():
            # One pass: a NaN anywhere makes both ends NaN. Numbers of eight bits have no such operation.
            ends = torch.aminmax(part.float() if part.element_size() == 1 else part)
            if not (ends.min >= -LARGEST and ends.max <= LARGEST):
                return False
    return True
