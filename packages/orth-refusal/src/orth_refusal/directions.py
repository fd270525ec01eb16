"""Refusal directions in parameter space, read from what an adapter's training changed; saved as safetensors.

Three of them. `factor`: for each tensor of the factors (lora_A, lora_B) its change, the original's space; it depends
on how ΔW is written as a product. `delta`: for each matrix the change R = s(BA − B₀A₀) itself, kept as factors.
`left`: for each matrix the top-k left singular vectors of R. The last two depend on ΔW alone.

A fresh lora_A is random and of norm about 1, its trained value is mostly that start: a direction is taken from the
*change* of the adapter since its start (`raw` gives the original's, from the value itself).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.models.adapter import CONFIG, WEIGHTS, adapter_identity, check_folder
from alignment_core.models.tensors import header, read
from orth_refusal.factors import Factors, difference, inner, left_subspace
from orth_refusal.flat import plain_name

Space = Literal["factor", "delta", "left"]
TINY = 1e-8
"""A change of a smaller norm gives no direction; the tensor is left alone."""


@dataclass(frozen=True)
class Adapter:
    """An adapter's factors by module: B [out, r], A [r, in], and its scale."""

    factors: Mapping[str, tuple[Tensor, Tensor]]
    scale: float
    identity: str = ""

    def of(self, name: str) -> Factors:
        """One module's change as a batch of one."""
        b, a = self.factors[name]
        return Factors(b[None], a[None], self.scale)


def read_weights(file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """(B, A) of every module in an adapter's safetensors file; `UserError` when a factor lacks its other half."""
    tensors = {(plain_name(k), ".lora_A" in k): v for k, v in read(file).items() if ".lora_" in k}
    names = sorted({name for name, _ in tensors})
    if not names or len(tensors) != 2 * len(names):
        raise UserError(f"{file}: not the factors of a LoRA adapter (lora_A and lora_B of each module)")
    return {name: (tensors[name, False], tensors[name, True]) for name in names}


def read_adapter(folder: Path, base: dict[str, object] | None = None) -> Adapter:
    """The adapter in a folder, checked as for loading; `UserError` where its scale is not alpha/r for all modules."""
    config = check_folder(folder, base)
    if config.get("alpha_pattern") or config.get("rank_pattern") or config.get("use_dora"):
        raise UserError(f"{folder / CONFIG}: one rank and scale for all modules is needed, without DoRA")
    r = float(config["r"])
    scale = float(config["lora_alpha"]) / (r**0.5 if config.get("use_rslora") else r)
    return Adapter(read_weights(folder / WEIGHTS), scale, adapter_identity(folder))


@dataclass(frozen=True)
class Directions:
    """Directions by name: `<module>.lora_A` and `.lora_B` (factor), (B, A, scale) of each module (delta), U (left)."""

    space: Space
    tensors: Mapping[str, Tensor]
    about: Mapping[str, str] = field(default_factory=dict)
    """Identity of the adapter it was read from, its source, rank and the like."""

    def save(self, file: Path) -> None:
        """Write a safetensors file; `about` is its metadata."""
        from safetensors.torch import save_file

        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {k: self.tensors[k].contiguous() for k in sorted(self.tensors)}
        # One key: several would be written in another order each time.
        about = json.dumps({"space": self.space, **self.about}, sort_keys=True)
        save_file(tensors, str(file), metadata={"about": about})

    @classmethod
    def load(cls, file: Path) -> Directions:
        """Read a file written by `save`; `UserError` when it is something else."""
        from safetensors import safe_open

        header(file)
        with safe_open(str(file), framework="pt") as stream:
            known = stream.metadata() or {}
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a mapping)
        about = io.loads(known["about"]) if "about" in known else dict(known)
        space = about.pop("space", None)
        about.pop("format", None)
        if space not in ("factor", "delta", "left"):
            raise UserError(f"{file}: not a file of directions; the step `direction` writes one")
        return cls(space, tensors, about)

    @property
    def modules(self) -> list[str]:
        """Names of the matrices it has a direction in."""
        return sorted({plain_name(k).removesuffix(".U") for k in self.tensors})


def factor(now: Adapter, start: Mapping[str, tuple[Tensor, Tensor]] | None) -> Directions:
    """Unit change of every factor tensor since `start`; None: the value itself (the original's direction)."""
    tensors = {}
    for name, pair in now.factors.items():
        first = start[name] if start is not None else (torch.zeros(()), torch.zeros(()))
        for part, value, zero in (("lora_B", pair[0], first[0]), ("lora_A", pair[1], first[1])):
            change = value.double() - zero.double()
            size = change.norm()
            tensors[f"{name}.{part}"] = (change / size if size >= TINY else torch.zeros_like(change)).to(value.dtype)
    return Directions("factor", tensors, _about(now, "change" if start is not None else "raw"))


def delta(now: Adapter, start: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> Directions:
    """R = ΔW − ΔW₀ of every matrix, normalised, as factors `<module>.lora_B`, `<module>.lora_A` with scale 1."""
    tensors = {}
    for name in now.factors:
        change = _since(now, start, name)
        size = inner(change, change).clamp(min=0).sqrt()[0]
        b = change.scale * change.B[0] / size if size >= TINY else torch.zeros_like(change.B[0])
        tensors[f"{name}.lora_B"], tensors[f"{name}.lora_A"] = b.float(), change.A[0].float()
    return Directions("delta", tensors, _about(now, "change"))


def left(now: Adapter, k: int, start: Mapping[str, tuple[Tensor, Tensor]] | None = None) -> Directions:
    """Top-k left singular vectors of every matrix's change, `<module>.U` [out, k]; `about` has the share of its
    energy that they hold. Raises `UserError` for a k above the rank."""
    tensors, kept, total = {}, 0.0, 0.0
    for name in now.factors:
        change = _since(now, start, name)
        if k > min(change.B.shape[-2:]):
            raise UserError(f"direction.rank={k}: the change of {name} has rank {min(change.B.shape[-2:])} at most")
        u, values = left_subspace(change, k)
        tensors[f"{name}.U"] = u[0]
        kept += float(values[..., :k].square().sum())
        total += float(values.square().sum())
    return Directions("left", tensors, {**_about(now, "change"), "rank": str(k), "energy": f"{kept / total:.4f}"})


def _since(now: Adapter, start: Mapping[str, tuple[Tensor, Tensor]] | None, name: str) -> Factors:
    change = now.of(name)
    change = Factors(change.B.double(), change.A.double(), change.scale)
    if start is None or not bool(start[name][0].any()):
        return change  # a fresh adapter has B = 0, so its ΔW is 0 whatever its A
    return difference(change, Factors(start[name][0][None].double(), start[name][1][None].double(), now.scale))


def _about(now: Adapter, taken: str) -> dict[str, str]:
    return {"adapter": now.identity, "taken": taken}


def random_like(direction: Directions, seed: int) -> Directions:
    """A random direction of the same space, shapes and rank: Gaussian, unit norm, orthonormal for `left`."""
    noise = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for key in sorted(direction.tensors):
        like = direction.tensors[key]
        drawn = torch.randn(like.shape, generator=noise, dtype=torch.float64)
        if direction.space == "left":
            drawn = torch.linalg.qr(drawn)[0]
        elif direction.space == "factor":
            drawn /= drawn.norm()
        tensors[key] = drawn.to(like.dtype)
    if direction.space == "delta":
        for name in direction.modules:
            made = Factors(tensors[f"{name}.lora_B"][None], tensors[f"{name}.lora_A"][None], 1.0)
            tensors[f"{name}.lora_B"] = tensors[f"{name}.lora_B"] / inner(made, made).sqrt()[0]
    about = {k: v for k, v in direction.about.items() if k in ("rank",)}
    return Directions(direction.space, tensors, {**about, "adapter": f"random {seed}", "taken": "random"})


def contrast(blue: Adapter, red: Adapter) -> Directions:
    """The original's blue − red direction in factor space, each adapter read from its own file: V = normalised
    (blue − red) of every tensor. `UserError` when the two are the same weights."""
    found = factor(blue, red.factors)
    if not any(bool(t.any()) for t in found.tensors.values()):
        raise UserError("the blue and the red adapter are the same weights: their difference is no direction")
    return Directions("factor", found.tensors, {"adapter": f"{blue.identity} - {red.identity}", "taken": "blue-red"})


def removed_share(direction: Directions) -> float:
    """Share of the left dimensions that a subspace takes away, over all matrices (4 of 96 is not 4 of 4096)."""
    shapes = [t.shape for t in direction.tensors.values()]
    return sum(s[1] for s in shapes) / sum(s[0] for s in shapes)


def describe(direction: Directions, file: Path) -> dict[str, object]:
    """What a report says of a direction."""
    out: dict[str, object] = {"file": file.name, "space": direction.space, **direction.about}
    out["tensors"], out["sha256"] = len(direction.tensors), io.sha256_file(file)
    out["empty"] = sum(not bool(t.any()) for t in direction.tensors.values())
    if direction.space == "left":
        out["removed_share"] = round(removed_share(direction), 6)
    return out
