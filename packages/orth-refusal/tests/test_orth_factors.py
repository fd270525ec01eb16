"""Changes as factors, the formula, tangent and retraction: against dense float64 arithmetic and finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orth_refusal import projection
from orth_refusal.factors import Factors, difference, inner, left_subspace, norm, regauge, tangent
from orth_refusal.projection import constrain, remove, remove_left


def made(seed: int, m: int = 3, out: int = 12, inside: int = 9, r: int = 4, scale: float = 2.0) -> Factors:
    noise = torch.Generator().manual_seed(seed)
    b = torch.randn(m, out, r, generator=noise, dtype=torch.float64)
    return Factors(b, torch.randn(m, r, inside, generator=noise, dtype=torch.float64), scale)


def cosine(change: Factors, target: Factors) -> torch.Tensor:
    return inner(change, target) / (norm(change) * norm(target))


def test_the_formula_by_hand() -> None:
    # g = (3, 4), u = (2, 0): g·u = 6, ‖u‖² = 4, so 6/4 of u = (3, 0) goes.
    g, u = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]])
    assert remove(g, u).tolist() == [[0.0, 4.0]]
    assert remove(g, torch.zeros(1, 2)).tolist() == [[3.0, 4.0]]


def test_the_formula_over_blocks_is_that_over_whole_vectors() -> None:
    # Two vectors of 6 and 3 elements in blocks of 3: rows 0 and 1 are the first.
    noise = torch.Generator().manual_seed(0)
    g, u = (torch.randn(3, 3, generator=noise, dtype=torch.float64) for _ in range(2))
    out = remove(g, u, torch.tensor([0, 0, 1]))
    first, second = remove(g[:2].reshape(1, 6), u[:2].reshape(1, 6)), remove(g[2:], u[2:])
    torch.testing.assert_close(out, torch.cat([first.reshape(2, 3), second]))


def test_the_formula_over_blocks_is_the_same_in_a_buffer_too_large_for_the_caches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noise = torch.Generator().manual_seed(4)
    g, u = (torch.randn(6, 8, generator=noise, dtype=torch.float64) for _ in range(2))
    of = torch.tensor([0, 0, 1, 2, 2, 2])
    small = remove(g, u, of)
    monkeypatch.setattr(projection, "CACHED", 1)
    torch.testing.assert_close(remove(g, u, of), small, rtol=1e-14, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_what_is_removed_is_gone_and_twice_is_once(seed: int, size: float) -> None:
    noise = torch.Generator().manual_seed(seed)
    g, u = (torch.randn(4, 7, generator=noise, dtype=torch.float64) for _ in range(2))
    out = remove(g, size * u)
    assert float((out * u).sum(-1).abs().max()) < 1e-12
    torch.testing.assert_close(remove(out, u), out)
    torch.testing.assert_close(out, remove(g, u))  # the norm of u does not matter


def test_products_through_r_by_r_matrices_are_the_dense_ones() -> None:
    p, q = made(1), made(2, r=6, scale=0.5)
    torch.testing.assert_close(inner(p, q), (p.dense() * q.dense()).sum((-2, -1)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm(p), p.dense().flatten(1).norm(dim=1), rtol=1e-12, atol=0)
    torch.testing.assert_close(difference(p, q).dense(), p.dense() - q.dense(), rtol=1e-12, atol=1e-12)


def test_the_tangent_is_the_gradient_by_finite_differences() -> None:
    theta, target = made(3, m=1), made(4, m=1, r=5)
    v_b, v_a = tangent(theta, target)
    step = 1e-6
    for name, at, grad in (("B", theta.B, v_b), ("A", theta.A, v_a)):
        for place in ((0, 1, 2), (0, 3, 0)):
            value = []
            for sign in (1, -1):
                moved = at.clone()
                moved[place] += sign * step
                there = Factors(moved, theta.A, 2.0) if name == "B" else Factors(theta.B, moved, 2.0)
                value.append(float(inner(there, target)[0]))
            assert float(grad[place]) == pytest.approx((value[0] - value[1]) / (2 * step), rel=1e-6)


def test_the_tangent_is_autograds() -> None:
    theta, target = made(5), made(6)
    b, a = theta.B.clone().requires_grad_(), theta.A.clone().requires_grad_()
    inner(Factors(b, a, theta.scale), target).sum().backward()
    v_b, v_a = tangent(theta, target)
    torch.testing.assert_close(b.grad, v_b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.grad, v_a, rtol=1e-12, atol=1e-12)


def test_left_singular_vectors_are_those_of_the_dense_change() -> None:
    change = made(7)
    u, values = left_subspace(change, 2)
    full, sigma, _ = torch.linalg.svd(change.dense())
    torch.testing.assert_close(values, sigma[:, :4], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(u @ u.mT, full[..., :2] @ full[..., :2].mT, rtol=1e-9, atol=1e-9)
    b = remove_left(change.B, u)
    assert float((u.mT @ b).abs().max()) < 1e-12
    torch.testing.assert_close(remove_left(b, u), b)


def test_retraction_meets_the_constraint_where_the_tangent_step_alone_does_not() -> None:
    target, start = made(8, r=3), Factors(torch.zeros(3, 12, 4, dtype=torch.float64), made(9).A, 2.0)
    offset = inner(start, target)
    with_retraction = alone = start
    noise = torch.Generator().manual_seed(1)
    worst = worst_alone = 0.0
    for _ in range(200):
        d_b = 0.05 * torch.randn(3, 12, 4, generator=noise, dtype=torch.float64)
        d_a = 0.05 * torch.randn(3, 4, 9, generator=noise, dtype=torch.float64)
        after = Factors(with_retraction.B + d_b, with_retraction.A + d_a, 2.0)
        with_retraction, _ = constrain(with_retraction, after, target, offset)
        worst = max(worst, float(cosine(difference(with_retraction, start), target).abs().max()))
        v = torch.cat([t.flatten(1) for t in tangent(alone, target)], 1)
        step = remove(torch.cat([d_b.flatten(1), d_a.flatten(1)], 1), v)
        alone = Factors(alone.B + step[:, :48].view(3, 12, 4), alone.A + step[:, 48:].view(3, 4, 9), 2.0)
        worst_alone = max(worst_alone, float(cosine(difference(alone, start), target).abs().max()))
    assert worst < 1e-6
    assert worst_alone > 0.005


def test_a_step_without_a_real_root_is_halved_until_there_is_one() -> None:
    # R = diag(1, .1), B one column b, A one row a: <ΔW, R> = b₁a₁ + .1·b₂a₂, v = (Ra, Rb).
    # From b = 0, a = (4.4, 11): v = ((4.4, 1.1), 0). Of the step to b = (8.2, -.14), a = (.25, -3.1) the part along v
    # goes: 8.2·4.4 - .14·1.1 = 35.926, ‖v‖² = 20.57, so b = (8.2 - 7.685, -.14 - 1.921) = (.515, -2.061).
    # There c = .515·.25 + .1·2.061·3.1 = .768, v = ((.25, -.31), (.515, -.206)), ‖v‖² = .466, and
    # q = .25·.515 + .1·.31·.206 = .135: ‖v‖⁴ - 4qc = .217 - .415 < 0, so there is no root.
    target = Factors(torch.eye(2, dtype=torch.float64)[None], diagonal(1.0, 0.1), 1.0)
    before = Factors(column(0.0, 0.0), column(4.4, 11.0).mT, 1.0)
    after = Factors(column(8.2, -0.14), column(0.25, -3.1).mT, 1.0)
    moved, size = constrain(before, after, target, torch.zeros(1, dtype=torch.float64))
    assert float(inner(moved, target)) == pytest.approx(0.0, abs=1e-12)
    assert float(size) == 0.5


def column(x: float, y: float) -> torch.Tensor:
    return torch.tensor([[[x], [y]]], dtype=torch.float64)


def diagonal(x: float, y: float) -> torch.Tensor:
    return torch.diag(torch.tensor([x, y], dtype=torch.float64))[None]


def test_large_steps_end_on_the_constraint_too() -> None:
    target, start = made(8, m=50, r=3), made(9, m=50)
    target = Factors(target.B * torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64), target.A, 1.0)
    offset = inner(start, target)
    far = made(10, m=50)
    moved, size = constrain(start, Factors(3 * far.B, 3 * far.A, 2.0), target, offset)
    assert float(((inner(moved, target) - offset) / (norm(moved) * norm(target))).abs().max()) < 1e-12
    assert float(size.max()) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_other_factors_of_the_same_change_give_the_same_constraint(seed: int) -> None:
    target, theta = made(seed), made(seed + 1)
    g = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3 * torch.eye(4)
    other = regauge(target, g.double())
    torch.testing.assert_close(other.dense(), target.dense(), rtol=1e-8, atol=1e-8)
    for ours, theirs in zip(tangent(theta, target), tangent(theta, other), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    u, w = left_subspace(target, 2)[0], left_subspace(other, 2)[0]
    torch.testing.assert_close(u @ u.mT, w @ w.mT, rtol=1e-5, atol=1e-5)
