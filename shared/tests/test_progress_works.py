"""How far long work is: counts, rates, and which lines the log gets."""

from __future__ import annotations

import logging

import pytest

from alignment_core import progress
from alignment_core.pipeline.process_group import ProcessGroup


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    time = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: time[0])
    return time


def lines(caplog, level=logging.INFO):
    return [r.getMessage() for r in caplog.records if r.levelno >= level]


def test_a_rate_is_of_late_and_leaves_out_what_was_done_before(clock):
    with progress.work("training", 120, "steps", done=40) as told:
        assert told.rate is None
        assert told.left is None
        clock[0] += 10
        told.at(60, "loss 1.2300")
        assert told.rate == 2.0  # 20 steps in 10 s, not 60
        assert told.left == 30.0  # 60 steps
        assert told.text() == "training 60/120 steps, 2.0/s, 30 s left, loss 1.2300"
        for _ in range(10):  # 1 step in 10 s from here on: the fast begin leaves the window of a minute
            clock[0] += 10
            told.advance()
        assert told.rate == pytest.approx(0.1)


def test_a_log_line_after_ten_seconds_and_then_a_tenth_of_the_work(clock, caplog):
    caplog.set_level(logging.INFO, "alignment_core")
    with progress.work("replies", 1000, "texts") as told:
        for _ in range(1000):  # 125 s
            clock[0] += 0.125
            told.advance()
    assert lines(caplog)[0] == "replies 100/1000 texts, 8.0/s, 1 min 52 s left"
    assert len(lines(caplog)) == 10


def test_a_slow_work_is_heard_of_every_five_minutes(clock, caplog):
    caplog.set_level(logging.INFO, "alignment_core")
    with progress.work("training", 100_000, "steps") as told:
        for _ in range(60):  # an hour
            clock[0] += 60
            told.advance()
    assert len(lines(caplog)) == 12


def test_a_short_work_leaves_no_line_above_debug(clock, caplog):
    caplog.set_level(logging.DEBUG, "alignment_core")
    for batch in progress.each([[1, 2], [3]], "scores", "texts", len):
        clock[0] += 1
        assert progress.now().works[-1].done == (0 if batch == [1, 2] else 2)
    assert progress.now().works == []
    assert lines(caplog) == []
    assert lines(caplog, logging.DEBUG)[-1] == "scores: 2.0 s"


def test_a_step_is_told_with_its_seed_and_its_time_and_how_it_ended(clock, caplog):
    caplog.set_level(logging.INFO, "alignment_core")
    with progress.step("stage_a", 13, "stage_a-s13-0123", again=False):
        assert progress.now().step == "seed 13: stage_a"
        clock[0] += 75
        with progress.work("training", 3, "steps") as told:
            clock[0] += 11
            told.advance()
    with pytest.raises(KeyboardInterrupt), progress.step("data", None, "data-0123", again=True):  # noqa: PT012
        progress.work("never closed", 1).__enter__()
        raise KeyboardInterrupt
    progress.kept("dpo", 13, "dpo-s13-0123")
    assert lines(caplog) == [
        "seed 13: stage_a: starts",
        "seed 13: stage_a: training 1/3 steps, 0.091/s, 22 s left",
        "seed 13: stage_a: done in 1 min 26 s",
        "data: continues",
        "data: stopped after 0.0 s",
        "seed 13: dpo: kept",
    ]
    assert progress.now() == progress.Now()


def test_shared_batches_are_told_and_done_in_order(caplog):
    caplog.set_level(logging.DEBUG, "alignment_core")
    seen = []

    def work(batch):
        seen.append(progress.now().works[-1].text())
        return sum(batch)

    assert ProcessGroup().map_batches([[1, 2], [3]], work, "scores", "texts", len) == [3, 3]
    assert seen[0] == "scores 0/3 texts"
    assert ProcessGroup().map_batches([[1, 2], [3]], sum) == [3, 3]
    two = ProcessGroup(1, 2, lambda mine: [[3], mine])
    assert two.map_batches([[1, 2], [4]], work, "scores", "texts", len) == [3, 4]
    assert seen[2] == "scores (one process of 2) 0/1 texts"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90_000, "1 d 01 h"),
        (1e7, "115 d 17 h"),
    ],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(0.0123, "0.012"), (0.96, "1.0"), (12.34, "12.3"), (1234.5, "1234")])
def test_rates(rate, text):
    assert progress.figures(rate) == text
