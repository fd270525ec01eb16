"""Many processes on one store: eight workers, eight seeds, kills at random, two of them between seal and rename, with
locks and without; in the end everything is made once whole, and equal to what one process makes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from alignment_core.pipeline import runlist

SEEDS = tuple(range(13, 21))
WORKER = """
import fcntl, hashlib, json, os, random, signal, sys, time
from pathlib import Path

from alignment_core import io
from alignment_core.config import Settings
from alignment_core.pipeline import store
from alignment_core.pipeline.run import Busy, Run


def grow(folder, text):
    # Goes on where an attempt that was killed stopped, in small appends.
    file = folder / "rows.jsonl"
    for number in range(len(io.recover_jsonl(file)), 6):
        time.sleep(0.02)
        io.append_jsonl(file, [{"n": number, "hash": hashlib.sha256(f"{text}{number}".encode()).hexdigest()}])


def study(run, seed):
    data = run.do("data", lambda f: grow(f, "data"))
    base = run.do("answer_base", lambda f: grow(f, (data / "rows.jsonl").read_text()), reads=[data])
    train = run.do("train", lambda f: grow(f, f"{seed}{(data / 'rows.jsonl').read_text()}"), seed=seed, reads=[data])
    answer = run.do("answer", lambda f: grow(f, (train / "rows.jsonl").read_text()), seed=seed, reads=[data, train])
    return [(step / "rows.jsonl").read_text() for step in (data, base, train, answer)]


def work(where, seeds, locks, dies):
    if not locks:
        fcntl.flock = lambda *_: None
    if dies:
        rename = os.rename
        def die(source, target):
            if str(source).endswith(".partial") and (Path(source) / "step.json").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)
        os.rename = die
    with Run.open(where / "r", "toy", "tiny", Settings(), seeds) as run:
        found, run.waits = {}, False
        while len(found) < len(seeds):
            before = len(found)
            for seed in [s for s in seeds if s not in found]:
                try:
                    found[seed] = study(run, seed)
                except Busy:
                    continue
            run.waits = len(found) == before
    print(json.dumps([found[seed] for seed in sorted(found)]))
"""


def worker(place: Path, where: Path, seeds: tuple[int, ...], *, locks: bool, dies: bool = False) -> Any:
    """A process that works on the seeds in their order."""
    code = f"import sys; sys.path.insert(0, {str(place)!r}); from pathlib import Path; import toy_together as toy; "
    code += f"toy.work(Path({str(where)!r}), {seeds!r}, {locks}, {dies})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def finished(process: Any) -> Any:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.slow
@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_eight_workers_and_thirty_kills_make_what_one_process_makes(tmp_path: Path, locks: bool) -> None:
    (tmp_path / "toy_together.py").write_text(WORKER)
    expected = finished(worker(tmp_path, tmp_path / "alone", SEEDS, locks=True))
    chance, where, kills = random.Random(7), tmp_path / "shared", 0
    order = [tuple(chance.sample(SEEDS, len(SEEDS))) for _ in range(8)]
    running = {i: worker(tmp_path, where, seeds, locks=locks, dies=i < 2) for i, seeds in enumerate(order)}
    deadline = time.monotonic() + 300
    while kills < 30 and time.monotonic() < deadline:
        time.sleep(chance.uniform(0.05, 0.6))
        i = chance.choice(list(running))
        running[i].kill()
        running[i].communicate()
        kills += 1
        running[i] = worker(tmp_path, where, order[i], locks=locks)
    assert kills == 30
    results = []
    for i, process in running.items():
        if process.wait() == -signal.SIGKILL and i < 2:  # died by itself between seal and rename
            process.communicate()
            process = worker(tmp_path, where, order[i], locks=locks)
        results.append(finished(process))
    assert all(found == expected for found in results)
    final = finished(worker(tmp_path, where, SEEDS, locks=locks))
    assert final == expected
    steps = [p.name for p in (where / "steps").iterdir() if not p.name.startswith(".")]
    assert len(steps) == 2 + 2 * len(SEEDS)
    assert sorted(steps) == sorted(p.name for p in (tmp_path / "alone" / "steps").glob("[!.]*"))
    assert list(runlist.problems(where / "r")) == []


@pytest.mark.slow
def test_steps_that_seeds_share_are_made_once(tmp_path: Path) -> None:
    """Two processes with a seed each, started together, and then one with both: nothing is made twice."""
    (tmp_path / "toy_together.py").write_text(WORKER)
    both = [worker(tmp_path, tmp_path / "runs", (seed,), locks=True) for seed in (13, 14)]
    single = [finished(process) for process in both]
    logs = [p.read_text() for p in (tmp_path / "runs" / "r").glob("log*.txt")]
    assert len(logs) == 2
    assert sum(log.count(" data: starts") for log in logs) == 1
    assert sum(log.count(" answer_base: starts") for log in logs) == 1
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs" / "steps").rglob("*")}
    together = finished(worker(tmp_path, tmp_path / "runs", (13, 14), locks=True))
    assert together == [found[0] for found in single]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs" / "steps").rglob("*")} == before
