"""Two processes under the real torchrun: one is killed, stopped or slow, the launcher is killed, the user interrupts.

The command is a study's; the intervals of the heartbeats are shortened. Rank 1 is inside one call of C code that no
signal interrupts, as in a long batch, and rank 0 waits for it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

INTERVAL, LIMIT = 0.3, 3.0
MAIN = f"""
import hashlib, os, socket, time
from pathlib import Path
from alignment_core import io
from alignment_core.cli import Study, build
from alignment_core.config import Settings
from alignment_core.pipeline import heartbeat, writers
from alignment_core.pipeline.process_group import process_group
heartbeat.INTERVAL, heartbeat.LIMIT = {INTERVAL}, {LIMIT}
if "HOST" in os.environ:  # as if on a machine of its own
    heartbeat.host_id = socket.gethostname = lambda: os.environ["HOST"]
class Config(Settings):
    rows: int = 3
def in_one_call(seconds):
    begun, count = time.monotonic(), 200_000
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", count)
    rounds = int(count / (time.monotonic() - begun) * seconds)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", min(rounds, 2**31 - 1))
def study(run, config, seed):
    def work(folder):
        share, file = process_group(), folder / "rows.jsonl"
        known = share.broadcast(lambda: io.recover_jsonl(file))
        for number in range(len(known), config.rows):
            if number == 1:
                Path(f"process-{{share.rank}}").write_text(str(os.getpid()))
                if share.rank == 1:
                    in_one_call(float(os.environ["SECONDS_IN_A_BATCH"]))
            share.barrier()
            writers.append_jsonl(file, [{{"row": number, "start": os.environ["START"]}}])
    run.do("rows", work, seed=seed, together=True)
    yield "train"
if __name__ == "__main__":
    build(Study("toy", "toy_ranks", Config, "t", (("train", "t"),), "__main__:study", "x:y", "x:y"))()
"""
CODES = """
import signal, subprocess, sys, os
worker = subprocess.Popen([sys.executable, *sys.argv[1:]])
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
with open(f"code-{os.environ['RANK']}", "w") as file:
    file.write(str(worker.wait()))
"""
"""Writes a worker's exit code to a file: an interrupted launcher does not tell it."""


@dataclass
class Started:
    """A start of the study with two processes."""

    place: Path
    launcher: subprocess.Popen[bytes]
    acted: float = 0.0

    @property
    def err(self) -> str:
        return (self.place / "err").read_text()

    @property
    def ranks(self) -> list[int]:
        return [int((self.place / f"process-{rank}").read_text()) for rank in (0, 1)]

    def act(self, action: Callable[[], None]) -> None:
        """Do it half a second after both ranks have begun the long batch."""
        until(lambda: all((self.place / f"process-{rank}").exists() for rank in (0, 1)), 90)
        time.sleep(0.5)
        action()
        self.acted = time.monotonic()

    def seconds(self, what: Callable[[], bool], most: float) -> float:
        """When that happened, in seconds after the action."""
        until(what, most)
        return time.monotonic() - self.acted

    def said(self) -> list[str]:
        """What the study's processes have said: all lines that are not the launcher's."""
        lines = self.err.partition("Traceback")[0].splitlines()
        return [line for line in lines if line.startswith(("error:", "interrupted")) or "alignment_core" in line]


def environment(place: Path, name: str, seconds: float, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH", ""))))
    ours = {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **ours, "START": name, "SECONDS_IN_A_BATCH": str(seconds), **more}


def until(what: Callable[[], bool], most: float) -> None:
    end = time.monotonic() + most
    while not what():
        assert time.monotonic() < end, f"not within {most} s"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    (tmp_path / "toy_ranks" / "presets").mkdir(parents=True)
    (tmp_path / "toy_ranks" / "__init__.py").touch()
    (tmp_path / "toy_ranks" / "presets" / "tiny.toml").touch()
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "codes.py").write_text(CODES)
    started: list[Started] = []

    def begin(name: str = "first", seconds: float = 600, script: str = "main.py") -> Started:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += [*script.split(), "train", "--quiet"]
        for file in tmp_path.glob("process-*"):
            file.unlink()
        with (tmp_path / "err").open("w") as err:
            # As a terminal starts it: the launcher leads the group that Ctrl-C is sent to.
            launcher = subprocess.Popen(
                command, cwd=tmp_path, env=environment(tmp_path, name, seconds), stderr=err, start_new_session=True
            )
        started.append(Started(tmp_path, launcher))
        return started[-1]

    yield begin
    for one in started:
        for pid in [*(one.ranks if (tmp_path / "process-1").exists() else []), one.launcher.pid]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        one.launcher.wait()


def rows(place: Path) -> list[tuple[int, str]]:
    (file,) = place.glob("runs/toy/steps/*rows-s13-*/rows.jsonl")
    return [(row["row"], row["start"]) for row in map(json.loads, file.read_text().splitlines())]


def lost(line: str, rank: int, pid: int) -> str:
    """Why that rank was lost, by the one line that says so."""
    host = re.escape(socket.gethostname())
    found = re.fullmatch(
        rf"error: lost rank {rank} on host {host} \(process {pid}, last heartbeat \d\d:\d\d:\d\d\): (.*); "
        "what is made is kept: the same command continues",
        line,
    )
    assert found, line
    return found[1]


def test_a_killed_rank_is_named_and_the_same_command_continues(start: Callable[..., Started]) -> None:
    run = start()
    run.act(lambda: os.kill(run.ranks[1], signal.SIGKILL))
    seconds = run.seconds(lambda: bool(run.said()), 10)
    run.launcher.wait(40)
    (line,) = run.said()
    assert lost(line, 1, run.ranks[1]) == "the process is gone"
    assert seconds < 3
    assert re.findall(r"exitcode +: (-?\d+)", run.err) == ["2", "-9"]  # rank 0's is that of a step left open
    assert rows(run.place) == [(0, "first")]
    again = start("second", 0.1)
    assert again.launcher.wait(90) == 0, again.err
    assert rows(run.place) == [(0, "first"), (1, "second"), (2, "second")]
    assert not list(run.place.glob("runs/toy/tiny/.ranks-*"))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_is_lost_after_the_limit(start: Callable[..., Started], rank: int) -> None:
    run = start()
    run.act(lambda: os.kill(run.ranks[rank], signal.SIGSTOP))
    seconds = run.seconds(lambda: bool(run.said()), 20)
    until(lambda: not alive(run.ranks[1 - rank]), 5)
    os.kill(run.ranks[rank], signal.SIGKILL)  # torchrun itself would do so after 30 s
    run.launcher.wait(40)
    (line,) = run.said()
    assert lost(line, rank, run.ranks[rank]) == f"no heartbeat for {LIMIT:.0f} s"
    assert LIMIT - INTERVAL <= seconds < LIMIT + 2


def test_a_rank_that_works_beyond_the_limit_is_not_lost(start: Callable[..., Started]) -> None:
    run = start(seconds=3 * LIMIT)
    run.act(lambda: None)
    assert run.launcher.wait(90) == 0, run.err
    assert time.monotonic() - run.acted > 2 * LIMIT
    assert run.said() == []
    assert [number for number, _ in rows(run.place)] == [0, 1, 2]


def test_a_rank_that_a_stop_has_slowed_goes_on(start: Callable[..., Started]) -> None:
    run = start(seconds=LIMIT)
    run.act(lambda: os.kill(run.ranks[0], signal.SIGSTOP))
    time.sleep(0.6 * LIMIT)
    os.kill(run.ranks[0], signal.SIGCONT)
    assert run.launcher.wait(90) == 0, run.err
    assert run.said() == []


def test_workers_end_when_the_launcher_is_killed(start: Callable[..., Started]) -> None:
    run = start()
    run.act(run.launcher.kill)
    seconds = run.seconds(lambda: not any(map(alive, run.ranks)), 10)
    (line,) = run.said()
    assert re.match(rf"error: the launcher of rank [01] on host \S+ \(process {run.launcher.pid}\) is gone; ", line)
    assert line.endswith("; what is made is kept: the same command continues")
    assert seconds < 4
    assert rows(run.place) == [(0, "first")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_all_within_five_seconds(start: Callable[..., Started], number: signal.Signals) -> None:
    run = start(script="codes.py main.py")
    run.act(lambda: os.killpg(run.launcher.pid, number))
    seconds = run.seconds(lambda: not any(map(alive, run.ranks)), 10)
    run.launcher.wait(20)
    assert run.said() == ["interrupted; the same command continues"]
    assert seconds < 5
    assert [(run.place / f"code-{rank}").read_text() for rank in (0, 1)] == ["130", "130"]
    assert run.err.count("Traceback") == 1  # torchrun's own, of its SignalException
    assert "/alignment_core/" not in run.err
    assert rows(run.place) == [(0, "first")]


@pytest.mark.usefixtures("start")
def test_a_rank_killed_on_another_machine_is_named(tmp_path: Path) -> None:
    """Without a launcher, and with no process id to look at: the broken connection, then three heartbeats missed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": "0"}
    with (tmp_path / "err").open("w") as err:
        ranks = [
            subprocess.Popen(
                [sys.executable, "main.py", "train", "--quiet"],
                cwd=tmp_path,
                env=environment(tmp_path, "first", 600, RANK=rank, HOST=f"node{rank}", **shared),
                stderr=err,
            )
            for rank in "01"
        ]
    run = Started(tmp_path, ranks[0])
    try:
        run.act(ranks[1].kill)
        assert ranks[0].wait(20) == 2
        seconds = time.monotonic() - run.acted
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    (line,) = run.said()
    assert re.fullmatch(
        rf"error: lost rank 1 on host node1 \(process {ranks[1].pid}, .*\): no heartbeat for 1 s; .*", line
    )
    assert seconds < 3 * INTERVAL + 3
