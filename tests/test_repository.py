"""The repository's own promises: import rules, neutral lock, no index's host, no machine's path, presets that load."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from alignment_core.cli import headlines
from alignment_core.config import ModelSettings, Settings, presets, resolve
from alignment_core.embedded import embedded_seed

ROOT = Path(__file__).parents[1]
STUDIES = {
    "drift_dpo": "drift_dpo.config:DriftConfig",
    "orth_refusal": "orth_refusal.config:OrthConfig",
    "mini_cai": "mini_cai.config:CaiConfig",
    "neuron_brittleness": "neuron_brittleness.config:BrittlenessConfig",
}


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def _committed(path: Path) -> str:
    shown = subprocess.run(["git", "show", f":{path.relative_to(ROOT)}"], cwd=ROOT, capture_output=True, check=True)
    return shown.stdout.decode("utf-8", "replace")


def test_import_rules_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_no_study_asks_which_process_it_is() -> None:
    sources = list(ROOT.glob("packages/*/src/**/*.py"))
    assert len(sources) > 50
    assert not [path for path in sources if "is_main" in path.read_text(encoding="utf-8")]


def test_committed_lock_names_no_index() -> None:
    _tracked()
    lock = _committed(ROOT / "uv.lock")
    hosts = set(re.findall(r'(?:registry|url) = "https?://([^/"]+)', lock))
    assert hosts == {"index.invalid"}
    assert "[manifest]" not in lock
    assert ", size = " not in lock


def test_locks_of_two_indexes_are_staged_as_one(tmp_path: Path) -> None:
    """The same versions and hashes, told by a mirror without sizes and by an index with them."""
    for name in (".gitattributes", ".ci/neutral-lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["sh", ".ci/neutral-lock"], cwd=tmp_path, check=True)
    staged = set()
    for place, size in (("https://mirror.example/a/simple", ""), ("https://index.example/files", ", size = 123")):
        wheel = f'{{ url = "{place}/x-1.whl", hash = "sha256:00"{size}, upload-time = "2026-01-01" }}'
        (tmp_path / "uv.lock").write_text(f'source = {{ registry = "{place}/simple" }}\nwheels = [\n    {wheel},\n]\n')
        subprocess.run(["git", "add", "uv.lock"], cwd=tmp_path, check=True)
        shown = subprocess.run(["git", "show", ":uv.lock"], cwd=tmp_path, check=True, capture_output=True, text=True)
        staged.add(shown.stdout)
    (text,) = staged
    assert "example" not in text


def test_no_committed_file_names_an_index_host() -> None:
    host = re.compile(rf"\b(?:{'|'.join(('py' + 'pi', 'python' + 'hosted', 'npm' + 'js'))})\.(?:org|com)\b")
    guilty = [p for p in _tracked() if p.suffix not in {".safetensors", ".png"} and host.search(_committed(p))]
    assert not guilty


@pytest.mark.parametrize("package", STUDIES)
def test_every_preset_loads(package: str) -> None:
    module, _, name = STUDIES[package].partition(":")
    model = getattr(import_module(module), name)
    assert presets(package)[0] == "tiny"
    for preset in presets(package):
        config = resolve(model, package, preset)
        for held in _models(config):
            if not embedded_seed(held.name):
                assert re.fullmatch(r"[0-9a-f]{40}", held.revision or ""), f"{preset}: {held.name} is not pinned"


def _models(section: Settings) -> Iterator[ModelSettings]:
    """Every model that the settings name, at any depth."""
    if isinstance(section, ModelSettings):
        yield section
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Settings):
            yield from _models(value)


def test_the_makefile_knows_every_study() -> None:
    words = re.search(r"^STUDIES := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert words
    assert sorted(words[1].split()) == sorted(p.parent.name for p in (ROOT / "packages").glob("*/pyproject.toml"))


def _between(page: str, start: str, end: str) -> list[str]:
    text = (ROOT / page).read_text()
    assert start in text
    return [line for line in text.split(start)[1].split(end)[0].splitlines() if line.startswith("| ")]


def test_the_readmes_refusal_figures_are_those_of_the_benchmark() -> None:
    measured = set((ROOT / "docs" / "refusal.md").read_text().splitlines())
    shown = _between("README.md", "<!-- refusal figures, from docs/refusal.md -->", "<!-- end of refusal figures -->")
    assert len(shown) == 6, "the heading, its rule and four rows; the whole table stands in docs/refusal.md"
    assert [line for line in shown if line not in measured and "---" not in line] == []


def test_the_readmes_headlines_are_generated_from_the_records() -> None:
    shown = _between("README.md", headlines.START, headlines.END)
    assert shown == [line for line in headlines.table(ROOT / "studies").splitlines() if line.startswith("| ")]
