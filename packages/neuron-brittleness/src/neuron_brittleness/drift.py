"""How far each row and each group of weights has moved, straight from the LoRA factors in float32.

dW = s (BA - B0 A0) = s [B, -B0] [A; A0], never materialised as a whole, never merged: a merge into bf16 or NF4 rounds
most of such changes away. Per output row i: L2 = s sqrt(B_i (A A') B_i'), relative L2 / |W_i|, the cosine of W_i and
W_i + dW_i from W_i . dW_i = s B_i (W_i A')', with 1 - cosine in the form that does not cancel, and the mean |dW_ij|.
Per group G of weights: the values dW_G themselves, mean |dW|, RMS and |dW_G| / |W_G|. A mask of frozen weights is
applied where there is one. W is the base's, dequantised for a 4-bit one; there, about 9% of weights are exactly
zero, so that per-weight relative changes are not defined and the group's ratio is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuron_brittleness.freeze import MaskedDelta
from neuron_brittleness.matrices import Matrix, Reader, adapted

if TYPE_CHECKING:
    from neuron_brittleness.groups import Group

EPSILON = 1e-8
"""|w0| up to which the original calls a weight's relative change 0."""
_BLOCK = 1 << 17
"""Elements of a block of BA: with its rows of W it fits a core's own cache."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Factors:
    """dW = s M*(BA): a [r, inputs], b [outputs, r]; `free` is M [outputs, inputs], None where nothing is frozen."""

    a: Tensor
    b: Tensor
    scale: float
    free: Tensor | None = None

    def since(self, start: Factors) -> Factors:
        """The change since an adapter that was not zero: factors of rank 2r. Both under the same mask and scale."""
        a, b = torch.cat([self.a, start.a]), torch.cat([self.b, -start.b], dim=1)
        return Factors(a, b, self.scale, self.free)


def factors(model: Any, adapter: str = "default") -> dict[str, Factors]:
    """The factors of every adapted matrix of a PeftModel, by name; views of its parameters."""
    out = {}
    for name, module in adapted(model).items():
        variant = module.lora_variant.get(adapter)
        free = variant.free if isinstance(variant, MaskedDelta) else None
        a, b = module.lora_A[adapter].weight.detach(), module.lora_B[adapter].weight.detach()
        out[name] = Factors(a, b, float(module.scaling[adapter]), free)
    return out


@dataclass(frozen=True)
class RowDrift:
    """Per output row [outputs]."""

    cosine: Tensor
    one_minus_cosine: Tensor
    l2: Tensor
    relative: Tensor
    absolute: Tensor | None


def l2_rows(f: Factors) -> Tensor:
    """|dW_i| of each row [outputs] without the product BA: a Gram matrix of r x r, in float64 (it is tiny)."""
    if f.free is not None:
        return _dense_rows(f, None)[0]
    gram = f.a.double() @ f.a.double().t()
    b = f.b.double()
    return ((b @ gram) * b).sum(1).clamp_(min=0).sqrt_().mul_(abs(f.scale)).to(f.b.dtype)


def row_drift(weight: Tensor | Reader, f: Factors, norms: Tensor | None = None, *, absolute: bool = True) -> RowDrift:
    """Cosine, L2, relative and mean absolute change of every row of a matrix whose base is `weight`.

    `weight` [outputs, inputs], or a reader of its rows, which lets a 4-bit one be dequantised a block at a time.
    `norms` are the rows' norms of `weight`, which do not change while training; given, they save one pass over it.
    `absolute=False` leaves out the mean absolute change, the one metric that needs every element of BA. A row of
    zeros has no direction: its cosine and relative change are NaN.
    """
    read: Reader = weight.__getitem__ if isinstance(weight, Tensor) else weight
    if norms is None:
        norms = torch.cat([torch.linalg.vector_norm(read(here), dim=1) for here in _blocks(f)])
    if absolute or f.free is not None:
        l2, dot, mean = _dense_rows(f, read)
    else:
        whole = weight @ f.a.t() if isinstance(weight, Tensor) else torch.cat([read(h) @ f.a.t() for h in _blocks(f)])
        l2, dot, mean = l2_rows(f), (f.b * whole).sum(1).mul_(f.scale), None
    w, d, wd = norms.double(), l2.double(), dot.double()
    after = (w * w + 2 * wd + d * d).clamp(min=0).sqrt()
    cosine = (w * w + wd) / (w * after)
    across = (d * d - (wd / w) ** 2).clamp(min=0)  # the part of dW at a right angle to W
    # 1 - c = (1 - c^2) / (1 + c); 1 - c^2 = across / after^2. Where c < 0 nothing cancels.
    apart = torch.where(cosine >= 0, across / (after * after) / (1 + cosine), 1 - cosine)
    kind = f.b.dtype
    return RowDrift(cosine.to(kind), apart.to(kind), l2.to(kind), (d / w).to(kind), mean)


def _blocks(f: Factors) -> list[slice]:
    """Rows of dW taken together."""
    step = max(1, _BLOCK // f.a.shape[1])
    return [slice(i, min(i + step, len(f.b))) for i in range(0, len(f.b), step)]


def _dense_rows(f: Factors, read: Reader | None) -> tuple[Tensor, Tensor, Tensor]:
    """L2, W_i . dW_i and mean |dW| of each row, the product made block by block in one buffer that stays in the cache.

    Each block meets its rows of W while it is there, so that W is read once and the product never leaves the cache.
    """
    blocks, columns = _blocks(f), f.a.shape[1]
    buffer = torch.empty(blocks[0].stop, columns, dtype=f.b.dtype, device=f.b.device)
    l2, dot, size = (torch.zeros(len(f.b), dtype=f.b.dtype, device=f.b.device) for _ in range(3))
    for here in blocks:
        block = torch.mm(f.b[here], f.a, out=buffer[: here.stop - here.start])
        if f.free is not None:
            block.mul_(f.free[here])
            torch.linalg.vector_norm(block, dim=1, out=l2[here])
        if read is not None:
            _dots(block, read(here), dot[here])
        torch.sum(block.abs_(), dim=1, out=size[here])
    l2 = l2_rows(f) if f.free is None else l2.mul_(abs(f.scale))
    return l2, dot.mul_(f.scale), size.mul_(abs(f.scale) / columns)


def _dots(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Row by row dot products into `out` [rows]; on the CPU by BLAS's own dot, as fast as the memory gives W."""
    if a.device.type == "cpu" and a.dtype == b.dtype and a.dtype in (torch.float32, torch.float64):
        np.vecdot(a.numpy(), b.numpy(), out=out.numpy())
    else:
        torch.sum(a * b, dim=1, out=out)


def values(f: Factors, indices: NDArray[np.int64] | Tensor) -> Tensor:
    """dW at these row-major positions [n], gathered from the factors: s sum_r B_ir A_rj."""
    columns = f.a.shape[1]
    where = torch.as_tensor(indices, device=f.a.device)
    out = torch.empty(len(where), dtype=f.b.dtype, device=f.b.device)
    transposed = f.a.t().contiguous()
    for k in range(0, len(where), _CHUNK):
        i, j = where[k : k + _CHUNK] // columns, where[k : k + _CHUNK] % columns
        part = (f.b[i] * transposed[j]).sum(1).mul_(f.scale)
        out[k : k + _CHUNK] = part if f.free is None else part * f.free[i, j]
    return out


@dataclass(frozen=True)
class Reference:
    """The base's side of a comparison, taken once: per group and matrix the positions and the weights there."""

    layer: dict[str, int]
    positions: dict[str, dict[str, Tensor]]
    weights: dict[str, dict[str, Tensor]]
    norms: dict[str, Tensor]


def reference(matrices: list[Matrix], groups: dict[str, Group], names: set[str]) -> Reference:
    """What drift is measured against, over the matrices in `names` (the adapted ones; only they can move)."""
    here = [m for m in matrices if m.name in names]
    out = Reference({m.name: m.layer for m in here}, {g: {} for g in groups}, {g: {} for g in groups}, {})
    for matrix in here:
        weight = matrix.weight().float()
        out.norms[matrix.name] = torch.linalg.vector_norm(weight, dim=1)
        flat = weight.reshape(-1)
        for label, group in groups.items():
            place = torch.as_tensor(group.indices(matrix.name), device=weight.device)
            out.positions[label][matrix.name] = place
            out.weights[label][matrix.name] = flat[place]
    return out


def group_drift(found: dict[str, Factors], base: Reference) -> list[dict[str, Any]]:
    """Of each group and matrix: weights, mean |dW|, RMS dW, and |dW_G| / |W_G| (None where W_G is all zero)."""
    rows: list[dict[str, Any]] = []
    for label, by_matrix in base.positions.items():
        for name, place in by_matrix.items():
            if len(place) == 0:
                continue
            change = values(found[name], place).double()
            norm = float(torch.linalg.vector_norm(base.weights[label][name].double()))
            size = float(torch.linalg.vector_norm(change))
            rows.append(
                {
                    "group": label,
                    "matrix": name,
                    "layer": base.layer[name],
                    "n": len(place),
                    "absolute": float(change.abs().mean()),
                    "rms": size / len(place) ** 0.5,
                    "ratio": size / norm if norm > 0 else None,
                }
            )
    return rows


def original_metrics(found: dict[str, Factors], base: Reference) -> dict[str, dict[str, dict[str, float | int]]]:
    """The original's aggregates over all weights of each group: absolute and relative change per weight.

    Relative change is 0 where |w0| is at most 1e-8, as in the original; `undefined` says how many those are.
    """
    out: dict[str, dict[str, dict[str, float | int]]] = {"absolute_change": {}, "relative_change": {}}
    for label, by_matrix in base.positions.items():
        places = {name: place for name, place in by_matrix.items() if len(place)}
        if not places:
            continue
        change = torch.cat([values(found[n], p).abs().float() for n, p in places.items()])
        weight = torch.cat([base.weights[label][n].abs() for n in places])
        tiny = weight <= EPSILON
        relative = torch.where(tiny, 0.0, change / weight.clamp(min=EPSILON))
        out["absolute_change"][label] = _aggregate(change)
        out["relative_change"][label] = _aggregate(relative) | {"undefined": int(tiny.sum())}
    return out


def _aggregate(x: Tensor) -> dict[str, float | int]:
    ordered = np.sort(x.cpu().double().numpy())
    low, middle, high = np.quantile(ordered, (0.25, 0.5, 0.75))
    return {
        "mean": float(ordered.mean()),
        "std": float(ordered.std()),
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
        "median": float(middle),
        "q25": float(low),
        "q75": float(high),
        "count": len(ordered),
    }


def row_summary(found: dict[str, Factors], matrices: list[Matrix], base: Reference) -> list[dict[str, Any]]:
    """Mean over the rows of each adapted matrix: cosine, 1 - cosine, L2, relative and absolute change."""
    out = []
    for matrix in matrices:
        if matrix.name not in found:
            continue
        d = row_drift(matrix.reader(), found[matrix.name], base.norms[matrix.name])
        named = {"cosine": d.cosine, "one_minus_cosine": d.one_minus_cosine, "l2": d.l2, "relative": d.relative}
        means = {k: float(v.double().nanmean()) for k, v in (named | {"absolute": d.absolute}).items() if v is not None}
        out.append({"matrix": matrix.name, "layer": matrix.layer, **means})
    return out
