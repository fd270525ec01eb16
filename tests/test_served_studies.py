"""Each study with its replies made by a server: the same as here where they are greedy, and training untouched."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.config import resolve
from alignment_core.pipeline.run import run_folder
from alignment_core.testing.servers import generation

pytestmark = pytest.mark.slow

SMALL: dict[str, tuple[str, ...]] = {
    "drift-dpo": (
        "data.stage_a_size=32", "data.stage_b_size=32", "data.dpo_limit=40", "data.test_harmful=8",
        "data.test_benign=6", "data.test_borderline=4", "data.eval_split=calibration", "stage_a.max_steps=2",
        "stage_a.lr=1e-2", "stage_b.max_steps=2", "dpo.max_steps=2", "generate.max_new_tokens=24",
    ),
    "neuron-brittleness": (
        "data.samples=4", "data.tune_size=16", "data.test_harmful=4", "data.test_benign=4",
        "data.eval_split=calibration", "train.max_steps=2", "drift_every=1", "loss_examples=4", "draws=100",
        "doses=[1.0]", "generate.max_new_tokens=12",
    ),
    "orth-refusal": (
        "data.refusal_limit=32", "data.attack_limit=32", "data.benign_limit=32", "data.test_harmful=6",
        "data.test_benign=4", "data.test_borderline=2", "data.test_attack=6", "data.eval_split=calibration",
        "direction.rank=2", "points=2", "generate.max_new_tokens=16",
    ),
    "mini-cai": (
        "prompts.harmful=8", "prompts.benign=6", "prompts.borderline=4", "prompts.test_harmful=4",
        "prompts.test_benign=4", "prompts.test_borderline=2", "prompts.eval_split=calibration",
        "candidates.candidates=3", "candidates.temperature=1.0", "candidates.max_new_tokens=40",
        "compare.generate.max_new_tokens=24", "calibration.items=24", "calibration.attacks=12",
        "calibration.repeats=2", "calibration.repeat_items=4", "calibration.min_rank=0.3",
        "calibration.min_exact=0.6", "train.max_steps=3", "train.warmup_ratio=0",
    ),
}  # fmt: skip
CONFIG = {
    "drift-dpo": ("drift_dpo", "DriftConfig"),
    "neuron-brittleness": ("neuron_brittleness", "BrittlenessConfig"),
    "orth-refusal": ("orth_refusal", "OrthConfig"),
    "mini-cai": ("mini_cai", "CaiConfig"),
}
SETTING = {"mini-cai": "candidates.endpoint"}
SERVED = {
    "drift-dpo": {"answer_baseline", "answer_stage_a", "answer_stage_b", "answer_dpo"},
    "neuron-brittleness": {"data"},
    "mini-cai": {"generate", "answer_baseline", "answer_best", "answer_random"},
}
"""Steps whose replies the server made; orth-refusal's are all of its answers."""


def invoke(study: str, folder: Path, *words: str) -> Any:
    app = importlib.import_module(f"{study.replace('-', '_')}.cli").app
    done = CliRunner().invoke(app, ["run", "--runs", str(folder), *words, *SMALL[study]])
    return done


def place(study: str, folder: Path, *words: str) -> Path:
    package, name = CONFIG[study]
    model = getattr(importlib.import_module(f"{package}.config"), name)
    config = resolve(model, package, "tiny", None, [*words, *SMALL[study]])
    return run_folder(folder, study, "tiny", config, resolve(model, package))


def steps(folder: Path) -> dict[str, Path]:
    return {p.name: p for p in (folder / "steps").iterdir()}


def texts(step: Path) -> dict[str, list[str]]:
    return {
        str(file.relative_to(step)): [json.loads(line)["text"] for line in file.read_text().splitlines()]
        for file in sorted(step.rglob("*.jsonl"))
        if file.with_name(f"{file.stem}.plan.json").exists()
    }


@pytest.mark.parametrize("study", sorted(SMALL))
def test_a_study_with_its_replies_from_a_server(study: str, tmp_path: Path, organism: Any) -> None:
    here = invoke(study, tmp_path)
    assert here.exit_code == 0, f"{here.output}\n{here.exception!r}"
    local = place(study, tmp_path)
    with generation.serving(organism) as server:
        word = f"{SETTING.get(study, 'generate.endpoint')}={server.url}"
        there = place(study, tmp_path, word)
        shutil.copytree(local, there)
        done = invoke(study, tmp_path, word)
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    assert list(server.states) == [generation.NAME]
    made = {name: path for name, path in steps(there).items() if name not in steps(local)}
    by_name = {name.rsplit("-", 1)[0]: path for name, path in steps(local).items()}
    served = {name.split("-")[0] for name, path in made.items() if any(path.rglob("*.served.json"))}
    assert served == SERVED.get(study, {n.split("-")[0] for n in by_name if n.startswith("answer")})
    if study not in ("mini-cai", "neuron-brittleness"):
        # Only what reads the replies is done again, and greedy replies are those made here.
        assert {name.split("_")[0] for name in made} <= {"answer", "judge", "local"}
    if study != "mini-cai":
        compared = [(texts(path), texts(by_name[name.rsplit("-", 1)[0]])) for name, path in made.items()]
        assert any(a for a, _ in compared)
        assert all(a == b for a, b in compared)
        for name in ("measurements", "hypotheses"):
            a, b = (json.loads((f / "results.json").read_text())[name] for f in (local, there))
            for row in (*a, *b):
                row.pop("completions", None)
            assert a == b
    assert "A server made replies of this run" in (there / "report.md").read_text()
    assert "A server made replies of this run" not in (local / "report.md").read_text()
