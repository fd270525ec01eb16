"""Heartbeats in a folder: who is lost, and when, by a clock that the test moves; what is said; what is taken away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignment_core.errors import UserError
from alignment_core.pipeline import heartbeat
from alignment_core.pipeline.heartbeat import INTERVAL, LIMIT, Ranks, sweep


class Clock:
    """Seconds that only the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat.time, "monotonic", clock)
    return clock


def start(folder: Path, size: int, name: str = "a") -> list[Ranks]:
    ranks = [Ranks(folder, name, rank, size) for rank in range(size)]
    for one in ranks:
        one.look()
    return ranks


def beat(rank: Ranks, clock: Clock) -> None:
    """A heartbeat whose time on disk is one no other has, however coarse the disk's clock is."""
    rank.show()
    os.utime(rank.folder / f"{rank.rank}.json", (clock.now, clock.now))


def passes(seconds: float, clock: Clock, beating: list[Ranks], looking: list[Ranks]) -> None:
    end = clock.now + seconds
    while clock.now < end:
        clock.now += INTERVAL
        for one in beating:
            beat(one, clock)
        for one in looking:
            one.look()


def numbers(rank: Ranks, limit: float | None = None) -> list[int]:
    return [process.rank for process in rank.lost(limit)]


def test_the_intervals_are_those_that_are_promised() -> None:
    assert (INTERVAL, LIMIT) == (10, 180)


def test_only_the_rank_without_a_heartbeat_is_lost(tmp_path: Path, clock: Clock) -> None:
    first, second, third = start(tmp_path, 3)
    passes(LIMIT - INTERVAL, clock, [first, third], [first, third])
    assert numbers(first) == numbers(third) == []
    passes(INTERVAL, clock, [first, third], [first, third])
    assert numbers(first) == numbers(third) == [1]
    passes(5 * 3600, clock, [first, second, third], [first, second, third])
    assert numbers(first) == numbers(second) == []


def test_who_could_not_look_begins_to_count_again(tmp_path: Path, clock: Clock) -> None:
    first, second = start(tmp_path, 2)
    clock.now += 10 * LIMIT  # this process was stopped, or its disk did not answer
    first.look()
    assert numbers(first) == []
    passes(LIMIT, clock, [first], [first])
    assert numbers(first) == [1]
    beat(second, clock)
    first.look()
    assert numbers(first) == []


def test_who_leaves_is_not_lost(tmp_path: Path, clock: Clock) -> None:
    first, second = start(tmp_path, 2)
    second.leave()
    passes(2 * LIMIT, clock, [first], [first])
    assert numbers(first) == []
    first.leave()
    assert list(tmp_path.iterdir()) == []


def dead() -> int:
    """The number of a process that is gone."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def taken_over(rank: Ranks, pid: int) -> None:
    """As if another process were that rank."""
    file = rank.folder / f"{rank.rank}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": pid}))


def test_a_process_that_is_gone_is_lost_at_once(tmp_path: Path, clock: Clock) -> None:
    first, second = (Ranks(tmp_path, "a", rank, 2) for rank in range(2))
    taken_over(second, dead())
    first.look()
    assert numbers(first) == [1]
    assert str(first.error(first.lost())).endswith(
        ": the process is gone; what is made is kept: the same command continues"
    )


def test_a_process_that_its_parent_has_not_waited_for_is_gone(tmp_path: Path) -> None:
    first, second = (Ranks(tmp_path, "a", rank, 2) for rank in range(2))
    child = subprocess.Popen([sys.executable, "-c", "print(flush=True)"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    taken_over(second, child.pid)
    first.look()
    assert numbers(first) == [1]
    child.wait()
    child.stdout.close()


def test_a_process_on_another_machine_is_judged_by_its_heartbeat(tmp_path: Path, clock: Clock) -> None:
    first, second = (Ranks(tmp_path, "a", rank, 2) for rank in range(2))
    file = second.folder / "1.json"
    file.write_text(json.dumps({"rank": 1, "host": "node7", "machine": "another", "pid": dead()}))
    first.look()
    assert numbers(first) == []
    passes(LIMIT, clock, [first], [first])
    line = str(first.error(first.lost()))
    assert line.startswith("lost rank 1 on host node7 (process ")
    assert line.endswith("): no heartbeat for 180 s; what is made is kept: the same command continues")


def test_the_lowest_rank_alive_says_which_are_lost(tmp_path: Path, clock: Clock) -> None:
    ranks = start(tmp_path, 4)
    passes(LIMIT, clock, [ranks[1], ranks[3]], [ranks[1], ranks[3]])
    assert numbers(ranks[3]) == [0, 2]
    assert [rank.lowest(rank.lost()) for rank in (ranks[1], ranks[3])] == [True, False]
    line = str(ranks[1].error(ranks[1].lost()))
    assert line.index("rank 0 on host") < line.index(", rank 2 on host")
    assert "\n" not in line


def test_one_rank_is_the_first_to_fail(tmp_path: Path) -> None:
    first, second = start(tmp_path, 2)
    assert first.claimed() is None
    assert [second.claim(130), first.claim(1), second.claim(1)] == [True, False, False]
    assert first.claimed() == 130


def test_what_dead_starts_left_is_taken_away_and_no_other(tmp_path: Path) -> None:
    for name, machine, pid, age in (
        ("dead", None, dead(), 0), ("alive", None, os.getpid(), 0), ("elsewhere", "another", dead(), 0),
        ("silent", "another", 1, 90_000),
    ):  # fmt: skip
        one = Ranks(tmp_path, name, 0, 2)
        taken_over(one, pid)
        file = one.folder / "0.json"
        if machine:
            file.write_text(json.dumps({**json.loads(file.read_text()), "machine": machine}))
        os.utime(file, (file.stat().st_mtime - age,) * 2)
    (tmp_path / ".ranks-torn").mkdir()
    (tmp_path / ".ranks-torn" / "0.json").write_text("{")
    sweep(tmp_path)
    kept = {path.name.removeprefix(".ranks-") for path in tmp_path.iterdir()}
    assert kept == {"alive", "elsewhere", "torn"}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write in .*; make it writable for every rank, or choose another"):
        Ranks(tmp_path / "file", "a", 0, 2)
