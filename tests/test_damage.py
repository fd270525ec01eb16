"""Single-bit flips over every file of finished runs of every study: `verify` finds each, no command uses the file, and
the same `run` again mends it."""

from __future__ import annotations

import importlib
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from alignment_core.cli.main import app as core
from alignment_core.pipeline.step import is_exempt
from alignment_core.testing.runs import run_folders

SMALL = Path(__file__).parent / "small"
STUDIES = ("drift-dpo", "neuron-brittleness", "orth-refusal", "mini-cai")
FLIPS, MENDED = 125, 50
"""Flips a study, 500 in all; and how many of drift-dpo's are mended."""
PAGES = {".html", ".md", ".tex", ".csv", ".png", ".pdf", ".svg"}

pytestmark = pytest.mark.slow


def call(study: str, *words: object) -> Result:
    """A command of the study."""
    app = importlib.import_module(f"{study.replace('-', '_')}.cli").app
    return CliRunner().invoke(app, list(map(str, words)))


def run(study: str, runs: Path, *words: object) -> Result:
    return call(study, "run", "--quiet", "--config", SMALL / f"{study}.toml", "--runs", runs, *words)


@pytest.fixture(scope="module", params=STUDIES)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A study and the folder of its finished run."""
    runs = tmp_path_factory.mktemp(request.param)
    done = run(request.param, runs)
    assert done.exit_code == 0, done.output
    return request.param, run_folders(runs / request.param)[0]


def covered(folder: Path) -> list[Path]:
    """Every file of a run and of its study's steps that a hash covers."""
    files = [p for place in (folder, folder.parent / "steps") for p in sorted(place.rglob("*")) if p.is_file()]
    return [p for p in files if p.stat().st_size and not is_exempt(p.name) and not p.name.startswith(".")]


@contextmanager
def flipped(path: Path, chance: random.Random) -> Iterator[None]:
    """Inside, one bit of the file is another."""
    before = path.read_bytes()
    data = bytearray(before)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    yield
    path.write_bytes(before)


def test_verify_finds_every_flip_and_no_command_uses_the_file(finished: tuple[str, Path], tmp_path: Path) -> None:
    study, folder = finished
    assert call(study, "verify", folder).exit_code == 0
    files, chance = covered(folder), random.Random(study)
    for number in range(FLIPS):
        # Every file once, then files at random.
        path = files[number] if number < len(files) else chance.choice(files)
        with flipped(path, chance):
            done = call(study, "verify", folder)
            assert done.exit_code == 3, f"{path}: {done.output}"
            named = path.name if path.parent.parent.name == "steps" or path.parent == folder else ""
            assert named in done.output
            page = path.is_relative_to(folder) and path.suffix in PAGES
            if number % 5 == 0 and not page:
                exported = CliRunner().invoke(core, ["export", str(folder), str(tmp_path / "out")])
                given = ("--config", SMALL / f"{study}.toml", "--runs", folder.parents[1])
                recorded = call(study, "record", tmp_path / "records", *given)
                for used in (call(study, "report", folder), exported, recorded):
                    assert used.exit_code == 2, f"{path}: {used.output}"
                    assert len(used.stderr.splitlines()) == 1
                if path.parent == folder:
                    overview = CliRunner().invoke(core, ["report", str(folder.parents[1])])
                    assert overview.exit_code == 2, f"{path}: {overview.output}"
                assert not list(tmp_path.iterdir())
    assert call(study, "verify", folder).exit_code == 0


def test_labels_edited_at_equal_length_are_found(finished: tuple[str, Path]) -> None:
    """Eighty verdicts turned around in place would move a headline without a word."""
    study, folder = finished
    for path in (folder.parent / "steps").glob("judge_*/**/verdicts.jsonl"):
        before = path.read_text()
        path.write_text(before.replace('"label": "refusal"   ', "").replace('"refusal"', '"refusaL"', 80))
        if path.read_text() == before:
            continue
        assert call(study, "report", folder).exit_code == 2
        assert "verdicts.jsonl was changed" in call(study, "verify", folder).output
        path.write_text(before)


def test_a_run_mends_what_was_flipped(tmp_path: Path) -> None:
    study = "drift-dpo"
    assert run(study, tmp_path).exit_code == 0
    (folder,) = run_folders(tmp_path / study)
    expected = (folder / "results.json").read_bytes()
    files, chance = covered(folder), random.Random("mend")
    for number in range(MENDED):
        path = files[number * len(files) // MENDED]
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        done = run(study, tmp_path)
        assert done.exit_code == 0, f"{path}: {done.output}"
        assert (folder / "results.json").read_bytes() == expected, path
        assert call(study, "verify", folder).exit_code == 0, path
        for aside in (folder.parent / "steps").glob(".*.set-aside"):
            shutil.rmtree(aside)
    assert json.loads((folder / "config.json").read_text())["study"] == study
