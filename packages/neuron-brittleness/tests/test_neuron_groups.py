"""Selection, tie rule, packing, set difference, matched random groups: against sorting and counting by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment_core.errors import UserError
from neuron_brittleness import groups, matching
from neuron_brittleness.groups import Group


def test_ties_go_to_the_first_in_row_major_order() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [2.0, 2.0, 0.0]])
    assert groups.top(scores, 1).tolist() == [[False, True, False], [False, False, False]]
    assert groups.top(scores, 3).tolist() == [[False, True, True], [True, False, False]]


@given(st.integers(1, 400), st.integers(0, 5), st.floats(0.001, 1))
@settings(max_examples=60, deadline=None)
def test_top_equals_a_stable_sort(n: int, levels: int, share: float) -> None:
    rng = np.random.default_rng(n)
    values = rng.integers(0, levels + 1, n).astype(np.float32)
    k = groups.count(n, share)
    wanted = np.zeros(n, bool)
    wanted[np.argsort(-values, kind="stable")[:k]] = True
    assert np.array_equal(groups.top(torch.from_numpy(values), k), wanted)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_sampled_selection_is_exact_on_large_matrices(share: float, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(1)
    for values in (rng.normal(size=200_003), np.arange(200_000.0) % 60_000, np.floor(rng.exponential(size=150_000))):
        flat = torch.from_numpy(values).to(dtype)
        k = groups.count(len(values), share)
        wanted = np.argsort(-flat.double().numpy(), kind="stable")[:k]
        assert np.array_equal(np.flatnonzero(groups.top(flat, k)), np.sort(wanted))


@pytest.mark.parametrize("sampled", [0.0, 9.0])
def test_a_sample_that_misleads_changes_nothing(sampled: float) -> None:
    values = np.random.default_rng(2).random(131_077)
    values[:: len(values) // (1 << 14) | 1] = sampled  # all that the sample sees is lowest, or highest
    for k in (1, 1000, 131_076):
        wanted = np.argsort(-values, kind="stable")[:k]
        assert np.array_equal(np.flatnonzero(groups.top(torch.from_numpy(values), k)), np.sort(wanted))


def test_taking_the_top_is_putting_its_mask() -> None:
    scores = torch.rand(33, 17)
    one, two = Group("one"), Group("two")
    for unit in ("weights", "neurons"):
        one.take("m", scores, 0.1, unit)
        two.put("m", groups.select(scores, 0.1, unit))
        assert (one.bits["m"] == two.bits["m"]).all()
        assert one.shapes == two.shapes


def test_keys_order_as_the_scores_and_zero_has_one_key() -> None:
    scores = torch.tensor([-float("inf"), -2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0, float("inf")])
    found = groups.keys(scores)
    assert found[3] == found[4] == 0
    assert (np.diff(np.delete(found, 3)) > 0).all()
    assert np.array_equal(groups.keys(scores[4:]), scores[4:].view(torch.int32).numpy())


def test_neurons_are_whole_rows_by_their_sum() -> None:
    scores = torch.tensor([[5.0, 0.0], [3.0, 3.0], [1.0, 0.0]])
    assert groups.select(scores, 0.34, "neurons").tolist() == [[False, False], [True, True], [False, False]]


def test_a_nan_score_is_an_error() -> None:
    for nan in (float("nan"), -float("nan")):
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            with pytest.raises(UserError, match="NaN"):
                groups.top(torch.tensor([1.0, nan, 2.0], dtype=dtype), 1)


def _group(name: str, mask: list[list[int]], matrix: str = "m.0.w") -> Group:
    group = Group(name)
    group.put(matrix, np.array(mask, dtype=bool))
    return group


def test_set_difference_is_safety_without_utility() -> None:
    safety, utility = _group("s", [[1, 1, 0], [1, 0, 0]]), _group("u", [[1, 0, 1], [0, 0, 0]])
    critical = safety.minus(utility, "set_diff")
    assert critical.mask("m.0.w").tolist() == [[False, True, False], [True, False, False]]
    assert critical.size() == 2
    assert critical.total == 6
    assert critical.indices("m.0.w").tolist() == [1, 3]
    assert safety.both(utility, "b").size() == 1
    assert safety.union(utility, "u").size() == 4
    table = groups.sizes({"s": safety, "u": utility})
    assert table[0] == {"group": "s", "weights": 3, "share": 0.5}
    assert table[2] == {"a": "s", "b": "u", "overlap": 1, "jaccard": 0.25}


def test_a_group_is_never_skipped_silently() -> None:
    # Upstream: writer and reader named the files differently, and the groups fell out without a word.
    group = _group("top_safety", [[1, 0]])
    with pytest.raises(UserError, match=r"no mask for m\.1\.w"):
        group.mask("m.1.w")
    with pytest.raises(UserError, match="score the model first"):
        Group.load(Path("neuron_groups_snip_top.safetensors"))
    with pytest.raises(UserError, match="different models"):
        group.minus(_group("u", [[1, 0, 0]]), "d")


def test_files_hold_one_bit_a_weight_and_come_back_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    group = Group("g", about={"share": 0.1})
    group.put("a.0.w", rng.random((33, 17)) < 0.1)
    group.put("a.1.w", rng.random((512, 512)) < 0.1)
    group.save(tmp_path / "g.safetensors")
    again = Group.load(tmp_path / "g.safetensors")
    assert again.digest() == group.digest()
    assert again.about == {"share": 0.1}
    for name in group.bits:
        assert np.array_equal(again.mask(name), group.mask(name))
    assert group.bits["a.1.w"].nbytes == 512 * 512 // 8
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="not a group"):
        Group.load(tmp_path / "bad.safetensors")


def test_parts_are_nested_and_of_the_right_size() -> None:
    group = _group("g", [[1] * 40, [0] * 40])
    quarter, half = group.part(0.25, 1, "q"), group.part(0.5, 1, "h")
    assert (quarter.size(), half.size()) == (10, 20)
    assert quarter.minus(half, "d").size() == 0
    assert half.minus(group, "d").size() == 0


def test_matched_random_has_the_cells_of_its_group_and_is_disjoint() -> None:
    torch.manual_seed(0)
    weight, wanda = torch.randn(60, 80), torch.rand(60, 80)
    cells = matching.strata(weight, wanda)
    for part, values in ((cells // matching.DECILES, weight.abs()), (cells % matching.DECILES, wanda)):
        ranks = values.reshape(-1).argsort().argsort().numpy()
        assert np.array_equal(part, ranks * 10 // len(ranks)), "deciles of |W| and of Wanda's scores"
    mask = groups.top(weight.abs() / 4 + torch.rand(60, 80), 240)
    match, exact = matching.matched(mask, cells, "m", 7)
    assert exact == 1.0
    assert match.sum() == 240
    assert not (match & mask).any()
    assert np.array_equal(
        np.bincount(cells[match.reshape(-1)], minlength=100), np.bincount(cells[mask.reshape(-1)], minlength=100)
    )
    other, _ = matching.matched(mask, cells, "m", 8)
    assert not np.array_equal(match, other)


def test_a_full_cell_is_filled_from_the_nearest_and_said_so() -> None:
    cells = np.array([99] * 4 + [98] * 4 + [0] * 92, dtype=np.int16)
    mask = np.zeros((10, 10), bool)
    mask.reshape(-1)[:4] = True
    match, exact = matching.matched(mask, cells, "m", 0)
    assert exact == 0.0
    assert set(np.flatnonzero(match)) == {4, 5, 6, 7}
    with pytest.raises(UserError, match="no disjoint match"):
        matching.matched(np.ones((10, 10), bool), cells, "m", 0)


def test_no_weights_have_no_match_and_that_is_no_error() -> None:
    match, exact = matching.matched(np.zeros((10, 10), bool), np.zeros(100, np.int16), "m", 0)
    assert match.shape == (10, 10)
    assert not match.any()
    assert exact == 1.0


def test_the_original_rows_are_row_column_score() -> None:
    mask = np.array([[False, True], [True, False]])
    assert groups.original_rows(mask, torch.tensor([[0.0, 2.5], [4.0, 0.0]])) == [[0, 1, 2.5], [1, 0, 4.0]]
