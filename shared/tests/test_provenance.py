"""The digest of our own code: what it sees, what it leaves out, and that it is the same everywhere."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from alignment_core.pipeline.provenance import code_of, module_digest, module_of

ROOT = Path(__file__).parents[2]
SAMPLE = '''
"""What it is."""
from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("x")
LIMIT: int = -3
NOTE = f"{LIMIT!r:>4} of {LIMIT=}" " and " f"{'quoted'}"


class Thing:
    """A thing."""

    size: float = 1e-3

    @property
    def twice(self) -> float:
        return 2 * self.size


def work(rows: Sequence[int], *, most: int = 10, **more: object) -> dict[str, list[int]]:
    """Do it."""
    if most < 0:
        raise ValueError(f"most is {most}: give 0 or more")
    log.info("%d rows", len(rows))
    found = {str(k): [x for x in rows if x % k == 0] for k in range(1, most) if k}
    match most:
        case 0 | 1:
            pass
        case _:
            found |= {"all": [*rows, *({1, 2} - {2})]}
    try:
        return found
    finally:
        assert b"x" != "x", "never"
'''
GOLDEN = "e14d35b1836192e2"


def test_the_digest_of_a_sample_is_the_golden_one() -> None:
    assert module_digest(SAMPLE) == GOLDEN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""What it is."""', '"""Something else."""'),
        ('    """Do it."""\n', ""),
        ("rows: Sequence[int]", "rows: list[int]"),
        ("    size: float = 1e-3", "    size: object = 1e-3"),
        ("most is {most}: give 0 or more", "{most} is too few"),
        ('log.info("%d rows", len(rows))', 'log.info("rows: %d", len(rows))'),
        ("LIMIT: int = -3\n", "LIMIT: int = -3  # the least\n\n\n"),
        ("    from collections.abc import Sequence\n", "    from collections.abc import Sequence, Mapping\n"),
        ("range(1, most)", "range(\n        1,\n        most,\n    )"),
    ],
)
def test_what_decides_no_result_is_left_out(old: str, new: str) -> None:
    assert SAMPLE.count(old) == 1
    assert module_digest(SAMPLE.replace(old, new)) == module_digest(SAMPLE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-3", "-4"),
        ("x % k == 0", "x % k != 0"),
        ("most: int = 10", "most: int = 11"),
        ("def twice", "def double"),
        ("return 2 * self.size", "return 2.0 * self.size"),
        ("    @property\n", ""),
        ('"all"', '"every"'),
        ("raise ValueError(f", "raise KeyError(f"),
        ("most < 0", "most <= 0"),
        ("import logging\n", "import logging as logging_\n"),
        ('f"{LIMIT!r:>4} of', 'f"{LIMIT!s:>4} of'),
        ('b"x"', 'b"y"'),
    ],
)
def test_what_may_decide_a_result_is_seen(old: str, new: str) -> None:
    assert old in SAMPLE
    assert module_digest(SAMPLE.replace(old, new, 1)) != module_digest(SAMPLE)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package of some modules."""
    name = f"pkg_{tmp_path.parent.name}_{tmp_path.name}".replace("-", "_")
    files = {
        "__init__": "",
        "work": f"from {name} import table\nfrom {name}.deep import tool\n\ndef do(folder):\n"
        f"    from {name}.late import late\n    return tool, late\n",
        "deep/__init__": "",
        "deep/tool": "import json\nfrom ..shared import thing\n\ndef tool():\n    return thing\n",
        "shared": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
        f"    from {name} import for_checker\nthing = 1\n",
        "for_checker": "",
        "late": "late = 1\n",
        "table": f"from {name} import one\n__registry__ = True\nTABLE = {{'one': '{name}.one', 'two': '{name}.two'}}\n",
        "one": "one = 1\n",
        "two": "two = 2\n",
        "stranger": "",
    }
    for file, text in files.items():
        path = tmp_path / name / f"{file}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module(name)


def test_the_code_is_what_the_work_can_reach(package: ModuleType) -> None:
    name = package.__name__
    assert name is not None
    found = {module.removeprefix(name) for module in code_of(f"{name}.work").modules}
    assert found == {"", ".work", ".deep", ".deep.tool", ".shared", ".late"}
    more = {module.removeprefix(name) for module in code_of(f"{name}.work", f"{name}.two").modules}
    assert more - found == {".two"}


def test_an_edit_anywhere_in_it_changes_the_digest_and_elsewhere_does_not(package: ModuleType) -> None:
    name, root = package.__name__, Path(str(package.__file__)).parent
    before = code_of(f"{name}.work").digest
    for file, seen in {"shared": True, "late": True, "stranger": False, "one": False, "table": False}.items():
        path = root / f"{file}.py"
        text = path.read_text()
        path.write_text(f"{text}added = 1\n")
        os.utime(path, ns=(1, 1))
        assert (code_of(f"{name}.work").digest != before) == seen, file
        path.write_text(text)
        os.utime(path, ns=(2, 2))
    assert code_of(f"{name}.work").digest == before


def test_the_module_of_a_works_function_is_found_through_partial() -> None:
    assert module_of(partial(partial(json.dumps, indent=1), sort_keys=True)) == "json"


def test_a_module_without_source_is_no_work() -> None:
    with pytest.raises(RuntimeError, match=r"the source of module nowhere\.at_all cannot be found"):
        code_of("nowhere.at_all")


PRINT = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from alignment_core.pipeline.provenance import code_of, module_digest
works = json.loads(sys.argv[2])
print(json.dumps([module_digest(sys.argv[3]), {work: code_of(work).digest for work in works}]))
"""
WORKS = ["alignment_core.models.train", "alignment_core.evaluation.judging", "alignment_core.judging.rules_judge"]


def digests(python: str, *paths: Path) -> object:
    """What another interpreter says of the sample and of three works, our code taken from these paths."""
    command = [python, "-S", "-c", PRINT, json.dumps(list(map(str, paths))), json.dumps(WORKS), SAMPLE]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def other_pythons() -> list[str]:
    """Pythons 3.11 to 3.13 that the machine has beside this one."""
    homes = [
        home for home in (Path.home() / ".pyenv/versions", Path.home() / ".local/share/uv/python") if home.is_dir()
    ]
    found: dict[int, str] = {}
    for minor in (minor for minor in (11, 12, 13) if minor != sys.version_info.minor):
        name = f"python3.{minor}"
        for path in filter(None, [*(str(p) for home in homes for p in home.glob(f"*/bin/{name}")), shutil.which(name)]):
            if subprocess.run([path, "-c", "pass"], capture_output=True, check=False).returncode == 0:
                found.setdefault(minor, path)
    return list(found.values())


def test_the_digests_are_the_same_on_other_pythons() -> None:
    pythons = other_pythons()
    if not pythons:
        pytest.skip("no other Python from 3.11 to 3.13 on this machine; CI runs each")
    mine = digests(sys.executable, ROOT / "shared/src")
    for python in pythons:
        assert digests(python, ROOT / "shared/src") == mine, python


def test_the_digests_are_the_same_from_a_wheel(tmp_path: Path) -> None:
    """A wheel is the package's files in an archive, unpacked into another folder."""
    with zipfile.ZipFile(tmp_path / "core.whl", "w") as wheel:
        for path in (ROOT / "shared/src/alignment_core").rglob("*.py"):
            wheel.write(path, path.relative_to(ROOT / "shared/src"))
    with zipfile.ZipFile(tmp_path / "core.whl") as wheel:
        wheel.extractall(tmp_path / "site-packages")
    assert digests(sys.executable, tmp_path / "site-packages") == digests(sys.executable, ROOT / "shared/src")
