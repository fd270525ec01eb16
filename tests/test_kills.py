"""A tiny run killed with SIGKILL at ten moments, some inside a checkpoint's saving, ends as an unbroken one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment_core.models.checkpoints import SEAL

SAVING = ("stage_a.save_steps=1", "stage_b.save_steps=1", "dpo.save_steps=1")
KILLS = 10
COMMAND = (str(Path(sys.executable).with_name("drift-dpo")), "run", "--preset", "tiny", *SAVING)


def _start(runs: Path) -> subprocess.Popen[bytes]:
    with (runs / "out.txt").open("ab") as out:
        return subprocess.Popen([*COMMAND, "--runs", str(runs)], stdout=out, stderr=out, env=os.environ)


def _results(runs: Path) -> bytes:
    (found,) = runs.glob("drift-dpo/*/results.json")
    return found.read_bytes()


def _saving(runs: Path) -> bool:
    """Whether a checkpoint is being written right now: its folder is there, its seal is not."""
    checkpoints = runs.glob("drift-dpo/steps/.*.partial/checkpoints/checkpoint-*")
    return any(c.is_dir() and not (c / SEAL).exists() for c in checkpoints)


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", _new(tmp_path)
    whole.mkdir()
    begun = time.monotonic()
    assert _start(whole).wait(timeout=1200) == 0, (whole / "out.txt").read_text()[-3000:]
    seconds = time.monotonic() - begun

    rng, killed, while_saving = random.Random(7), 0, 0
    while killed < KILLS:
        process = _start(broken)
        # The even kills fall anywhere; the odd ones wait for a checkpoint that is being saved.
        moment = time.monotonic() + (2.0 if killed % 2 else rng.uniform(0.15, 0.5)) * seconds
        while process.poll() is None and time.monotonic() < moment and not (killed % 2 and _saving(broken)):
            time.sleep(0.0005)
        if process.poll() is not None:
            # Whole in spite of its kills: the rest of them fall on another run.
            assert _results(broken) == _results(whole)
            broken = _new(tmp_path)
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        while_saving += _saving(broken)
    assert _start(broken).wait(timeout=1200) == 0, (broken / "out.txt").read_text()[-3000:]
    assert while_saving >= 2
    print(f"{killed} kills, {while_saving} of them while a checkpoint was being saved")
    assert _results(broken) == _results(whole)


def _new(folder: Path) -> Path:
    made = folder / f"broken{len(list(folder.glob('broken*')))}"
    made.mkdir()
    return made
