"""The wheels: what their metadata says; each study runs from its own and the core's in an empty environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCAL_UV = ROOT / ".uv" / "bin" / "uv"
UV = shutil.which("uv") or (str(LOCAL_UV) if LOCAL_UV.exists() else None)
STUDIES = ["drift-dpo", "orth-refusal", "mini-cai", "neuron-brittleness"]
FOLDERS = {"alignment-core": ROOT / "shared"} | {study: ROOT / "packages" / study for study in STUDIES}


def _run(*words: str, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run(words, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _project(package: str) -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((FOLDERS[package] / "pyproject.toml").read_text())["project"]
    return project


@pytest.mark.parametrize("package", FOLDERS)
def test_every_package_has_its_licence_changelog_and_readme(package: str) -> None:
    folder, project = FOLDERS[package], _project(package)
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert project["license-files"] == ["LICENSE"]
    assert project["readme"] == "README.md"
    first = re.search(r"^## (\S+)", (folder / "CHANGELOG.md").read_text(), re.M)
    assert first is not None
    assert first[1] == project["version"], "the changelog's newest heading is the version"


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_takes_a_core_of_this_series(study: str) -> None:
    major, minor, _ = str(_project("alignment-core")["version"]).split(".")
    assert _project(study)["dependencies"] == [f"alignment-core>={major}.{minor},<{major}.{int(minor) + 1}"]


@pytest.mark.parametrize("package", FOLDERS)
def test_a_wheel_says_what_it_is_and_holds_no_strangers(package: str, tmp_path: Path) -> None:
    if UV is None:
        pytest.skip("uv is not installed")
    try:
        _run(UV, "build", "--quiet", "--wheel", "--package", package, "--out-dir", str(tmp_path), cwd=ROOT)
    except AssertionError as error:
        if "network" in str(error).lower() or "failed to fetch" in str(error).lower():
            pytest.skip(f"the build backend cannot be fetched: {str(error)[-200:]}")
        raise
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (where,) = [n for n in names if n.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(where))
    info = where.split("/")[0]
    assert f"{info}/licenses/LICENSE" in names
    assert metadata["License-Expression"] == "MIT"
    assert str(metadata.get_payload()).startswith(f"# {package}")
    assert "Programming Language :: Python :: 3.13" in metadata.get_all("Classifier", [])
    tops = {n.split("/")[0] for n in names}
    assert tops == {package.replace("-", "_"), info}
    assert not [n for n in names if "/tests/" in n or n.endswith((".pyc", ".pt", ".bin", ".pkl"))]
    assert f"{package.replace('-', '_')}/py.typed" in names


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_study_and_core_run_from_wheels_alone(study: str, tmp_path: Path) -> None:
    if UV is None:
        pytest.skip("uv is not installed")
    dist = tmp_path / "dist"
    for package in ("alignment-core", study):
        _run(UV, "build", "--quiet", "--wheel", "--package", package, "--out-dir", str(dist), cwd=ROOT)
    _run(UV, "venv", "--quiet", "--python", "3.11", "env", cwd=tmp_path)
    wheels = [str(w) for w in sorted(dist.glob("*.whl"))]
    assert len(wheels) == 2
    _run(UV, "pip", "install", "--quiet", "--python", "env/bin/python", *wheels, cwd=tmp_path)
    out = _run(f"env/bin/{study}", "run", "--preset", "tiny", cwd=tmp_path)
    assert "report:" in out
    assert list(tmp_path.glob(f"runs/{study}/tiny/results.json"))
