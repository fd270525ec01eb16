"""Commands of a study on one folder at the same time: in the end every step was made once, whole, and the results are
those that one process makes, byte for byte."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from alignment_core.pipeline import runlist
from alignment_core.pipeline.owner import Owner
from alignment_core.testing.runs import run_folders

SMALL = Path(__file__).parent / "small" / "drift-dpo.toml"
SEEDS = "13,14,15,16,17,18,19,20"
KILLS = 30
NO_LOCKS = "import fcntl; fcntl.flock = lambda *_: None"
DIES = """
import signal
from pathlib import Path
rename = os.rename
def die(source, target):
    if str(source).endswith(".partial") and {of} in str(source) and (Path(source) / "step.json").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.rename = die
"""
"""A process that is killed between the seal of a step and its rename; `of`: what the step's name must hold."""
LOADED = ["torch", "peft", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer", "scipy.stats"]

pytestmark = pytest.mark.slow


def command(runs: Path, seeds: str) -> list[str]:
    return ["run", "--config", str(SMALL), "--runs", str(runs), "--seeds", seeds]


def start(runs: Path, seeds: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("drift-dpo")), *command(runs, seeds)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def end(process: subprocess.Popen[str]) -> str:
    """What the command said; it must have ended well."""
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return said


def fork(runs: Path, before: str) -> BaseProcess:
    """The command on all seeds, in a process that has the libraries loaded: a kill seldom falls on an import."""
    code = f"""
import os, sys
os.dup2(os.open({str(runs / "said.txt")!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
{before}
sys.argv[1:] = {command(runs, SEEDS)!r}
from drift_dpo.cli import app
app()
"""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    process = context.Process(target=exec, args=(code, {"__name__": "command"}), daemon=True)
    process.start()
    return process


def inside(runs: Path) -> set[int | None]:
    """Numbers of the processes that are making a step now."""
    owners = (Owner.parse(p.name.split(".")[-2]) for p in runs.glob("drift-dpo/steps/.*.partial"))
    return {owner.pid for owner in owners if owner is not None}


def made(said: str) -> list[str]:
    """The steps that a command made, shared ones without a seed."""
    return re.findall(r"^\S+ ((?:seed \d+: )?\w+): starts", said, re.MULTILINE)


def results(runs: Path, seeds: int) -> bytes:
    """The results of the run of that many seeds."""
    found = [f / "results.json" for f in run_folders(runs / "drift-dpo") if (f / "results.json").exists()]
    (file,) = [f for f in found if len(re.findall(r'"seeds": \[([^\]]*)\]', f.read_text())[0].split(",")) == seeds]
    return file.read_bytes()


def said(runs: Path) -> str:
    """The end of what the forked commands said."""
    return (runs / "said.txt").read_text()[-3000:]


def labels(runs: Path) -> list[str]:
    return sorted(p.name for p in (runs / "drift-dpo" / "steps").glob("[!.]*"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of eight seeds."""
    runs = tmp_path_factory.mktemp("alone")
    end(start(runs, SEEDS))
    return runs


def test_two_seeds_started_together_and_then_both_in_one_run(tmp_path: Path) -> None:
    both = [start(tmp_path, seed) for seed in ("13", "14")]
    steps = [step for process in both for step in made(end(process))]
    assert "data" in steps
    assert len(steps) == len(set(steps)) == len(labels(tmp_path)), "a shared step was made twice"
    assert made(end(start(tmp_path, "13,14"))) == []
    end(start(tmp_path / "one", "13,14"))
    assert results(tmp_path, 2) == results(tmp_path / "one", 2)
    assert labels(tmp_path) == labels(tmp_path / "one")


@pytest.mark.parametrize("before", ["", NO_LOCKS], ids=["locks", "no locks"])
def test_eight_processes_and_thirty_kills_make_what_one_makes(
    alone: Path, tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Two die by themselves: at a step that all seeds share, and at one of a seed.
    doomed = [fork(tmp_path, f"{before}\n{DIES.format(of=of)}") for of in ("''", "'-s1'")]
    running = [*doomed, *(fork(tmp_path, before) for _ in range(6))]
    chance, kills, in_a_step, deadline = random.Random(7), 0, 0, time.monotonic() + 600
    while kills < KILLS:
        assert time.monotonic() < deadline, kills
        time.sleep(chance.uniform(0.01, 0.3))
        for i, process in enumerate(running):
            if process.exitcode is not None:
                assert process.exitcode == (-signal.SIGKILL if process in doomed else 0), said(tmp_path)
                kills += process in doomed
                running[i] = fork(tmp_path, before)
        # As steps become whole, so that the kills are spread over all of the work; every other one inside of a step.
        at_work = inside(tmp_path)
        able = [i for i, p in enumerate(running) if p not in doomed and (kills % 2 or p.pid in at_work)]
        due = kills < KILLS - sum(p in doomed for p in running) and len(labels(tmp_path)) >= 2 * kills
        if able and due:
            i = chance.choice(able)
            in_a_step += running[i].pid in at_work
            running[i].kill()
            running[i].join()
            kills += running[i].exitcode == -signal.SIGKILL
            running[i] = fork(tmp_path, before)
    whole = len(labels(tmp_path))
    for process in running:
        process.join(deadline - time.monotonic())
        assert process.exitcode == 0, said(tmp_path)
    end(start(tmp_path, SEEDS))
    print(f"{kills} kills, {in_a_step} inside of a step; {whole} of {len(labels(tmp_path))} steps whole after the last")
    assert in_a_step >= KILLS // 3
    assert results(tmp_path, 8) == results(alone, 8)
    assert labels(tmp_path) == labels(alone)
    assert [line for f in run_folders(tmp_path / "drift-dpo") for line in runlist.problems(f)] == []
    assert list(tmp_path.glob("drift-dpo/steps/*.set-aside")) == []
