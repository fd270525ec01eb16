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

SMALL = Path(__file__).with_name("small")
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
    done = CliRunner().invoke(app, ["run", "--runs", str(folder), "--config", str(SMALL / f"{study}.toml"), *words])
    return done


def place(study: str, folder: Path, *words: str) -> Path:
    package, name = CONFIG[study]
    model = getattr(importlib.import_module(f"{package}.config"), name)
    config = resolve(model, package, "tiny", SMALL / f"{study}.toml", words)
    return run_folder(folder, study, "tiny", config, resolve(model, package))


def steps(folder: Path) -> dict[str, Path]:
    return {p.name: p for p in (folder.parent / "steps").iterdir()}


def texts(step: Path) -> dict[str, list[str]]:
    return {
        str(file.relative_to(step)): [json.loads(line)["text"] for line in file.read_text().splitlines()]
        for file in sorted(step.rglob("*.jsonl"))
        if file.with_name(f"{file.stem}.plan.json").exists()
    }


@pytest.mark.parametrize("study", sorted(CONFIG))
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
