"""The mutants' runner on a small workspace, and the list of mutants against the studies' files as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = ROOT / "tests" / "mutants" / "run.py"
SOURCE = "def change(a, b):\n    return b - a\n\n\ndef unused(a):\n    return a\n"
TESTS = "import toy\n\n\ndef test_the_change_is_b_minus_a():\n    assert toy.change(1, 3) == 2\n"
LIST = """
[[mutant]]
id = "toy-sign"
file = "packages/toy-study/src/toy.py"
old = "b - a"
new = "a - b"
breaks = "the sign | of the change"

[[mutant]]
id = "toy-unused"
file = "packages/toy-study/src/toy.py"
old = "return a\\n"
new = "return -a\\n"
breaks = "what nothing reads"
"""


def workspace(root: Path) -> Path:
    for name, text in {
        "packages/toy-study/src/toy.py": SOURCE,
        "packages/toy-study/tests/test_toy.py": TESTS,
        "tests/mutants/toy-study.toml": LIST,
        "docs/index.md": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def mutants(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), "--root", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def journal(root: Path) -> list[str]:
    return [json.loads(line)["name"] for line in (root / "build" / "mutants.jsonl").read_text().splitlines()]


def test_killed_survived_resumed_and_written(tmp_path: Path) -> None:
    root = workspace(tmp_path)
    done = mutants(root, "--only", "toy-sign")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "toy-sign: packages/toy-study/tests/test_toy.py::test_the_change_is_b_minus_a" in done.stdout
    assert journal(root) == ["toy-study unchanged", "toy-sign"]
    assert not (root / "docs" / "mutants.md").exists()

    done = mutants(root)
    assert done.returncode == 1
    assert "1 of 2 killed; 0 not run yet\nsurvived: toy-unused: what nothing reads; no reason" in done.stdout
    assert journal(root) == ["toy-study unchanged", "toy-sign", "toy-unused"]
    assert (root / "packages/toy-study/src/toy.py").read_text() == SOURCE

    text = (root / "docs" / "mutants.md").read_text()
    assert "## toy-study: 1 of 2 killed" in text
    assert r"| `toy-sign` | the sign \| of the change | killed by `test_toy.py::test_the_change" in text
    assert "| `toy-unused` | what nothing reads | survived: no reason known |" in text


def test_a_changed_source_is_tried_again(tmp_path: Path) -> None:
    root = workspace(tmp_path)
    mutants(root, "--only", "toy-sign")
    (root / "packages/toy-study/src/toy.py").write_text(SOURCE + "\n")
    mutants(root, "--only", "toy-sign")
    assert journal(root) == ["toy-study unchanged", "toy-sign"] * 2


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("packages/toy-study/tests/test_toy.py", TESTS.replace("2", "3"), "fail without any mutant"),
        ("packages/toy-study/tests/test_toy.py", "import nothing_of_that_name\n", "pytest ended with 2"),
        ("packages/toy-study/src/toy.py", SOURCE + SOURCE, "stands 2 times"),
        ("tests/mutants/toy-study.toml", LIST.replace("toy-unused", "toy-sign"), "the id stands 2 times"),
        ("tests/mutants/toy-study.toml", LIST.replace("toy.py", "gone.py"), "no file"),
    ],
)
def test_what_is_not_in_order_is_refused(tmp_path: Path, file: str, text: str, said: str) -> None:
    root = workspace(tmp_path)
    (root / file).write_text(text)
    done = mutants(root)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
