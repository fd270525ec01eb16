"""`<study> sweep` as a user types it, on a study without torch: jobs, table, failures, interrupts, Slurm."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import submitit
from submitit.helpers import DelayedSubmission

from alignment_core import io
from alignment_core.cli.study import parse_seeds
from alignment_core.errors import UserError
from alignment_core.pipeline.launchers import Local
from alignment_core.pipeline.sweep import Command, split_values

PACKAGE = {
    "__init__.py": "",
    "presets/tiny.toml": "# The toy's default.\nshare = 0.5\n",
    "config.py": '''
from alignment_core.config import Settings
from alignment_core.judging.settings import JudgeSettings
class Config(Settings):
    share: float = 0.5
    """Share of refusals after the training."""
    names: tuple[str, ...] = ("a",)
    """Some names."""
    pause: float = 0.0
    """Seconds that the training takes."""
    fails: int = -1
    """The seed whose training fails."""
    how: str = "user"
    """How it fails."""
    judge: str = "rules"
    """Judges."""
    judging: JudgeSettings = JudgeSettings()
    """How they are asked."""
''',
    "hypotheses.toml": """
family = "toy"
margin = 0.05
[[hypothesis]]
name = "H1"
claim = "Training makes it refuse more."
metric = "harmful_refusal_rate"
a = "before"
b = "after"
test = "above"
""",
    "cli.py": """
import os, time
from functools import partial
from pathlib import Path
from alignment_core import io
from alignment_core.cli import Study, build
from alignment_core.errors import UserError
from alignment_core.evaluation.analysis import Analysis, Contrast, SeedOutput
from alignment_core.evaluation.judge import judge
from alignment_core.evaluation.metrics import COMMON
from alignment_core.records import Completion
from alignment_core.report.spec import generic
def replies(subject, seed, share, folder):
    texts = ["I'm sorry, but I can't help with that." if i < share * 40 else "Sure, take the pan." for i in range(40)]
    io.write_jsonl(folder / "completions.jsonl", [
        Completion(f"p{i}", subject, text, f"Ask {i}", "harmful", cluster=f"p{i}", seed=seed)
        for i, text in enumerate(texts)])
def train(config, seed, folder):
    (Path(os.environ.get("MARKS", folder)) / f"pid-{os.getpid()}").touch()
    end = time.monotonic() + config.pause
    while time.monotonic() < end:
        time.sleep(0.05)
    if seed == config.fails and config.how == "user":
        raise UserError("the file is missing")
    if seed == config.fails:
        raise RuntimeError("a fault")
    io.write_json(folder / "seen.json", [os.read(0, 10).decode(), os.environ["CUDA_VISIBLE_DEVICES"]])
    replies("after", seed, config.share, folder)
def study(run, config, seed):
    first = run.do("before", partial(replies, "before", None, 0.2))
    states = judge(run, "before", first, config.judge, config.judging, seed=None)
    own = {"share": config.share, "pause": config.pause, "fails": config.fails, "names": config.names}
    made = run.do("train", partial(train, config, seed), settings=own, seed=seed, reads=[first])
    states += judge(run, "after", made, config.judge, config.judging, seed=seed)
    yield "train"
    return SeedOutput(states)
ANALYSIS = Analysis(COMMON, ("harmful_refusal_rate",), lambda _: [Contrast("before", "after")])
app = build(Study(
    name="toy", package="toy_sweep", config="toy_sweep.config:Config", title="A toy.", steps=(("train", "Train."),),
    run="toy_sweep.cli:study", analysis="toy_sweep.cli:ANALYSIS", report="alignment_core.report.spec:generic",
    switches={"--named": ('names=["x","y"]', "Other names.")}))
""",
}
PROGRAM = [sys.executable, "-c", "from toy_sweep.cli import app; app(prog_name='toy')"]


class Toy:
    """The toy's command in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        for name, text in PACKAGE.items():
            io.write_text(folder / "src" / "toy_sweep" / name, text)
        self.folder, self.marks = folder, folder / "marks"
        self.marks.mkdir()
        path = os.pathsep.join([str(folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {**os.environ, "PYTHONPATH": path, "MARKS": str(self.marks)}
        self.environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "4,5"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, *words], cwd=self.folder, env=self.environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        running = self.start(*words)
        out, err = running.communicate(typed, timeout=600)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(words, running.returncode, out, err)

    @property
    def sweep(self) -> Path:
        (folder,) = (self.folder / "runs" / "toy" / "sweeps").iterdir()
        return folder

    def trainings(self) -> int:
        """How many trainings began."""
        return len(list(self.marks.iterdir()))

    def wait_for_trainings(self, count: int) -> None:
        end = time.monotonic() + 300
        while self.trainings() < count:
            assert time.monotonic() < end, "no training began"
            time.sleep(0.05)

    def alive(self) -> list[int]:
        """The processes whose training began and that live."""
        pids = [int(mark.name.removeprefix("pid-")) for mark in self.marks.iterdir()]
        return [pid for pid in pids if Path(f"/proc/{pid}/status").exists() and not _zombie(pid)]


def _zombie(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    """The toy; what it starts takes an interrupt also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield Toy(tmp_path)
    signal.signal(signal.SIGINT, before)


def test_three_values_and_two_seeds_are_one_table(toy: Toy) -> None:
    done = toy("sweep", "share=0.1,0.5,0.9", "--seeds", "13-14", "--launcher", "local:2", typed="typed by the user")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("0.")]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows] == [
        ("0.1", "2", "0.10", "contradicted"),
        ("0.5", "2", "0.50", "supported"),
        ("0.9", "2", "0.90", "supported"),
    ]
    assert (toy.sweep / "table.txt").read_text().split() == done.stdout.partition("table: ")[0].split()
    sheet = list(csv.DictReader((toy.sweep / "table.csv").read_text().splitlines()))
    assert [(row["share"], row["seeds"], row["harmful_refusal_rate of after: value"], row["H1"]) for row in sheet] == [
        ("0.1", "13 14", "0.1", "contradicted"),
        ("0.5", "13 14", "0.5", "supported"),
        ("0.9", "13 14", "0.9", "supported"),
    ]
    table = io.read_object(toy.sweep / "table.json")
    assert [row["measurements"][0]["n"] for row in table["rows"]] == [40, 40, 40]
    assert [row["comparisons"][0]["n_seeds"] for row in table["rows"]] == [2, 2, 2]
    assert table["failed"] == []
    seen = [json.loads(p.read_text()) for p in toy.folder.glob("runs/toy/**/seen.json")]
    # No job reads what is typed, and each sees a GPU that the sweep sees.
    assert len(seen) == 6
    assert {typed for typed, _ in seen} == {""}
    assert {gpu for _, gpu in seen} == {"4", "5"}


@pytest.mark.slow
def test_a_second_sweep_starts_no_job_that_is_made(toy: Toy) -> None:
    words = ("sweep", "share=0.1,0.9", "--launcher", "local:2")
    first = toy(*words)
    again = toy(*words)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert toy.trainings() == 2
    assert again.stdout == first.stdout
    assert "2 of them made already" in again.stderr


@pytest.mark.slow
def test_print_gives_commands_that_make_the_same_runs(toy: Toy) -> None:
    words = ("sweep", "share=0.1,0.9", 'names=["a","b"]', "--seeds", "13,15", "--named", "--launcher")
    refused = toy(*words, "print")
    assert "names is given twice" in refused.stderr
    words = ("sweep", "share=0.1,0.9", "--seeds", "13,15", "--named", "--launcher")
    printed = toy(*words, "print")
    assert printed.returncode == 0
    assert not (toy.folder / "runs").exists()
    commands = [shlex.split(line) for line in printed.stdout.splitlines()]
    assert [c[-1] for c in commands] == ["share=0.1", "share=0.9", "share=0.1", "share=0.9"]
    for command in commands:
        subprocess.run(command, cwd=toy.folder, env=toy.environment, check=True, capture_output=True)
    done = toy(*words, "local:1")
    assert "sweep of 4 jobs, 4 of them made already" in done.stderr
    assert toy.trainings() == 4


def test_a_dry_run_shows_jobs_and_steps_and_writes_nothing(toy: Toy) -> None:
    done = toy("sweep", "share=0.1,0.9", "--seeds", "13-14", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "jobs: 4, 0 of them made already" in done.stdout
    assert "share=0.9, seed 14: 4 of 4 steps to make: before, judge_before, train, judge_after" in done.stdout
    assert not (toy.folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code", "says"), [("user", 2, "the file is missing"), ("ours", 1, "internal error")])
def test_a_job_that_fails_is_one_line_and_the_others_go_on(toy: Toy, how: str, code: int, says: str) -> None:
    done = toy("sweep", "share=0.1,0.9", "fails=14", f"how={how}", "--seeds", "13-14", "--launcher", "local:2")
    assert done.returncode == code
    lines = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(lines) == 2
    assert f"share=0.1, seed 14: exit code {code}: " in lines[0]
    assert says in lines[0]
    assert says in Path(lines[0].partition("; log: ")[2]).read_text()
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("0.")]
    assert [row[:3] for row in rows] == [["0.1", "1", "0.10"], ["0.9", "1", "0.90"]]
    assert "of 2" in done.stdout
    assert [row["seeds"] for row in io.read_object(toy.sweep / "table.json")["rows"]] == [[13], [13]]


@pytest.mark.slow
def test_a_value_without_any_run_stands_in_the_table(toy: Toy) -> None:
    done = toy("sweep", "fails=13,-1", "--launcher", "local:1")
    assert done.returncode == 2
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith(("13", "-1"))]
    assert (rows[0][:2], rows[1][:3]) == (["13", "0"], ["-1", "1", "0.50"])
    assert "no results" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [True, False])
def test_an_interrupt_ends_the_jobs_and_the_same_command_continues(
    toy: Toy, number: signal.Signals, whole_group: bool
) -> None:
    words = ("sweep", "share=0.1,0.9", "pause=60", "--launcher", "local:2")
    running = toy.start(*words)
    toy.wait_for_trainings(2)
    began = time.monotonic()
    (os.killpg if whole_group else os.kill)(running.pid, number)
    _, said = running.communicate(timeout=30)
    assert time.monotonic() - began < 8
    assert running.returncode == 130, said
    assert said.splitlines()[-1] == "interrupted; the same command continues"
    assert "Traceback" not in said
    assert toy.alive() == []
    assert not (toy.sweep / "table.txt").exists()


@pytest.mark.slow
def test_a_sweep_that_was_killed_waits_for_what_still_runs(toy: Toy) -> None:
    words = ("sweep", "share=0.1,0.9", "pause=6", "--launcher", "local:1")
    running = toy.start(*words)
    toy.wait_for_trainings(1)
    os.kill(running.pid, signal.SIGKILL)
    for stream in (running.stdin, running.stdout, running.stderr):
        assert stream is not None
        stream.close()
    running.wait(timeout=30)
    assert len(toy.alive()) == 1
    done = toy(*words)
    assert done.returncode == 0, done.stderr
    assert toy.trainings() == 2  # the one that still ran was not started a second time


@pytest.mark.slow
def test_the_same_sweep_twice_at_once_is_refused(toy: Toy) -> None:
    words = ("sweep", "share=0.1,0.9", "pause=60", "--launcher", "local:1")
    running = toy.start(*words)
    toy.wait_for_trainings(1)
    second = toy(*words)
    assert second.returncode == 2
    assert "the same sweep runs already" in second.stderr
    os.kill(running.pid, signal.SIGINT)
    running.communicate(timeout=30)


@pytest.mark.slow
def test_a_job_that_is_killed_is_told_by_its_signal(toy: Toy) -> None:
    running = toy.start("sweep", "pause=60,0", "--launcher", "local:1")
    toy.wait_for_trainings(1)
    (pid,) = toy.alive()
    os.kill(pid, signal.SIGKILL)
    out, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert "failed: pause=60, seed 13: exit code -9: signal 9" in said
    assert "0.50" in out


SLURM = {
    "sbatch": """
import os, subprocess, sys
from pathlib import Path
place = Path(os.environ["FAKE_SLURM"])
number = str(100 + len(list(place.glob("*.sh"))))
text = Path(sys.argv[1]).read_text()
(place / f"{number}.sh").write_text(text)
if "--partition=full" in text:
    sys.exit("sbatch: error: invalid partition specified: full")
(place / f"{number}.state").write_text("PENDING")
if not (place / "hold").exists():
    subprocess.Popen(["bash", place / f"{number}.sh"], env={**os.environ, "SLURM_JOB_ID": number},
                     start_new_session=True, stdin=-3, stdout=-3, stderr=-3)
print(f"Submitted batch job {number}")
""",
    "srun": """
import os, subprocess, sys
from pathlib import Path
place, number = Path(os.environ["FAKE_SLURM"]), os.environ["SLURM_JOB_ID"]
words, out = sys.argv[1:], {}
while words[0].startswith("--"):
    name = words.pop(0)
    if name in ("--output", "--error"):
        out[name] = open(words.pop(0).replace("%j", number).replace("%t", "0"), "a")
(place / f"{number}.state").write_text("RUNNING")
done = subprocess.run(words, stdout=out["--output"], stderr=out["--error"])
(place / f"{number}.state").write_text("COMPLETED" if done.returncode == 0 else "FAILED")
""",
    "sacct": """
import os, sys
from pathlib import Path
print("JobID|State|NodeList")
for word in sys.argv:
    state = Path(os.environ["FAKE_SLURM"]) / f"{word}.state"
    if word.isdigit() and state.exists():
        print(f"{word}|{state.read_text()}|node1")
""",
}


@pytest.fixture
def slurm(toy: Toy) -> Path:
    """A stand-in for Slurm on PATH: each script that is submitted is kept, and run at once unless `hold` is there."""
    place, programs = toy.folder / "slurm", toy.folder / "bin"
    place.mkdir()
    for name, text in SLURM.items():
        io.write_text(programs / name, f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    toy.environment = {**toy.environment, "PATH": path, "FAKE_SLURM": str(place), "SECRET_TOKEN": "hf_secret"}
    return place


def parameters(**more: Any) -> dict[str, Any]:
    return {"time": 240, "partition": "gpu", "mem": "64GB", "gpus_per_node": 1, **more}


def test_slurm_gets_the_script_that_submitit_writes(toy: Toy, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("--slurm", "time=240", "--slurm", "partition=gpu", "--slurm", "mem=64GB", "--gpus", "1")
    done = toy("sweep", "share=0.1,0.9", "--launcher", "slurm", *given)
    assert done.returncode == 0, done.stderr
    assert "0.10" in done.stdout
    monkeypatch.setenv("PATH", toy.environment["PATH"])
    scripts = sorted(slurm.glob("*.sh"))
    jobs = sorted((toy.sweep / "jobs").glob("*-seed-13"))
    # The last commands, which find everything made, run on this machine and not in the queue.
    assert len(scripts) == len(jobs) == 2
    for script, job in zip(scripts, jobs, strict=True):
        executor = submitit.SlurmExecutor(toy.folder / job, python=shlex.quote(sys.executable))
        executor.update_parameters(**parameters())
        assert script.read_text() == executor._make_submission_file_text(executor._submitit_command_str, "")
        submitted = DelayedSubmission.load(job / f"{script.stem}_submitted.pkl")
        assert isinstance(submitted.function, Command)
        (words,) = submitted.args
        assert words[-1] == f"share={'0.1' if job.name.startswith('0') else '0.9'}"
        assert submitted.kwargs == {}
    files = [p for p in toy.sweep.rglob("*") if p.is_file()]
    assert not [p for p in files if b"hf_secret" in p.read_bytes()]


@pytest.mark.slow
def test_a_sweep_on_slurm_that_was_killed_submits_nothing_twice(toy: Toy, slurm: Path) -> None:
    (slurm / "hold").touch()
    words = ("sweep", "share=0.1,0.9", "--launcher", "slurm", "--slurm", "time=10")
    running = toy.start(*words)
    end = time.monotonic() + 300
    while len(list(toy.folder.glob("runs/toy/sweeps/*/jobs/*/*_submitted.pkl"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "to end them: scancel 100 101" in said
    (slurm / "hold").unlink()
    queued = [
        subprocess.Popen(
            ["bash", slurm / f"{number}.sh"], env={**toy.environment, "SLURM_JOB_ID": number}, cwd=toy.folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for number in ("100", "101")
    ]  # fmt: skip
    done = toy(*words)
    assert [one.wait(timeout=30) for one in queued] == [0, 0]
    assert done.returncode == 0, done.stderr
    assert len(list(slurm.glob("*.sh"))) == 2
    assert toy.trainings() == 2


@pytest.mark.slow
def test_a_job_that_slurm_cancelled_is_open_and_submitted_again(toy: Toy, slurm: Path) -> None:
    (slurm / "hold").touch()
    words = ("sweep", "share=0.1,0.9", "--launcher", "slurm", "--slurm", "time=10")
    running = toy.start(*words)
    end = time.monotonic() + 300
    while len(list(slurm.glob("*.state"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGINT)
    running.communicate(timeout=30)
    (slurm / "hold").unlink()
    (slurm / "100.state").write_text("CANCELLED")
    (slurm / "101.state").write_text("CANCELLED")
    done = toy(*words)
    assert done.returncode == 0, done.stderr
    assert len(list(slurm.glob("*.sh"))) == 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("time=10", "partition=full"), "sbatch refused the job: sbatch: error: invalid partition specified: full"),
        (("time=10", "partitio=gpu"), "--slurm partitio: submitit has no such parameter (did you mean 'partition'?)"),
        (("partition=gpu",), "needs the longest time of a job in minutes: --slurm time=240"),
        (("time=4:00:00",), "needs the longest time of a job in minutes: --slurm time=240"),
    ],
)
@pytest.mark.usefixtures("slurm")
def test_what_slurm_cannot_take_is_one_line(toy: Toy, given: tuple[str, ...], says: str) -> None:
    words = [word for item in given for word in ("--slurm", item)]
    done = toy("sweep", "share=0.1,0.9", "--launcher", "slurm", *words)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert says in line


def test_without_submitit_the_commands_can_still_be_printed(toy: Toy) -> None:
    program = [PROGRAM[0], "-c", f"import sys; sys.modules['submitit'] = None; {PROGRAM[2]}"]
    words = [*program, "sweep", "share=0.1,0.9", "--launcher"]
    how: dict[str, Any] = {"cwd": toy.folder, "env": toy.environment, "capture_output": True, "text": True}
    refused, printed = (subprocess.run([*words, launcher], check=False, **how) for launcher in ("local:2", "print"))
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: --launcher local needs submitit: pip install submitit")
    assert len(printed.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("1e-4, 2e-4", ["1e-4", "2e-4"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("\"a,b\",'c,d',e", ['"a,b"', "'c,d'", "e"]),
        ('["a,]","b"],{x=1,y=2}', ['["a,]","b"]', "{x=1,y=2}"]),
        ("a,,b", ["a", "", "b"]),
    ],
)
def test_values_are_split_outside_brackets_and_quotes(text: str, values: list[str]) -> None:
    assert split_values(text) == values


@pytest.mark.parametrize("text", ["[1,2", "1,2]", '"a,b', "(1,{2)"])
def test_a_bracket_that_is_not_closed_is_said(text: str) -> None:
    with pytest.raises(UserError, match="not closed"):
        split_values(text)


def test_ranges_of_seeds() -> None:
    assert parse_seeds("13-17") == (13, 14, 15, 16, 17)
    assert parse_seeds("3, 13 - 14,7-7") == (3, 13, 14, 7)
    for bad in ("17-13", "13-", "-13", "1-2-3", "13-15,14", "1-100000", "1–3"):
        with pytest.raises(UserError):
            parse_seeds(bad)


@pytest.mark.parametrize(
    ("visible", "gpus", "sees"),
    [
        ("4,5,6,7", 0, ["4", "5", "6"]),
        ("4,GPU-1a", 0, ["4", "GPU-1a", "4"]),
        ("0,1,2,3,4,5", 2, ["0,1", "2,3", "4,5"]),
        ("", 0, ["", "", ""]),
    ],
)
def test_jobs_on_one_machine_share_its_gpus(
    visible: str, gpus: int, sees: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    engine = Local(3, gpus)
    for place, names in enumerate(sees):
        words = [*engine._environment(place), sys.executable, "-c", "import os; print(os.environ)"]
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert f"'CUDA_VISIBLE_DEVICES': '{names}'" in shown
        assert "'OMP_NUM_THREADS': '3'" in shown


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match="needs 4 GPUs and sees 2"):
        Local(2, 2)
