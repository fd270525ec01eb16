"""Groups of weights: selection with a fixed tie rule, set difference, random shares, packed bit masks.

A group holds, per matrix, exactly max(1, int(n * share)) weights of highest score; of equal scores the one that
stands first in row-major order is taken, so that a group is a function of its scores alone. The threshold is found
by sampling and one exact selection among the few candidates above the sample's bound (Floyd and Rivest 1975, CACM
18). A group is stored as one bit a weight in safetensors.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignment_core.errors import UserError

Mask = NDArray[np.bool_]
Bits = NDArray[np.uint8]
TIE_RULE = "highest score; among equal scores the first in row-major order"
_SAMPLE = 1 << 14
_PART = 1 << 18
"""Keys taken together, a multiple of 8."""
_NAN = "a score is NaN; set model.dtype=bfloat16 or float32"


def count(n: int, share: float) -> int:
    """How many of n make a share: max(1, int(n * share)), as in the original."""
    return max(1, int(n * share))


def noise(name: str, shape: tuple[int, int], seed: int) -> Tensor:
    """Uniform numbers that depend on the matrix's name and the seed alone."""
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
    return torch.rand(shape, generator=generator)


def per_row(scores: Tensor) -> Tensor:
    """A row's ("neuron's") score [outputs]: the sum of its weights' scores."""
    return scores.sum(dim=1)


Keys = NDArray[np.signedinteger[Any]]
_KEYS = {
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


def keys(scores: Tensor) -> Keys:
    """Integers [n] that order as the scores do: the bits of a float are that already where no sign is set.

    A copy is made only where a sign is. Raises `UserError` for a NaN.
    """
    held = scores.detach().reshape(-1).cpu()
    if held.dtype not in _KEYS:
        held = held.float()
    found: Keys = held.view(_KEYS[held.dtype]).numpy()
    infinite = int(torch.tensor(math.inf, dtype=held.dtype).view(_KEYS[held.dtype]))
    # Read without a sign, what has one is above infinity, as a NaN is: one pass sees both.
    if found.view(f"u{found.dtype.itemsize}").max() > infinite:
        # As bits, numbers below zero fall as they rise; -0 becomes 0.
        found = np.where(found < 0, -(found & np.iinfo(found.dtype).max), found)
        if found.min() < -infinite or found.max() > infinite:
            raise UserError(_NAN)
    return found


def top_bits(scores: Tensor, k: int) -> Bits:
    """The k highest of `scores` (any shape, n in all) under the tie rule, packed, one bit each [ceil(n / 8)].

    A bound that a sample puts a little below the cut leaves few bytes with a bit set; the cut is found exactly among
    their scores, and only those bytes are written again. `UserError` for a NaN.
    """
    flat = keys(scores)
    if len(flat) % 8:  # the bits that fill the last byte lie below every score
        flat = np.pad(flat, (0, -len(flat) % 8), constant_values=np.iinfo(flat.dtype).min)
    bits, eights = _above(flat, _bound(flat, k)), flat.reshape(-1, 8)
    there = np.flatnonzero(bits != 0)
    high = np.flatnonzero(np.unpackbits(bits[there]).view(np.bool_))
    if len(high) < k:  # the sample misled
        there, high = np.arange(len(bits)), np.arange(len(flat))
    held = eights.take(there, axis=0).reshape(-1)
    reached = held[high]
    cut = np.partition(reached, len(reached) - k)[len(reached) - k]
    chosen = held >= cut
    if (surplus := int(np.count_nonzero(chosen)) - k) > 0:
        chosen[np.flatnonzero(held == cut)[-surplus:]] = False
    bits[there] = np.packbits(chosen)
    return bits


def _bound(flat: Keys, k: int) -> int:
    """A key that about k or somewhat more reach, by a sample; the lowest key where a sample is not worth it."""
    if len(flat) > 4 * _SAMPLE:
        sample = flat[:: len(flat) // _SAMPLE | 1]
        expected = k / len(flat) * len(sample)
        rank = math.ceil(expected + 4 * math.sqrt(expected + 1) + 4)
        if rank < len(sample):
            return int(np.partition(sample, len(sample) - rank)[len(sample) - rank])
    return int(np.iinfo(flat.dtype).min)


def _above(flat: Keys, bound: int) -> Bits:
    """One bit for each key that reaches the bound; the flags of a part never leave the cache."""
    cuts = range(0, len(flat), _PART)
    return np.concatenate([np.packbits(flat[i : i + _PART] >= bound) for i in cuts])


def top(scores: Tensor, k: int) -> Mask:
    """Mask of the k highest of `scores` (any shape) under the tie rule; `UserError` for a NaN among them."""
    return _unpacked(top_bits(scores, k), tuple(scores.shape))


def _unpacked(bits: Bits, shape: tuple[int, ...]) -> Mask:
    return np.unpackbits(bits, count=math.prod(shape)).view(np.bool_).reshape(shape)


def select(scores: Tensor, share: float, unit: str = "weights") -> Mask:
    """Mask [outputs, inputs] of the highest share of weights, or of whole rows ("neurons")."""
    if unit == "weights":
        return top(scores, count(scores.numel(), share))
    rows = top(per_row(scores), count(scores.shape[0], share))
    return np.repeat(rows[:, None], scores.shape[1], axis=1)


@dataclass
class Group:
    """A named set of weights: packed bits and shape by matrix name; what it was made of is in `about`."""

    name: str
    bits: dict[str, Bits] = field(default_factory=dict)
    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def put(self, matrix: str, mask: Mask) -> None:
        """Take the flagged weights of a matrix, mask [outputs, inputs]."""
        self.bits[matrix] = np.packbits(mask.reshape(-1))
        self.shapes[matrix] = (mask.shape[0], mask.shape[1])

    def take(self, matrix: str, scores: Tensor, share: float, unit: str = "weights") -> None:
        """Take the highest share of a matrix's weights by `scores` [outputs, inputs], or of whole rows ("neurons")."""
        if unit != "weights":
            self.put(matrix, select(scores, share, unit))
            return
        self.bits[matrix] = top_bits(scores, count(scores.numel(), share))
        self.shapes[matrix] = (scores.shape[0], scores.shape[1])

    def mask(self, matrix: str) -> Mask:
        """The mask [outputs, inputs] of a matrix; `UserError` when the group has none for it (never a silent skip)."""
        if matrix not in self.bits:
            raise UserError(f"group {self.name}: no mask for {matrix}; it was made on another model")
        return _unpacked(self.bits[matrix], self.shapes[matrix])

    def indices(self, matrix: str) -> NDArray[np.int64]:
        """Row-major positions of the group's weights in a matrix, rising."""
        return np.flatnonzero(self.mask(matrix))

    def size(self, matrix: str | None = None) -> int:
        """Weights in the group, in one matrix or in all."""
        names = self.bits if matrix is None else (matrix,)
        return sum(int(np.bitwise_count(self.bits[n]).sum()) for n in names)

    @property
    def total(self) -> int:
        """Weights in the group's matrices."""
        return sum(rows * columns for rows, columns in self.shapes.values())

    def minus(self, other: Group, name: str) -> Group:
        """The weights of this group that are not in `other`."""
        return self._with(other, name, lambda a, b: a & ~b)

    def both(self, other: Group, name: str) -> Group:
        """The weights in this group and in `other`."""
        return self._with(other, name, lambda a, b: a & b)

    def union(self, other: Group, name: str) -> Group:
        """The weights in this group or in `other`."""
        return self._with(other, name, lambda a, b: a | b)

    def _with(self, other: Group, name: str, combine: Any) -> Group:
        if self.shapes != other.shapes:
            raise UserError(f"groups {self.name} and {other.name} are of different models: their matrices differ")
        made = {m: combine(bits, other.bits[m]) for m, bits in self.bits.items()}
        return Group(name, made, dict(self.shapes), {"from": [self.name, other.name]})

    def only(self, matrices: Iterable[str], name: str | None = None) -> Group:
        """The group inside these matrices alone."""
        kept = list(matrices)
        bits = {m: self.bits[m] for m in kept}
        return Group(name or self.name, bits, {m: self.shapes[m] for m in kept}, dict(self.about))

    def part(self, share: float, seed: int, name: str) -> Group:
        """A random share of the group in each matrix; smaller shares of one seed are nested in larger ones."""
        out = Group(name, {}, {}, {**self.about, "share": share})
        for matrix, shape in self.shapes.items():
            mask, order = self.mask(matrix), noise(f"part {matrix}", shape, seed).numpy()
            here = np.flatnonzero(mask)
            kept = here[np.argsort(order.reshape(-1)[here], kind="stable")][: round(share * len(here))]
            out.put(matrix, flagged(kept, shape))
        return out

    def digest(self) -> str:
        """Sixteen hex digits over the matrices' names, shapes and bits."""
        found = hashlib.sha256()
        for name in sorted(self.bits):
            found.update(f"{name} {self.shapes[name]}\n".encode() + self.bits[name].tobytes())
        return found.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write one safetensors file: a uint8 tensor of packed bits for each matrix, shapes and tie rule beside."""
        from safetensors.numpy import save_file

        facts = {"name": self.name, "shapes": self.shapes, "tie_rule": TIE_RULE, "about": self.about}
        save_file(self.bits, str(path), metadata={"group": json.dumps(facts, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> Group:
        """A group from its file; `UserError` when the file is absent or is none of ours."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise UserError(f"{path}: no such group of weights; score the model first")
        try:
            with safe_open(str(path), framework="np") as file:
                facts = json.loads((file.metadata() or {})["group"])
                bits = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{path}: not a group of weights ({error})") from error
        return cls(facts["name"], bits, {k: tuple(v) for k, v in facts["shapes"].items()}, facts["about"])


def flagged(indices: NDArray[np.int64], shape: tuple[int, int]) -> Mask:
    """A mask of this shape that is true at these row-major positions."""
    mask = np.zeros(shape[0] * shape[1], dtype=np.bool_)
    mask[indices] = True
    return mask.reshape(shape)


# The original's file


def original_rows(mask: Mask, scores: Tensor) -> list[list[float | int]]:
    """[[row, column, score], ...] of a group in one matrix, as the original's JSON holds it."""
    rows, columns = np.nonzero(mask)
    values = scores.cpu().numpy()[rows, columns]
    return [[int(r), int(c), float(v)] for r, c, v in zip(rows, columns, values, strict=True)]


def sizes(groups: Mapping[str, Group]) -> list[dict[str, Any]]:
    """Size and share of every group, and of every two groups the overlap and the Jaccard index."""
    out: list[dict[str, Any]] = [
        {"group": name, "weights": g.size(), "share": g.size() / g.total} for name, g in groups.items()
    ]
    names = list(groups)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            shared = groups[a].both(groups[b], "both").size()
            joint = groups[a].size() + groups[b].size() - shared
            out.append({"a": a, "b": b, "overlap": shared, "jaccard": shared / joint if joint else None})
    return out
