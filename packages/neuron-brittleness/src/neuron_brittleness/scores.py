"""Importance of each weight, in one pass over the data however many layers there are.

SNIP as Wei et al. (arXiv 2402.05162) compute it: |W| times the sum over examples of |dL/dW|, L the mean loss of one
example's reply tokens. Beside it, each under its own name because the sets differ: |W * mean gradient|, Wanda
(arXiv 2306.11695: |W| times the norm of the input over reply tokens), magnitude, random.

The reference way runs all examples again for each layer. Here hooks take each matrix's gradient the moment it is
whole, add it in float32, and free it, so that one backward pass serves all layers and no second gradient is alive. On
a 4-bit base, whose weights have no gradient, the gradient is made of each matrix's input and its output's gradient.
Where the sums do not fit the memory, groups of matrices are streamed, one pass a group. The examples are
split over the group's processes and the sums, one flat buffer, are added up over them once a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from alignment_core.errors import UserError
from alignment_core.pipeline.process_group import process_group
from alignment_core.progress import each
from neuron_brittleness.groups import noise
from neuron_brittleness.losses import IGNORE, Row, reply_loss

if TYPE_CHECKING:
    from neuron_brittleness.matrices import Matrix

Method = Literal["snip", "mean_gradient", "wanda", "magnitude", "random"]
METHODS: tuple[Method, ...] = ("snip", "mean_gradient", "wanda", "magnitude", "random")
Through = Literal["auto", "parameters", "activations"]


@dataclass
class Sums:
    """What one pass adds up of one matrix: views into the pass's flat buffer, [outputs, inputs] or [inputs]."""

    absolute: Tensor | None = None
    signed: Tensor | None = None
    squares: Tensor | None = None


@dataclass
class _Pass:
    """The state the hooks share; `reply` marks the reply's positions of the example in hand."""

    sums: dict[str, Sums]
    reply: Tensor | None = None
    seen: set[str] = field(default_factory=set)


def floats(matrix: Matrix, methods: Sequence[Method]) -> int:
    """How many sums a matrix needs for these scores."""
    gradients = ("snip" in methods) + ("mean_gradient" in methods)
    return gradients * matrix.size + ("wanda" in methods) * matrix.shape[1]


def passes(
    matrices: Sequence[Matrix], methods: Sequence[Method], budget: int | None, width: int = 4
) -> list[list[Matrix]]:
    """Matrices in as few consecutive groups as keep each group's sums within `budget` bytes (None: one group).

    Raises `UserError` when a single matrix needs more than the budget.
    """
    groups: list[list[Matrix]] = [[]]
    held = 0
    for matrix in matrices:
        need = width * floats(matrix, methods)
        if budget is not None and need > budget:
            raise UserError(f"score.memory_gb: {matrix.name} alone needs {need / 1e9:.3g} GB of sums; allow that much")
        if budget is not None and held + need > budget and groups[-1]:
            groups.append([])
            held = 0
        groups[-1].append(matrix)
        held += need
    return groups


def score(
    model: Any,
    matrices: Sequence[Matrix],
    rows: Sequence[Row],
    methods: Sequence[Method] = ("snip",),
    *,
    budget: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    through: Through = "auto",
    checkpointing: bool = False,
) -> Iterator[tuple[Matrix, dict[str, Tensor]]]:
    """Scores [outputs, inputs] of every matrix, one matrix at a time in the given order.

    `rows` are examples with at least one labelled token each; labels stand on the tokens themselves (the loss looks
    one to the left, as everywhere). `budget` bounds the bytes of the sums. What is yielded is freed when the next
    is asked for: select from it, do not keep it. Raises `UserError` without examples or where a score is not finite.
    """
    if not rows or any(all(label == IGNORE for label in labels[1:]) for _, labels in rows):
        raise UserError("scoring needs examples, each with at least one token of a reply")
    data_free = all(m in ("magnitude", "random") for m in methods)
    for group in passes(matrices, methods, budget, torch.empty(0, dtype=dtype).element_size()):
        state = _Pass({}) if data_free else _collect(model, group, rows, methods, dtype, through, checkpointing)
        for matrix in group:
            yield matrix, _scores(matrix, state.sums.pop(matrix.name, Sums()), methods, len(rows), seed, dtype)


def _scores(
    matrix: Matrix, sums: Sums, methods: Sequence[Method], n: int, seed: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    weight = matrix.effective(dtype)
    magnitude = weight.abs()
    for method in methods:
        if method == "snip" and sums.absolute is not None:
            out[method] = magnitude * sums.absolute
        elif method == "mean_gradient" and sums.signed is not None:
            out[method] = (weight * sums.signed / n).abs()
        elif method == "wanda" and sums.squares is not None:
            out[method] = magnitude * sums.squares.sqrt()
        elif method == "magnitude":
            out[method] = magnitude
        elif method == "random":
            out[method] = noise(matrix.name, matrix.shape, seed).to(device=weight.device, dtype=dtype)
        if not bool(torch.isfinite(out[method]).all()):
            raise UserError(f"{matrix.name}: a {method} score is not finite; set model.dtype=bfloat16 or float32")
    return out


# One pass


def _collect(
    model: Any,
    group: Sequence[Matrix],
    rows: Sequence[Row],
    methods: Sequence[Method],
    dtype: torch.dtype,
    through: Through,
    checkpointing: bool,
) -> _Pass:
    device = next(model.parameters()).device
    flat = torch.zeros(sum(floats(m, methods) for m in group), dtype=dtype, device=device)
    state = _Pass(_views(flat, group, methods))
    gradients = "snip" in methods or "mean_gradient" in methods
    if through == "auto":
        through = "activations" if any(m.quantised for m in group) else "parameters"
    share = process_group()
    with ExitStack() as stack:
        stack.enter_context(_prepared(model, group if gradients and through == "parameters" else (), checkpointing))
        for matrix in group:
            stack.callback(_watch(matrix, state, gradients, through).remove)
            if gradients and through == "parameters":
                hook = matrix.module.weight.register_post_accumulate_grad_hook(_take(matrix, state))
                stack.callback(hook.remove)
        for ids, labels in each(rows[share.rank :: share.size], "scoring weights", "examples"):
            _example(model, state, torch.tensor([ids], device=device), torch.tensor([labels], device=device), gradients)
    share.all_reduce(flat)
    return state


def _example(model: Any, state: _Pass, ids: Tensor, labels: Tensor, gradients: bool) -> None:
    state.reply = labels[0] != IGNORE
    state.seen.clear()
    with torch.set_grad_enabled(gradients):
        loss = reply_loss(model, ids, labels)
        if gradients:
            torch.autograd.backward(loss)


def _views(flat: Tensor, group: Sequence[Matrix], methods: Sequence[Method]) -> dict[str, Sums]:
    """Each matrix's sums as views of the pass's one buffer, so that one all-reduce does for all."""
    place = 0

    def take(*shape: int) -> Tensor:
        nonlocal place
        size = shape[0] * shape[1] if len(shape) == 2 else shape[0]
        place += size
        return flat[place - size : place].view(*shape)

    return {
        m.name: Sums(
            absolute=take(*m.shape) if "snip" in methods else None,
            signed=take(*m.shape) if "mean_gradient" in methods else None,
            squares=take(m.shape[1]) if "wanda" in methods else None,
        )
        for m in group
    }


def _take(matrix: Matrix, state: _Pass) -> Callable[[Tensor], None]:
    """A hook for a weight whose gradient is whole: add it and free it. Made by a function of its own, so that each
    hook keeps its own matrix (a closure in the loop would see the last one)."""

    def hook(parameter: Tensor) -> None:
        assert parameter.grad is not None
        _add(state.sums[matrix.name], matrix.oriented(parameter.grad))
        parameter.grad = None

    return hook


def _add(sums: Sums, gradient: Tensor) -> None:
    if sums.signed is not None:
        sums.signed.add_(gradient)
    if sums.absolute is not None:
        sums.absolute.add_(gradient.abs())


def _watch(matrix: Matrix, state: _Pass, gradients: bool, through: Through) -> Any:
    """A forward hook that adds the squared inputs of reply positions and, through activations, arranges for the
    gradient: dL/dW = (dL/dy)' x."""

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sums, x = state.sums[matrix.name], inputs[0].detach()
        # A checkpointed layer runs twice for one example, and counts once.
        if sums.squares is not None and matrix.name not in state.seen and state.reply is not None:
            state.seen.add(matrix.name)
            sums.squares.add_(x.reshape(-1, x.shape[-1])[state.reply].to(sums.squares.dtype).square().sum(0))
        if gradients and through == "activations" and output.requires_grad:
            output.register_hook(_outer(sums, x))  # type: ignore[no-untyped-call]

    return matrix.module.register_forward_hook(hook)


def _outer(sums: Sums, x: Tensor) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        kind = next(s.dtype for s in (sums.absolute, sums.signed) if s is not None)
        g = gradient.reshape(-1, gradient.shape[-1]).to(kind)
        _add(sums, g.t() @ x.reshape(-1, x.shape[-1]).to(kind))

    return hook


@contextmanager
def _prepared(model: Any, wanted: Sequence[Matrix], checkpointing: bool) -> Iterator[None]:
    """Only the wanted weights require a gradient, dropout is off; all as before afterwards.

    Transformers recomputes a layer only where it is in training mode: that flag is set on the layers alone, so that
    no dropout inside them wakes up. Without trainable weights, and for recomputed layers, the embedding's output
    carries the gradient.
    """
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    for parameter, _, _ in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
    for matrix in wanted:
        matrix.module.weight.requires_grad_(True)
    lifted = None
    if not wanted or checkpointing:
        lifted = model.get_input_embeddings().register_forward_hook(lambda module, args, out: out.requires_grad_(True))
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        for module in model.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.training = True
    try:
        yield
    finally:
        if checkpointing:
            model.activation_checkpointing_disable()
        if lifted is not None:
            lifted.remove()
        for module, training in modes:
            module.training = training
        for parameter, required, gradient in parameters:
            parameter.requires_grad_(required)
            parameter.grad = gradient
