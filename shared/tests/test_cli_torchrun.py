"""A study under torchrun: two processes, one run folder, the same results as one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

MAIN = """
import os
from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.pipeline import writers
from alignment_core.pipeline.process_group import process_group
from alignment_core.cli import Study, build
from alignment_core.config import Settings
from alignment_core.evaluation.analysis import Analysis, SeedOutput
from alignment_core.report.spec import ReportSpec
class Config(Settings):
    size: int = 3
    fails: str = ""
def study(run, config, seed):
    def work(folder):
        io.append_jsonl(run.folder / f"who-{os.environ.get('RANK', '0')}.jsonl", [{"seed": seed}])
        writers.write_json(folder / "sum.json", seed)
    run.do("alone", work, seed=seed)
    run.do("both", work, seed=seed, together=True)
    def shared(folder):
        process_group().barrier()
        if config.fails == "second" and process_group().rank == 1:
            raise ValueError("the second process cannot")
        if config.fails == "all":
            raise UserError("no process can; give it another setting")
        done = process_group().map_batches(range(5), lambda n: (n, process_group().rank))
        writers.write_json(folder / "done.json", done)
    run.do("shared", shared, seed=seed, together=True)
    yield "train"
    return SeedOutput(())
ANALYSIS = Analysis((), (), lambda _: ())
def report(results):
    return ReportSpec("t", "q", (), ())
if __name__ == "__main__":
    build(Study("toy", "toy_torchrun", Config, "t", (("train", "t"),), "__main__:study", "__main__:ANALYSIS",
                "__main__:report"))()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "toy_torchrun" / "presets").mkdir(parents=True)
    (tmp_path / "toy_torchrun" / "__init__.py").touch()
    (tmp_path / "toy_torchrun" / "presets" / "tiny.toml").touch()
    (tmp_path / "toy_torchrun" / "hypotheses.toml").write_text('family = "toy"\nhypothesis = []\n')
    (tmp_path / "main.py").write_text(MAIN)
    return tmp_path


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no")  # fmt: skip


def start(place: Path, launcher: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, "main.py", "run", *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_share_a_run(place: Path, launcher: tuple[str, ...]) -> None:
    done = start(place, launcher, "--seeds", "1,2")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = place / "runs" / "toy" / "tiny"
    assert sorted(p.name.rsplit("-", 1)[0] for p in (folder.parent / "steps").iterdir()) == [
        f"{step}-s{seed}" for step in ("alone", "both", "shared") for seed in (1, 2)
    ]
    lines = {p.name: len(p.read_text().splitlines()) for p in folder.glob("who-*")}
    assert lines == {"who-0.jsonl": 4, "who-1.jsonl": 2}  # the second process works only where all work together
    (shared,) = folder.parent.glob("steps/shared-s1-*/done.json")
    assert json.loads(shared.read_text()) == [[0, 0], [1, 1], [2, 0], [3, 1], [4, 0]]
    assert done.stdout.count("report:") == 1


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["second", "all"])
def test_a_failure_ends_all_with_one_line(place: Path, fails: str) -> None:
    begun = time.monotonic()
    done = start(place, TORCHRUN, "--seeds", "1", f"fails={fails}")
    assert done.returncode == 1  # the launcher's own code for any failure
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1, done.stderr
    what = {"second": "ValueError: the second process cannot", "all": "no process can; give it another setting"}
    assert what[fails] in said[0]
    assert time.monotonic() - begun < 60
    if fails == "all":  # what an earlier start said is forgotten
        again = start(place, TORCHRUN, "--seeds", "1", f"fails={fails}")
        assert sum(line.startswith("error:") for line in again.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_mistake_before_they_meet_is_told_once(place: Path) -> None:
    done = start(place, TORCHRUN, "--seeds", "1", "siez=4")
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1
    assert "unknown key 'siez'" in said[0]
    plan = start(place, TORCHRUN, "--seeds", "1", "--dry-run")
    assert plan.stdout.count("run folder:") == 1
