"""Keeping an update out of a direction: the formula, its flat form over all tensors, and the same in ΔW.

    g' = g − (g·u / ‖u‖²) u

stands once, in `remove`. Over hundreds of LoRA tensors it is applied to one buffer of fixed-size blocks, so that a
step costs a handful of launches and not several for each tensor.

In ΔW = s·B·A the constraint <ΔW − ΔW₀, R> = 0 is curved in (B, A). Projecting a step on the complement of
v = (s·R·Aᵀ, s·Bᵀ·R) is right to first order only; what is left, s<δB·δA, R>, adds up. `constrain` therefore retracts:
with c = <ΔW − ΔW₀, R> and q = s<v_B·v_A, R>, θ − λv meets the constraint for the root
λ = 2c / (‖v‖² + √(‖v‖⁴ − 4qc)); where that is not real the step is halved. Removing a left subspace (UᵀB = UᵀB₀)
is linear and exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orth_refusal.factors import Factors, inner, tangent

CACHED = 1 << 20
"""Elements from which a CPU's vecdot, which writes all products before it adds them, falls out of its caches."""
HALVINGS = 40
"""Steps are halved at most so often; a step of 2⁻⁴⁰ of its length changes nothing."""


def remove(
    g: Tensor,
    u: Tensor,
    tensor_of: Tensor | None = None,
    square: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """g' = g − (g·u/‖u‖²)u for rows g, u [..., n]; a row whose u is 0 stays as it is.

    With `tensor_of` [rows] the rows are blocks of larger vectors: row i is part of vector `tensor_of[i]`, and dot
    products run over the whole vector. `square` is `squares(u, tensor_of)`, where it is known already; `out` takes
    the result, and may be `g`.
    """
    share = dots(g, u, tensor_of) / (squares(u, tensor_of) if square is None else square)
    return torch.addcmul(g, share.unsqueeze(-1), u, value=-1, out=out)


def squares(u: Tensor, tensor_of: Tensor | None = None) -> Tensor:
    """‖u‖² of each row's vector; 1 where it is 0, so that a zero direction divides nothing."""
    found = dots(u, u, tensor_of)
    return torch.where(found > 0, found, 1.0)


def dots(g: Tensor, u: Tensor, tensor_of: Tensor | None = None) -> Tensor:
    """g·u of each row, or with `tensor_of` of the whole vector each row is a block of."""
    if g.device.type == "cpu" and g.ndim == 2 and g.numel() >= CACHED:
        each: Tensor = torch.bmm(g[:, None], u[:, :, None]).flatten()
    else:
        each = torch.linalg.vecdot(g, u)
    if tensor_of is None:
        return each
    return torch.zeros_like(each).index_add_(0, tensor_of, each)[tensor_of]


def remove_left(b: Tensor, u: Tensor) -> Tensor:
    """b − U·Uᵀ·b for orthonormal U [m, out, k] and b [m, out, r]."""
    return b - u @ (u.mT @ b)


def _rows(b: Tensor, a: Tensor) -> Tensor:
    return torch.cat([b.flatten(1), a.flatten(1)], 1)


def _split(rows: Tensor, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    cut = b[0].numel()
    return rows[:, :cut].view_as(b), rows[:, cut:].view_as(a)


def constrain(before: Factors, after: Factors, target: Factors, offset: Tensor) -> tuple[Factors, Tensor]:
    """`after` moved onto <ΔW, R> = `offset` [m], which `before` fulfils: tangent projection, then retraction.

    Returns the new factors and how far each matrix's step was shortened, [m] (1: not at all).
    """
    v = _rows(*tangent(before, target))
    step = remove(_rows(after.B - before.B, after.A - before.A), v)
    origin = _rows(before.B, before.A)
    size = torch.ones_like(offset)
    for _ in range(HALVINGS):
        moved = origin + size[:, None] * step
        at = Factors(*_split(moved, before.B, before.A), before.scale)
        w_b, w_a = tangent(at, target)
        w = _rows(w_b, w_a)
        excess = inner(at, target) - offset
        square = torch.linalg.vecdot(w, w)
        bend = inner(Factors(w_b, w_a, before.scale), target)
        inside = square * square - 4 * bend * excess
        bad = inside < 0
        if not bool(bad.any()):
            break
        size = torch.where(bad, size / 2, size)
    below = square + inside.clamp(min=0).sqrt()
    share = torch.where(below > 0, 2 * excess / torch.where(below > 0, below, 1.0), 0.0)
    return Factors(*_split(moved - share[:, None] * w, before.B, before.A), before.scale), size
