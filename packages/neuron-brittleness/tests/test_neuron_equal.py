"""Comparisons at an equal level, by hand: topic loss by cutting the costlier side, training loss by interpolation."""

from __future__ import annotations

import math
from typing import Any

import pytest

from neuron_brittleness import drift_ratios, levels
from neuron_brittleness.collect import Found


def test_the_cut_finds_the_share_at_which_the_loss_is_the_level() -> None:
    found = levels.cut(lambda share: 1 + share**2, full=2.0, level=1.25)
    assert found.loss == pytest.approx(1.25, rel=levels.TOLERANCE)
    assert found.share == pytest.approx(0.5, abs=0.01)
    # Undoing a change lowers the loss: the same search, downwards.
    assert levels.cut(lambda share: 2 - share, full=1.0, level=1.5).share == pytest.approx(0.5, abs=0.01)


def test_only_the_side_that_costs_more_is_cut() -> None:
    cheap, dear = (lambda share: 1 + share / 4), (lambda share: 1 + share)
    found = levels.equalise(1.0, (1.25, 2.0), (cheap, dear))
    assert found is not None
    assert found[0] == levels.Cut(1.0, 1.25)
    assert found[1].share == pytest.approx(0.25, abs=0.01)
    swapped = levels.equalise(1.0, (2.0, 1.25), (dear, cheap))
    assert swapped == [found[1], found[0]]


def test_sides_that_cost_the_same_are_left_whole_and_opposite_ones_have_no_common_cost() -> None:
    def never(share: float) -> float:
        raise AssertionError(share)

    assert levels.equalise(1.0, (1.2, 1.203), (never, never)) == [levels.Cut(1.0, 1.2), levels.Cut(1.0, 1.203)]
    assert levels.equalise(1.0, (0.8, 1.3), (never, never)) is None


def _measured(step: int, loss: float, rms: float) -> dict[str, Any]:
    rows = [
        {"group": g, "matrix": f"m.{layer}", "layer": layer, "rms": size, "absolute": size}
        for layer in range(3)
        for g, size in (("set_diff", rms), ("set_diff_matched", 0.5 * rms if step < 20 else rms))
    ]
    return {"step": step, "loss": loss, "groups": rows}


def test_drift_at_equal_training_loss_lies_between_the_measured_steps() -> None:
    # The free arm reaches the frozen arm's final loss .8 at step 14: .6 of step 10, .4 of step 20.
    found = Found("set_diff")
    found.drift = {
        "free": {13: [_measured(0, 2.0, 0.0), _measured(10, 1.0, 1.0), _measured(20, 0.5, 2.0)]},
        "frozen": {13: [_measured(0, 2.0, 0.0), _measured(10, 1.2, 1.0), _measured(20, 0.8, 1.4)]},
    }
    free = {"step": 14.0, "before": 10, "after": 20, "weight": 0.4}
    found.matched = {13: {"level": 0.8, "free": free, "frozen": {"step": 20, "before": 20, "after": 20, "weight": 1.0}}}
    at = {(r["group"], r["matrix"]): r for r in drift_ratios.changes(found, "free", 13, equal=True)}
    assert at["set_diff", "m.0"]["rms"] == pytest.approx(0.6 * 1 + 0.4 * 2)
    assert at["set_diff_matched", "m.0"]["rms"] == pytest.approx(0.6 * 0.5 + 0.4 * 2)
    ratios, layers = drift_ratios.log_ratios(found, "free", "set_diff", "set_diff_matched", equal=True)
    assert layers == [0, 1, 2]
    assert ratios[:, 0].tolist() == pytest.approx([math.log(1.4 / 1.1)] * 3)
    # At equal steps the free arm has moved more (2 against 1.4), at equal training loss no more than the frozen one.
    for equal, expected in ((False, 1.4 / 2), (True, 1.4 / 1.4)):
        x, _ = drift_ratios.arm_ratios(found, ("frozen", "free"), ("set_diff", "set_diff"), equal)
        assert x[:, 0].tolist() == pytest.approx([math.log(expected)] * 3)
