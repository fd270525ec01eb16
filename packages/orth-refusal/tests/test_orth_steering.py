"""Rules against a real AdamW with momentum and weight decay: what stays out stays out, at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from alignment_core.errors import UserError
from orth_refusal.directions import Directions
from orth_refusal.factors import Factors, difference, inner, left_subspace, norm
from orth_refusal.flat import Flat
from orth_refusal.projection import remove, squares
from orth_refusal.rounding import Rounding
from orth_refusal.steering import (
    DeltaTangent,
    FactorGradient,
    FactorUpdate,
    LeftSubspace,
    Meter,
    Penalty,
    Rule,
    Shrunk,
)

SHAPES = {"a.q": (40, 24), "a.v": (24, 24), "b.q": (40, 24), "b.up": (64, 24)}
R = 4


class Lora(nn.Module):
    """A LoRA layer as PEFT lays one out."""

    def __init__(self, out: int, inside: int, noise: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__()
        a, b = nn.Linear(inside, R, bias=False, dtype=dtype), nn.Linear(R, out, bias=False, dtype=dtype)
        with torch.no_grad():
            a.weight.copy_(torch.randn(R, inside, generator=noise, dtype=torch.float64) / inside**0.5)
            b.weight.zero_()
        self.lora_A, self.lora_B = nn.ModuleDict({"default": a}), nn.ModuleDict({"default": b})
        self.scaling = {"default": 2.0}


class Attacked(nn.Module):
    """Layers whose loss pulls ΔW against R through inputs of very unlike scales: AdamW's worst case."""

    def __init__(self, dtype: torch.dtype, target: Directions, seed: int = 0) -> None:
        super().__init__()
        noise = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleDict({k.replace(".", "_"): Lora(*s, noise, dtype) for k, s in SHAPES.items()})
        self.wanted = {
            k: -3 * change(target, k).to(dtype) + 0.3 * torch.randn(*s, generator=noise, dtype=dtype)
            for k, s in SHAPES.items()
        }
        self.scales = {k: (10 ** torch.linspace(-1, 1, s[1], dtype=dtype)) for k, s in SHAPES.items()}

    def loss(self) -> Tensor:
        total = torch.zeros((), dtype=next(self.parameters()).dtype)
        for key, layer in self.layers.items():
            name = key.replace("_", ".")
            delta = 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            total = total + (((delta - self.wanted[name]) * self.scales[name]) ** 2).sum()
        return total


def names() -> list[str]:
    return [f"layers.{k.replace('.', '_')}" for k in SHAPES]


def refusal(dtype: torch.dtype = torch.float64) -> Directions:
    noise = torch.Generator().manual_seed(99)
    tensors = {}
    for name, (out, inside) in zip(names(), SHAPES.values(), strict=True):
        b = torch.randn(out, R, generator=noise, dtype=torch.float64)
        a = torch.randn(R, inside, generator=noise, dtype=torch.float64)
        tensors[f"{name}.lora_B"], tensors[f"{name}.lora_A"] = (b / (b @ a).norm()).to(dtype), a.to(dtype)
    return Directions("delta", tensors)


def change(direction: Directions, name: str) -> Tensor:
    key = f"layers.{name.replace('.', '_')}"
    return direction.tensors[f"{key}.lora_B"] @ direction.tensors[f"{key}.lora_A"]


def unit(direction: Directions) -> Directions:
    return Directions("factor", {k: t / t.norm() for k, t in direction.tensors.items()})


def left(direction: Directions, k: int) -> Directions:
    tensors = {}
    for name in names():
        b, a = direction.tensors[f"{name}.lora_B"], direction.tensors[f"{name}.lora_A"]
        tensors[f"{name}.U"] = left_subspace(Factors(b[None], a[None], 1.0), k)[0][0]
    return Directions("left", tensors)


def attack(
    rule: Rule,
    dtype: torch.dtype,
    steps: int = 200,
    each: Callable[[Flat, Tensor, Tensor], None] | None = None,
    lr: float = 1e-2,
) -> tuple[Flat, Tensor]:
    model = Attacked(dtype, refusal())
    flat = Flat(model)
    start = flat.values.clone()
    rule.begin(flat, start)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
    for step in range(1, steps + 1):
        optimiser.zero_grad(set_to_none=True)
        flat.attach_grads()
        model.loss().backward()
        flat.collect_grads()
        before = flat.values.clone()
        rule.gradient(flat, model)
        optimiser.step()
        rule.update(flat, before, step)
        if each is not None:
            each(flat, before, start)
    return flat, start


def flat_of(direction: Directions) -> Flat:
    """The float32 buffers of a fresh model."""
    return Flat(Attacked(torch.float32, direction))


def per_tensor_cosine(flat: Flat, moved: Tensor, u: Tensor) -> float:
    """Largest |cos| of any tensor, in float64."""
    most = 0.0
    for parameter, place in flat.parameters:
        x, y = (flat._at(t, place, parameter).double().flatten() for t in (moved, u))
        if float(x.norm()) > 0:
            most = max(most, abs(float(x @ y / (x.norm() * y.norm()))))
    return most


def delta_cosine(flat: Flat, start: Tensor, target: Directions) -> float:
    most = 0.0
    for group in flat.groups:
        b = torch.stack([target.tensors[f"{n}.lora_B"] for n in group.names]).double()
        a = torch.stack([target.tensors[f"{n}.lora_A"] for n in group.names]).double()
        now, first = (flat.factors(x.double(), group) for x in (flat.values, start))
        moved, goal = difference(now, first), Factors(b, a, 1.0)
        most = max(most, float((inner(moved, goal) / (norm(moved) * norm(goal))).abs().max()))
    return most


def _worst(rule: FactorGradient, lr: float) -> float:
    """Largest |cos| of any tensor's step, as the float32 weights have it, with rule.u at any of 200 steps."""
    worst = 0.0

    def look(flat: Flat, before: Tensor, start: Tensor) -> None:
        nonlocal worst
        worst = max(worst, per_tensor_cosine(flat, flat.values.double() - before.double(), rule.u))

    attack(rule, torch.float32, each=look, lr=lr)
    return worst


@pytest.mark.parametrize("lr", [1e-2, 1e-4, 1e-5, 1e-6, 1e-7])
def test_the_update_stays_orthogonal_after_adamw(lr: float) -> None:
    assert _worst(FactorUpdate(unit(refusal())), lr) <= 1e-6


def test_the_projected_gradient_alone_does_not_stay_out() -> None:
    # Upstream: the gradient was projected, and momentum, preconditioning and decay brought the direction back.
    assert _worst(FactorGradient(unit(refusal())), 1e-2) > 0.05


def test_the_weights_that_take_up_rounding_are_those_of_the_start() -> None:
    # An attack that goes on after a kill begins at other weights and must not choose others.
    u = flat_of(refusal()).lay_out(unit(refusal()).tensors)
    start, moved = flat_of(refusal()), flat_of(refusal())
    first = start.values.clone()
    moved.values.mul_(torch.rand(moved.values.shape, generator=torch.Generator().manual_seed(2)))
    fresh, again = Rounding(start, u, first), Rounding(moved, u, first)
    assert torch.equal(fresh.first, again.first)
    assert torch.equal(fresh.ladder, again.ladder)
    assert not torch.equal(fresh.ladder, Rounding(moved, u, moved.values).ladder)


def test_a_step_that_rounding_would_make_leak_is_not_taken_and_others_are() -> None:
    u = flat_of(refusal()).lay_out(unit(refusal()).tensors)
    flat = flat_of(refusal())
    rounding = Rounding(flat, u, flat.values)
    before = flat.values.clone()
    first, place = flat.parameters[0]
    at = place + int(u.view(-1)[place : place + first.numel()].abs().argmin())
    flat.values.view(-1)[at] = torch.nextafter(before.view(-1)[at], torch.tensor(1e9))  # one unit: nothing is smaller
    second, other = flat.parameters[1]
    flat.values.view(-1)[other : other + second.numel()] += 1e-3 * torch.randn(
        second.numel(), generator=torch.Generator().manual_seed(5)
    )
    rounding.settle(flat, before)
    assert torch.equal(flat._at(flat.values, place, first), flat._at(before, place, first))
    assert not torch.equal(flat._at(flat.values, other, second), flat._at(before, other, second))


def test_a_tensor_without_a_direction_keeps_its_step() -> None:
    direction = unit(refusal())
    key = f"{names()[0]}.lora_A"
    some = Directions("factor", {**direction.tensors, key: torch.zeros_like(direction.tensors[key])})
    flat = flat_of(refusal())
    rule = FactorUpdate(some)
    rule.begin(flat, flat.values.clone())
    before = flat.values.clone()
    flat.values += 1e-6
    wanted = flat.values.clone()
    rule.update(flat, before, 1)
    same = [torch.equal(flat._at(flat.values, at, p), flat._at(wanted, at, p)) for p, at in flat.parameters]
    assert same.count(True) == 1


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_delta_with_retraction_is_orthogonal_at_every_one_of_200_steps(dtype: torch.dtype, bound: float) -> None:
    worst = 0.0

    def look(flat: Flat, before: Tensor, start: Tensor) -> None:
        nonlocal worst
        worst = max(worst, delta_cosine(flat, start, refusal()))

    flat, start = attack(DeltaTangent(refusal()), dtype, each=look)
    assert worst <= bound
    free, free_start = attack(Rule(), dtype)
    assert delta_cosine(free, free_start, refusal()) > 0.2
    assert float((flat.values - start).norm()) > 0.5 * float((free.values - free_start).norm())


def test_orthogonal_factors_are_not_an_orthogonal_change() -> None:
    # Upstream: even exact orthogonality of the factors left ΔW along R.
    flat, start = attack(FactorUpdate(unit(refusal())), torch.float64)
    assert delta_cosine(flat, start, refusal()) > 0.01


def test_the_left_subspace_is_out_of_the_change_exactly() -> None:
    basis = left(refusal(), 2)
    flat, _ = attack(LeftSubspace(basis), torch.float64)
    for group in flat.groups:
        u = torch.stack([basis.tensors[f"{n}.U"] for n in group.names])
        now = flat.factors(flat.values, group)
        assert float((u.mT @ now.dense()).abs().max()) < 1e-12
        assert float(now.dense().abs().max()) > 0.1


def test_shrunk_steps_have_the_given_length_at_most() -> None:
    lengths = [0.01 * (1 + i % 3) for i in range(20)]
    found: list[float] = []
    attack(Shrunk(lengths), torch.float64, 20, lambda f, before, _: found.append(float((f.values - before).norm())))
    assert found == pytest.approx(lengths, rel=1e-9)
    attack(Shrunk([1e9] * 20), torch.float64, 20)  # a longer one stretches nothing


def test_the_penalty_has_autograds_gradient() -> None:
    # Upstream: the penalty was taken of detached weights, requires_grad was False, and nothing was added.
    model = Attacked(torch.float64, refusal())
    flat = Flat(model)
    start = flat.values.clone()
    rule = Penalty(unit(refusal()), 0.7)
    rule.begin(flat, start)
    noise = torch.Generator().manual_seed(3)
    flat.values.add_(torch.randn(flat.values.shape, generator=noise, dtype=torch.float64))
    flat.attach_grads()
    rule.gradient(flat, model)
    loss = torch.zeros((), dtype=torch.float64)
    for parameter, place in flat.parameters:
        v, first = (flat._at(t, place, parameter) for t in (rule.v, start))
        loss = loss + 0.35 * ((parameter - first) * v).sum() ** 2
    wanted = torch.autograd.grad(loss, [p for p, _ in flat.parameters])
    for (parameter, place), grad in zip(flat.parameters, wanted, strict=True):
        torch.testing.assert_close(flat._at(flat.grads, place, parameter), grad)
        assert float(grad.norm()) > 0


def test_the_penalty_holds_the_attack_back_along_its_direction() -> None:
    direction = unit(refusal())

    def along(rule: Rule) -> float:
        flat, start = attack(rule, torch.float64, 100)
        return per_tensor_cosine(flat, flat.values - start, flat.lay_out(direction.tensors))

    assert along(Penalty(direction, 1e5)) < 0.5 * along(Rule())


def test_the_meter_reads_the_dense_cosine() -> None:
    meter = Meter(refusal())
    model = Attacked(torch.float64, refusal())
    flat = Flat(model)
    start = flat.values.clone()
    meter.begin(flat, start)
    assert meter.read() == (0.0, [0.0] * 4)
    flat.values.add_(torch.randn(flat.values.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    pooled, each = meter.read()
    dense = {}
    for group in flat.groups:
        moved = flat.factors(flat.values, group).dense() - flat.factors(start, group).dense()
        dense |= dict(zip(group.names, moved, strict=True))
    goal = {n: refusal().tensors[f"{n}.lora_B"] @ refusal().tensors[f"{n}.lora_A"] for n in names()}
    by_hand = [float((dense[n] * goal[n]).sum() / (dense[n].norm() * goal[n].norm())) for n in flat.names]
    assert each == pytest.approx(by_hand, abs=1e-10)
    top = sum(float((dense[n] * goal[n]).sum()) for n in names())
    sizes = [sum(float(t[n].square().sum()) for n in names()) ** 0.5 for t in (dense, goal)]
    assert pooled == pytest.approx(top / (sizes[0] * sizes[1]), abs=1e-10)


def test_parameters_and_gradients_are_views_of_the_buffers() -> None:
    model = Attacked(torch.float32, refusal())
    flat = Flat(model)
    flat.attach_grads()
    model.loss().backward()
    first = model.layers["a_q"].lora_B["default"].weight
    assert first.grad is not None
    base = flat.grads.untyped_storage().data_ptr()
    assert first.grad.untyped_storage().data_ptr() == base
    assert float(flat.grads.norm()) == pytest.approx(
        float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()), rel=1e-6
    )
    for parameter in model.parameters():  # something put its own gradients in place
        parameter.grad = torch.ones_like(parameter)
    flat.collect_grads()
    assert float(flat.grads.sum()) == sum(p.numel() for p in model.parameters())


class Count(TorchDispatchMode):
    """Counts the operations that reach a device's kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        views = ("view", "expand", "select", "unbind", "unsqueeze", "slice", "alias", "detach", "as_strided")
        if not any(part in name for part in views):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def test_projecting_all_tensors_is_at_most_ten_launches() -> None:
    flat = Flat(Attacked(torch.float32, refusal()))
    u = flat.lay_out(unit(refusal(torch.float32)).tensors)
    square = squares(u, flat.tensor_of)
    with Count() as counted:
        remove(flat.grads, u, flat.tensor_of, square)
    assert 0 < len(counted.names) <= 10, counted.names


def test_a_direction_for_other_modules_is_refused() -> None:
    renamed = {k.replace("a_q", "a_k"): v for k, v in refusal().tensors.items()}
    model = Attacked(torch.float64, refusal())
    flat = Flat(model)
    for rule in (DeltaTangent(Directions("delta", renamed)), FactorUpdate(Directions("factor", renamed))):
        with pytest.raises(UserError, match="match nothing"):
            rule.begin(flat, flat.values.clone())
