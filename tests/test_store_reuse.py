"""Beside a finished run, through the command line: what another judge, a switch or a later setting makes anew."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignment_core.testing.runs import run_folders

SMALL = Path(__file__).parent / "small"
TRAININGS = re.compile(r"stage_\w+|dpo|finetune_\w+|tune_\w+|attack_\w+|train_\w+")
LATE = {
    "drift-dpo": ("dpo.beta=0.2", {"dpo", "answer_dpo", "judge_dpo"}),
    "neuron-brittleness": ("draws=120", {"overlap_free", "overlap_frozen", "overlap_matched_frozen"}),
    "orth-refusal": ("generate.max_new_tokens=20", None),
    "mini-cai": ("compare.generate.max_new_tokens=20", None),
}
"""A late setting of each study, and what it makes; None: answers and verdicts alone."""


def made(study: str, runs: Path, *words: str) -> tuple[set[str], Path]:
    """The steps that a run made, and its folder."""
    app = importlib.import_module(f"{study.replace('-', '_')}.cli").app
    before = set(run_folders(runs / study))
    command = ["run", "--config", str(SMALL / f"{study}.toml"), "--runs", str(runs), *words]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    (folder,) = set(run_folders(runs / study)) - before
    return set(re.findall(r"^\S+ (?:seed 13: )?(\w+): (?:starts|continues)", done.stderr, re.MULTILINE)), folder


@pytest.mark.slow
@pytest.mark.parametrize("study", LATE)
def test_what_is_there_is_taken_and_no_training_is_made_again(study: str, tmp_path: Path) -> None:
    first, _ = made(study, tmp_path)
    trained = {step for step in first if TRAININGS.fullmatch(step)}
    assert trained

    judged, folder = made(study, tmp_path, "--judge", "rules,gcg31")
    assert judged
    assert all(step.startswith("judge_") for step in judged)
    found = json.loads((folder / "results.json").read_text())
    assert {m["at"].get("judge") for m in found["measurements"]} >= {"gcg31"}

    late, expected = LATE[study]
    again, _ = made(study, tmp_path, late)
    assert again == expected if expected else all(step.startswith(("answer_", "judge_")) for step in again), again

    if study in ("drift-dpo", "orth-refusal"):
        controls, folder = made(study, tmp_path, "--controls")
        assert not controls & trained
        assert json.loads((folder / "results.json").read_text())["steps"]
