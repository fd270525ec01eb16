"""Edits of the code, and what each makes again: every edit of `edits.toml` is put into a copy of the workspace, and the
same command is run again beside its finished run. The dry run has to say what the run then does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment_core.io import host_id

ROOT = Path(__file__).parents[1]
EDITS: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "edits.toml").read_text())["edit"]
STATES = ("baseline", "stage_a", "stage_b", "dpo")
GROUPS = {
    "data": ["data"],
    "train": ["stage_a", "stage_b", "dpo"],
    "answer": [f"answer_{state}" for state in STATES],
    "judge": [f"judge_{state}" for state in STATES],
}
TRAININGS = set(GROUPS["train"])
LINE = re.compile(r"^  (\w+) +(kept|to make)( again \(.+?\))?(?: \(seeds|:|$)", re.MULTILINE)

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Copy:
    """A copy of the workspace that is run as a user runs it, and the folder of its runs."""

    root: Path
    runs: Path

    def call(self, *words: object, judge: str = "rules") -> subprocess.CompletedProcess[str]:
        """`drift-dpo run` with small settings."""
        sources = [self.root / "shared/src", *sorted((self.root / "packages").glob("*/src"))]
        program = [sys.executable, "-c", "from drift_dpo.cli import app; app(prog_name='drift-dpo')", "run"]
        settings = ["--config", self.root / "tests/small/drift-dpo.toml", "--runs", self.runs, "--judge", judge]
        return subprocess.run(
            [*program, *map(str, settings), *map(str, words)], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))},
        )  # fmt: skip

    def run(self, *words: object, judge: str = "rules") -> str:
        """The output of a run that has to succeed."""
        done = self.call(*words, judge=judge)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def made(self, said: str) -> set[str]:
        """The steps that a run's lines say were made."""
        return set(re.findall(r"^\S+ (?:seed 13: )?(\w+): (?:starts|continues)", said, re.MULTILINE))

    def planned(self, said: str) -> dict[str, str]:
        """The steps that a dry run would make, each with its reason."""
        return {name: why for name, state, why in LINE.findall(said) if state == "to make"}

    def figures(self, judge: str) -> Any:
        """Every figure of the last run with that judge."""
        runs = [p for p in self.runs.glob("drift-dpo/*/config.json") if f'"judge": "{judge}"' in p.read_text()]
        newest = max(runs, key=lambda p: p.stat().st_mtime).parent
        found = json.loads((newest / "results.json").read_text())
        return [(m["metric"], m["subject"], m["value"], m["low"], m["high"]) for m in found["measurements"]]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The copy with two finished runs: judged by the rules, and by the rules and a model."""
    root = tmp_path_factory.mktemp("workspace")
    for place in ("shared/src", *(f"packages/{p.name}/src" for p in (ROOT / "packages").iterdir()), "tests/small"):
        shutil.copytree(ROOT / place, root / place, ignore=shutil.ignore_patterns("__pycache__"))
    made = Copy(root, root / "runs")
    made.run("--quiet")
    made.run("--quiet", judge="rules,model")
    return made


@pytest.fixture
def edited(copy: Copy, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """One edit, put in and taken out again."""
    edit: dict[str, Any] = request.param
    path = copy.root / edit["file"]
    text = path.read_text()
    assert text.count(edit["old"]) == 1 or edit.get("first"), f"{edit['old']!r} stands {text.count(edit['old'])} times"
    path.write_text(text.replace(edit["old"], edit["new"], 1))
    yield edit
    path.write_text(text)


def steps(groups: list[str]) -> set[str]:
    """The steps that the groups name."""
    return {step for group in groups for step in GROUPS.get(group, [group])}


@pytest.mark.parametrize("edited", EDITS, indirect=True, ids=[edit["id"] for edit in EDITS])
def test_an_edit_makes_again_what_it_changed(edited: dict[str, Any], copy: Copy) -> None:
    judge = edited.get("judge", "rules")
    copied = shutil.copytree(copy.runs, copy.root / "before")
    try:
        before = copy.figures(judge)
        expected = steps(edited["again"])
        planned = copy.planned(copy.run("--dry-run", judge=judge))
        assert set(planned) == expected
        # Other settings are another run, which made none of its own steps before.
        assert all(bool(why) != edited.get("another_run", False) for why in planned.values()), planned
        assert copy.made(copy.run(judge=judge)) == expected
        if edited.get("figures") == "change":
            assert copy.figures(judge) != before
        if edited.get("figures") == "stay":
            assert copy.figures(judge) == before
    finally:
        shutil.rmtree(copy.runs)
        copied.rename(copy.runs)


LOOP = next(edit for edit in EDITS if edit["id"] == "the training loop")


@pytest.fixture
def costly(copy: Copy) -> Iterator[Copy]:
    """The runs, as if stage A had taken more than an hour; put back afterwards."""
    kept = shutil.copytree(copy.runs, copy.root / "cheap")
    (made,) = copy.runs.glob("drift-dpo/steps/stage_a-*/made.json")
    made.write_text(made.read_text().replace('"seconds": ', '"seconds": 4000'))
    yield copy
    shutil.rmtree(copy.runs)
    kept.rename(copy.runs)


@pytest.mark.parametrize("edited", [LOOP], indirect=True, ids=["training loop"])
def test_costly_steps_are_not_made_again_unasked(costly: Copy, edited: dict[str, Any]) -> None:
    before = sorted(costly.runs.rglob("*"))
    done = costly.call()
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "stage_a, stage_b, dpo" in line
    assert "alignment_core.models.loop changed" in line
    assert "--remake" in line
    assert "--keep-changed" in line
    assert sorted(costly.runs.rglob("*")) == before
    assert not costly.made(costly.run("--keep-changed")) & TRAININGS
    (folder,) = (p.parent for p in costly.runs.glob("drift-dpo/*/config.json") if '"judge": "rules"' in p.read_text())
    said = "seed 13: stage_a was made by other code than today's and kept: alignment_core.models.loop changed."
    assert said in json.loads((folder / "results.json").read_text())["notes"]
    for page in ("report.html", "report.md"):
        assert "was made by other code than today" in (folder / page).read_text(), page
    assert costly.made(costly.run("--remake")) >= TRAININGS
    assert json.loads((folder / "results.json").read_text())["notes"] == []


@pytest.mark.parametrize("edited", [LOOP], indirect=True, ids=["training loop"])
def test_a_costly_step_that_is_unfinished_is_not_begun_again_unasked(costly: Copy, edited: dict[str, Any]) -> None:
    (whole,) = costly.runs.glob("drift-dpo/steps/stage_a-*")
    facts = json.loads((whole / "step.json").read_text())
    about = {key: value for key, value in facts.items() if key not in ("files", "sha256", "versions", "git")}
    (whole / "made.json").write_text(json.dumps({"seconds": 4000.0, "attempts": 1, "about": about}))
    (whole / "step.json").unlink()
    (whole / "checkpoints").mkdir()
    gone = f"host+{host_id()}+4194305+1+abcd"
    whole.rename(whole.with_name(f".{whole.name}.{gone}.partial"))
    done = costly.call()
    assert done.returncode == 2
    assert "--keep-changed" in done.stderr
    assert "seed 13: stage_a: continues" in costly.run("--keep-changed")
    assert whole.is_dir()
    assert json.loads((whole / "step.json").read_text())["continued_by"]


def test_there_are_enough_edits() -> None:
    assert len(EDITS) >= 24
    assert len({edit["id"] for edit in EDITS}) == len(EDITS)
