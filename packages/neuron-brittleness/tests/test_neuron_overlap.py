"""Overlap: by hand, the exact null against permuting, and two scorings that share |W| alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alignment_core.stats.rules import hypergeometric_jaccard
from neuron_brittleness import groups, matching, overlap
from neuron_brittleness.overlap import Cells


def test_jaccard_by_hand() -> None:
    a, b = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool)
    cells = np.zeros(4, np.int16)
    found = overlap.overlap({"m": overlap.tally(a, b, cells)}, 200, 0)
    assert (found.a, found.b, found.both) == (2, 2, 1)
    assert found.jaccard == pytest.approx(1 / 3)
    assert found.share == 0.5
    empty = overlap.overlap({"m": overlap.tally(~(a | ~a), ~(b | ~b), cells)}, 200, 0)
    assert math.isnan(empty.jaccard)


def test_the_null_is_that_of_permuting_within_cells() -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 4, 300).astype(np.int16)
    a = rng.random(300) < 0.1 + 0.2 * (cells == 3)
    b = rng.random(300) < 0.1 + 0.2 * (cells == 3)
    drawn = overlap.null(overlap.tally(a, b, cells), 4000, rng)
    permuted = []
    for _ in range(4000):
        shuffled = b.copy()
        for cell in range(4):
            here = np.flatnonzero(cells == cell)
            shuffled[here] = b[rng.permutation(here)]
        permuted.append(int((a & shuffled).sum()))
    assert drawn.mean() == pytest.approx(np.mean(permuted), abs=0.15)
    assert drawn.std() == pytest.approx(np.std(permuted), rel=0.06)


def test_a_cell_where_all_is_taken_is_no_chance_at_all() -> None:
    cells = Cells(np.array([5]), np.array([5]), np.array([5]), 5)
    assert overlap.null(cells, 100, np.random.default_rng(0)).tolist() == [5] * 100


def test_two_scorings_that_share_only_the_weights_do_not_beat_the_stratified_null() -> None:
    # The independent-sets null says .005 at 1% and always rejects; the two share |W| and nothing else.
    rng = np.random.default_rng(2)
    n = 60_000
    w = rng.normal(size=n)
    p, naive = [], []
    for _ in range(12):
        one, two = (np.abs(w) * np.abs(rng.normal(size=n)) for _ in range(2))
        a, b = (groups.top(torch.from_numpy(s), 600) for s in (one, two))
        cells = matching.strata(torch.from_numpy(w), torch.from_numpy(rng.random(n)), 10)
        found = overlap.overlap({"m": overlap.tally(a, b, cells)}, 200, 0)
        p.append(found.p)
        naive.append(found.jaccard / hypergeometric_jaccard(0.01))
    assert np.mean(naive) > 4
    assert np.mean(found.null_mean) > 3 * hypergeometric_jaccard(0.01)


def test_layers_and_the_normalised_overlap() -> None:
    rng = np.random.default_rng(1)
    cells = {f"l.{i}.w": np.zeros(400, np.int16) for i in range(2)}
    mask = {name: rng.random((20, 20)) < 0.2 for name in cells}
    same = {name: overlap.tally(m, m, cells[name]) for name, m in mask.items()}
    by_layer = overlap.layers(same, {"l.0.w": 0, "l.1.w": 1}, 200, 3)
    assert set(by_layer) == {0, 1}
    assert all(o.jaccard == 1 and o.p == pytest.approx(1 / 201) for o in by_layer.values())
    total = overlap.overlap(same, 200, 3)
    assert overlap.against(total, total) == pytest.approx(1)
