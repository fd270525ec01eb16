"""A real run of both experiments, killed with SIGKILL at random moments and continued, ends as an unbroken one."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment_core.pipeline.step import is_exempt
from alignment_core.testing.runs import run_folders

KILLS = 3
REDUCED = (
    "data.samples=6",
    "data.tune_size=32",
    "data.test_harmful=6",
    "data.test_benign=6",
    "train.max_steps=4",
    "train.save_steps=1",
    "drift_every=2",
    "loss_examples=4",
    "draws=100",
    "doses=[0.5, 1.0]",
    "generate.max_new_tokens=12",
)
COMMAND = (str(Path(sys.executable).with_name("neuron-brittleness")), "run", "--quiet", *REDUCED)


def _start(runs: Path) -> subprocess.Popen[bytes]:
    runs.mkdir(exist_ok=True)
    with (runs / "out.txt").open("ab") as out:
        return subprocess.Popen([*COMMAND, "--runs", str(runs)], stdout=out, stderr=out)


def _files(runs: Path) -> dict[str, bytes]:
    """What both experiments say: results.json, the original's files, every measurement of drift and overlap."""
    (folder,) = run_folders(runs / "neuron-brittleness")
    kept = [folder / name for name in ("results.json", "statistical_results.json", "drift_analysis_report.txt")]
    kept += [*folder.parent.glob("steps/finetune_*/drift/*.json"), *folder.parent.glob("steps/overlap_*/*.json")]
    kept = [path for path in kept if path.name != "step.json" and not is_exempt(path.name)]
    return {path.relative_to(folder.parent).as_posix(): path.read_bytes() for path in kept}


@pytest.mark.slow
def test_kills_at_random_moments_change_no_result(tmp_path: Path) -> None:
    whole, broken, rng = tmp_path / "whole", tmp_path / "broken", random.Random(3)
    begun = time.monotonic()
    assert _start(whole).wait(timeout=900) == 0, (whole / "out.txt").read_text()[-3000:]
    seconds = time.monotonic() - begun
    killed = 0
    while killed < KILLS:
        process = _start(broken)
        try:
            process.wait(timeout=rng.uniform(0.35, 0.6) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
            killed += 1
        else:  # it was whole before the kill: the machine is faster now than when the time was taken
            if killed:
                break
            shutil.rmtree(broken)
            seconds /= 2
    assert killed
    assert _start(broken).wait(timeout=900) == 0, (broken / "out.txt").read_text()[-3000:]
    assert _files(broken) == _files(whole)
