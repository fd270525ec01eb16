"""Equal levels by hand: of topic loss by cutting the costlier side, of training loss between measured steps."""

from __future__ import annotations

from typing import Any

import pytest

from neuron_brittleness import levels
from neuron_brittleness.measured import Between, matched_step


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


def _curve(*points: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"step": step, "loss": loss} for step, loss in points]


def test_equal_training_loss_is_the_higher_of_the_two_final_ones() -> None:
    found = matched_step(_curve((0, 2.0), (10, 1.0), (20, 0.5)), _curve((0, 2.0), (10, 1.2), (20, 0.8)))
    assert found["frozen"] == Between(20, 20, 20, 1.0)
    assert found["free"].step == pytest.approx(14)
    assert (found["free"].before, found["free"].after) == (10, 20)
    assert found["free"].weight == pytest.approx(0.4)
    assert found["free"].mix(1.0, 2.0) == pytest.approx(1.4)


def test_the_first_time_at_the_level_counts() -> None:
    # A loss that falls, rises and falls again is read where it first is as low; a level of the start is step 0.
    found = matched_step(_curve((0, 2.0), (10, 0.6), (20, 1.0), (30, 0.5)), _curve((0, 2.0), (30, 0.8)))
    assert (found["free"].before, found["free"].after) == (0, 10)
    assert found["free"].step == pytest.approx(10 * 1.2 / 1.4)
    assert matched_step(_curve((0, 1.0), (10, 0.5)), _curve((0, 1.0), (10, 3.0)))["free"] == Between(0, 0, 0, 1.0)
