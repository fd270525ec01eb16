"""Two gloo processes under torchrun against one, for all four studies: the same texts, rates, losses and sets.

Each study is run by two processes, once. From a copy of that run everything is taken away but data, selections and
adapters, and one process makes it again: with the same adapters every file must come out byte for byte. A second run
by one process, from nothing, gives the step losses and the SNIP sets to compare. Batch sizes and data sizes are odd
ones, so that shares are uneven and epochs end in the middle of a step. What was measured is printed (`pytest -s`).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.pipeline.step import is_exempt
from alignment_core.testing.runs import run_folders

pytestmark = pytest.mark.slow

LOSS = 1e-4
"""Relative, of step losses at equal global batch."""
CUT = 1e-5
"""Relative, of a SNIP score to the cut: as near to it, rounding of the sums decides what is in the set."""


@dataclass(frozen=True)
class Case:
    """A study at a reduced preset."""

    name: str
    words: tuple[str, ...]
    kept: str
    """Steps (a pattern of their names) that one process takes over from the run of two."""
    trained: str
    """Steps that train."""

    @property
    def app(self) -> Any:
        return importlib.import_module(f"{self.name.replace('-', '_')}.cli").app


CASES = (
    Case(
        "drift-dpo",
        (
            "data.stage_a_size=40", "data.stage_b_size=37", "data.dpo_limit=40", "data.test_harmful=10",
            "data.test_benign=9", "data.test_borderline=5", "data.eval_split=calibration", "stage_a.max_steps=4",
            "stage_b.save_steps=1",
            "stage_b.batch_size=5", "stage_b.accumulate=2", "dpo.batch_size=4", "dpo.accumulate=3", "dpo.max_steps=5",
            "dpo.logging_steps=1", "stage_a.logging_steps=1", "stage_b.logging_steps=1", "judge=rules,critic",
            "generate.max_new_tokens=24", "generate.batch_size=7", "--controls",
        ),
        "data|stage_|null_stage_a|b_without_a|dpo|chosen_sft|pretraining_openings",
        "stage_|null_stage_a|b_without_a|dpo|chosen_sft|pretraining_openings",
    ),
    Case(
        "neuron-brittleness",
        (
            "data.samples=7", "data.tune_size=37", "data.test_harmful=6", "data.test_benign=5",
            "data.eval_split=calibration", "train.batch_size=5", "train.accumulate=1", "train.logging_steps=1",
            "train.lr=1e-3", "drift_every=2", "loss_examples=5", "draws=100", "doses=[0.5, 1.0]",
            "generate.max_new_tokens=12", "generate.batch_size=3", "controls=true",
        ),
        "finetune_|scores|rescore_",
        "finetune_",
    ),
    Case(
        "orth-refusal",
        (
            "data.refusal_limit=24", "data.attack_limit=37", "data.benign_limit=24", "data.test_harmful=6",
            "data.test_benign=5", "data.test_borderline=2", "data.test_attack=7", "data.eval_split=calibration",
            "direction.rank=2", "points=2", "attack.batch_size=5", "attack.accumulate=2", "attack.logging_steps=1",
            "refusal.logging_steps=1", "generate.max_new_tokens=16", "generate.batch_size=5", "--controls",
        ),
        "data|tune_|direction|attack_|merged",
        "tune_|attack_",
    ),
    Case(
        "mini-cai",
        (
            "prompts.harmful=10", "prompts.benign=6", "prompts.borderline=4", "prompts.test_harmful=6",
            "prompts.test_benign=4", "prompts.test_borderline=2", "prompts.eval_split=calibration",
            "candidates.candidates=3", "candidates.temperature=1.0", "candidates.max_new_tokens=32",
            "candidates.batch_size=7", "critic.batch_size=5", "compare.generate.max_new_tokens=32",
            "compare.generate.batch_size=5", "calibration.items=24", "calibration.attacks=6", "calibration.repeats=2",
            "calibration.repeat_items=4", "calibration.min_rank=0.3", "calibration.min_exact=0.6", "train.batch_size=3",
            "train.accumulate=3", "train.warmup_ratio=0", "train.logging_steps=1", "--controls",
        ),
        "data|train_",
        "train_",
    ),
)  # fmt: skip


def torchrun(case: Case, runs: Path, *words: str) -> subprocess.Popen[str]:
    """The study's own command under torchrun, two processes of one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(Path(sys.executable).with_name(case.name)), "run", "--quiet", "--runs", str(runs)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *case.words, *words], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def alone(case: Case, runs: Path) -> None:
    done = CliRunner().invoke(case.app, ["run", "--quiet", "--runs", str(runs), *case.words])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"


def folder_of(case: Case, runs: Path) -> Path:
    (found,) = run_folders(runs / case.name)
    return found


def steps(folder: Path, pattern: str = "") -> dict[str, Path]:
    return {p.name: p for p in sorted((folder.parent / "steps").glob("[!.]*")) if re.match(pattern, p.name)}


@dataclass(frozen=True)
class Ran:
    """The run of two processes, that of one, and what one made on the adapters of two."""

    case: Case
    two: Path
    one: Path
    again: Path


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    case: Case = request.param
    places = [tmp_path_factory.mktemp(f"{case.name}-{who}") for who in ("two", "one", "again")]
    begun = time.monotonic()
    process = torchrun(case, places[0])
    alone(case, places[1])
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, f"{out[-2000:]}\n{err[-4000:]}"
    shutil.copytree(places[0], places[2], dirs_exist_ok=True)
    again = folder_of(case, places[2])
    (again / "results.json").unlink()
    for name, step in steps(again).items():
        if not re.match(case.kept, name):
            shutil.rmtree(step)
    alone(case, places[2])
    print(f"\n{case.name}: {time.monotonic() - begun:.0f} s for the three runs")
    yield Ran(case, folder_of(case, places[0]), folder_of(case, places[1]), again)
    for place in places:
        shutil.rmtree(place)


def content(step: Path) -> dict[str, bytes]:
    files = [p for p in sorted(step.rglob("*")) if p.is_file() and not is_exempt(p.name)]
    return {p.relative_to(step).as_posix(): p.read_bytes() for p in files}


def test_the_same_adapters_give_the_same_files(ran: Ran) -> None:
    two, again = steps(ran.two), steps(ran.again)
    assert two.keys() == again.keys()
    made = [name for name in two if not re.match(ran.case.kept, name)]
    assert len(made) >= 5
    for name in made:
        ours, theirs = content(two[name]), content(again[name])
        assert ours.keys() == theirs.keys(), name
        assert [f for f in ours if ours[f] != theirs[f]] == [], name
    assert (ran.two / "results.json").read_bytes() == (ran.again / "results.json").read_bytes()
    files = sum(len(content(two[name])) for name in made)
    print(f"{ran.case.name}: {files} files of {len(made)} steps and results.json are byte for byte the same")


def losses(step: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (step / "train_log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def test_step_losses_are_one_processs(ran: Ran) -> None:
    two, one = steps(ran.two, ran.case.trained), steps(ran.one, ran.case.trained)
    # Selections follow the models' own texts, so later steps may read other rows where a text flips; their keys do not.
    assert two.keys() == one.keys()
    worst = {}
    for name in two:
        ours, theirs = losses(two[name]), losses(one[name])
        assert [step for step, _ in ours] == [step for step, _ in theirs], name
        worst[name.rsplit("-", 1)[0]] = max(abs(a - b) / abs(b) for (_, a), (_, b) in zip(ours, theirs, strict=True))
    print(f"{ran.case.name}: relative differences of step losses, at most {max(worst.values()):.1e}:", worst)
    assert max(worst.values()) <= LOSS


def test_both_leave_the_same_files(ran: Ran) -> None:
    hidden = {p.name for p in ran.two.iterdir() if p.name.startswith(".")}
    assert hidden <= {".lock", ".results.lock"}
    assert [p.name for p in (ran.two.parent / "steps").glob(".*")] == [".lock"]
    for two, one in zip(steps(ran.two).values(), steps(ran.one).values(), strict=True):
        assert content(two).keys() == content(one).keys()


def test_snip_sets_differ_only_where_rounding_decides(ran: Ran) -> None:
    if ran.case.name != "neuron-brittleness":
        pytest.skip("no SNIP in this study")
    from alignment_core.config import resolve
    from neuron_brittleness import group_files, groups, losses, scores, tuned
    from neuron_brittleness import rows as built
    from neuron_brittleness.config import BrittlenessConfig
    from neuron_brittleness.matrices import matrices

    config = resolve(BrittlenessConfig, "neuron_brittleness", "tiny", overrides=ran.case.words)
    (two,), (one,) = (list(steps(folder, "scores").values()) for folder in (ran.two, ran.one))
    (dealt,) = steps(ran.one, "data").values()
    loaded = tuned.model_of(config, None)
    apart = total = 0
    for half in built.HALVES:
        found: dict[str, dict[str, Any]] = {}
        for kind in ("safety", "utility"):
            rows = losses.rows(loaded.tokenizer, built.examples(dealt, f"{kind}_{half}"), config.score.max_length)
            for matrix, got in scores.score(loaded.model, matrices(loaded.model), rows, ("snip",)):
                found.setdefault(matrix.name, {})[kind] = got["snip"].flatten().clone()
        cuts = {
            "top_safety": (("safety", config.score.k),),
            "top_utility": (("utility", config.score.k),),
            "set_diff": (("safety", config.score.q), ("utility", config.score.p)),
        }
        for name, edges in cuts.items():
            a, b = group_files.read_group(two, half, name), group_files.read_group(one, half, name)
            for matrix, by_kind in found.items():
                ours, theirs = (group.mask(matrix).reshape(-1) for group in (a, b))
                total += int(theirs.sum())
                for place in (ours != theirs).nonzero()[0]:
                    apart += 1
                    near = []
                    for kind, share in edges:
                        values = by_kind[kind].double()
                        cut = values.topk(groups.count(len(values), share)).values[-1]
                        near.append(abs(float(values[place] / cut) - 1))
                    assert min(near) <= CUT, (half, name, matrix, near)
    print(f"SNIP: {apart} of {total} places in the sets differ, each within {CUT:g} of its cut")


def killed_when(case: Case, runs: Path, pattern: str) -> Path:
    """Start the study with two processes and kill both as soon as a path of that pattern is there; its folder."""
    process = torchrun(case, runs)
    end = time.monotonic() + 200
    while not list(runs.glob(f"{case.name}/{pattern}")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < end
        time.sleep(0.01)
    # The launcher's processes are in sessions of their own: each is killed by itself.
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    for worker in [int(word) for word in workers.split()] + [process.pid]:
        os.kill(worker, signal.SIGKILL)
    process.communicate()
    return folder_of(case, runs)


def test_a_killed_run_is_continued(ran: Ran, tmp_path: Path) -> None:
    if ran.case.name != "drift-dpo":
        pytest.skip("one study shows it")
    folder = killed_when(ran.case, tmp_path, "steps/.*.partial/checkpoints/checkpoint-*/sealed.json")
    # One process must not go on with what two were in the middle of; one line says so, and what would work.
    done = CliRunner().invoke(ran.case.app, ["run", "--quiet", "--runs", str(tmp_path), *ran.case.words])
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("error:")]
    assert "by 2 processes" in line
    assert "1 are now" in line
    # Two do, and are killed again with replies half made; these are a batch's, whoever made it: now one may go on.
    folder = killed_when(ran.case, tmp_path, "steps/.answer_*.partial/.*.journal.1")
    alone(ran.case, tmp_path)
    assert (folder / "results.json").read_bytes() == (ran.two / "results.json").read_bytes()
    assert {name: losses(step) for name, step in steps(folder, "stage_b").items()} == {
        name: losses(step) for name, step in steps(ran.two, "stage_b").items()
    }
