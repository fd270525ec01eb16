"""Mutants: single changes of what the studies estimate, each of which some quick test of its study has to notice.

`tests/mutants/<study>.toml` lists a study's mutants: id, file (from the root), old text (found exactly once), new
text, what it breaks, and `why` where it is known to survive. Each is put into a copy of the workspace, the study's
quick tests run on that copy, and the outcome goes to build/mutants.jsonl under a hash of the mutant and of every file
that the tests can read: run again, only what changed is tried again. docs/mutants.md is written when every mutant has
an outcome. Exit code 1 where fewer than 95% are killed, a survivor has no reason, or the unchanged tests fail.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

ENOUGH = 0.95
"""The share of mutants that the tests have to kill."""
LONGEST = 1200.0
"""Seconds for a study's quick tests; a mutant that takes longer is killed by the clock."""
_LEFT_OUT = (".git", ".venv", ".uv", "runs", "build", "dist", "__pycache__", ".*_cache", ".hypothesis")
_NAMED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    id: str
    study: str
    file: str
    old: str
    new: str
    breaks: str
    why: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a study's quick tests said: the first test that failed, or an empty string where all passed."""

    by: str
    seconds: float


class Refused(Exception):
    """The list, or the tests without any change, are not in order."""


def read_lists(root: Path) -> list[Mutant]:
    """Every listed mutant; `Refused` where an id stands twice or an old text is not found exactly once."""
    found: list[Mutant] = []
    for path in sorted((root / "tests" / "mutants").glob("*.toml")):
        rows = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
        found += [Mutant(study=path.stem, **{k: v for k, v in row.items() if k != "why"}, why=row.get("why", ""))
                  for row in rows]  # fmt: skip
    problems = [p for m in found if (p := _problem(m, root))]
    ids = [m.id for m in found]
    problems += [f"{one}: the id stands {ids.count(one)} times" for one in sorted(set(ids)) if ids.count(one) > 1]
    if problems:
        raise Refused("\n".join(problems))
    return found


def _problem(mutant: Mutant, root: Path) -> str:
    path = root / mutant.file
    if not path.is_file():
        return f"{mutant.id}: no file {mutant.file}"
    times = path.read_text(encoding="utf-8").count(mutant.old)
    if times != 1:
        return f"{mutant.id}: its old text stands {times} times in {mutant.file}, not once"
    return f"{mutant.id}: old and new text are the same" if mutant.old == mutant.new else ""


def source_hash(root: Path, study: str) -> str:
    """Hash of the files that a study's quick tests can read: the core, the study, its record, the test settings."""
    folders = ("shared/src", f"packages/{study}", f"studies/{study}")
    files = [root / "conftest.py", root / "pyproject.toml"]
    files += [p for name in folders for p in (root / name).rglob("*") if "__pycache__" not in p.parts]
    digest = hashlib.sha256()
    for path in sorted(p for p in files if p.is_file()):
        digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def key(mutant: Mutant | None, source: str) -> str:
    """What an outcome is kept under; None: the tests without any change. The reason decides nothing."""
    change = None if mutant is None else {k: v for k, v in asdict(mutant).items() if k not in ("why", "breaks")}
    return hashlib.sha256(f"{json.dumps(change, sort_keys=True)}{source}".encode()).hexdigest()


class Journal:
    """Outcomes by key, one JSON line each, written as they come."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.known = {row["key"]: Outcome(row["by"], row["seconds"]) for row in rows}

    def add(self, key: str, name: str, outcome: Outcome) -> None:
        with self.lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as stream:
                stream.write(json.dumps({"key": key, "name": name, **asdict(outcome)}) + "\n")
            self.known[key] = outcome


class Trees:
    """Copies of the workspace, each used by one worker at a time, and the processes that work on them."""

    def __init__(self, root: Path, folder: Path, count: int) -> None:
        self.free: SimpleQueue[Path] = SimpleQueue()
        self.running: set[subprocess.Popen[str]] = set()
        for number in range(count):
            tree = folder / f"tree{number}"
            shutil.copytree(root, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT))
            self.free.put(tree)

    def outcome(self, mutant: Mutant | None, study: str) -> Outcome:
        """The quick tests of `study` on a copy with the mutant in it; the copy is as before afterwards."""
        tree = self.free.get()
        try:
            if mutant is None:
                return self._tests(tree, study, f"{study} unchanged")
            path = tree / mutant.file
            original = path.read_text(encoding="utf-8")
            path.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
            try:
                return self._tests(tree, study, mutant.id)
            finally:
                path.write_text(original, encoding="utf-8")
        finally:
            self.free.put(tree)

    def _tests(self, tree: Path, study: str, name: str) -> Outcome:
        command = [sys.executable, "-m", "pytest", f"packages/{study}/tests", "-m", "not slow and not gpu", "-x", "-q"]
        command += ["-p", "no:cacheprovider", "--tb=no", "-rfE", "--hypothesis-seed=0"]
        sources = [tree / "shared" / "src", *sorted((tree / "packages").glob("*/src"))]
        values = {"PYTHONPATH": os.pathsep.join(map(str, sources)), "PYTHONDONTWRITEBYTECODE": "1"}
        begun = time.monotonic()
        process = subprocess.Popen(
            command, cwd=tree, env=os.environ | values | {"OMP_NUM_THREADS": "1"}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.running.add(process)
        try:
            out, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            _end(process)
            return Outcome(f"the clock: over {LONGEST:.0f} s", LONGEST)
        finally:
            self.running.discard(process)
        if process.returncode not in (0, 1):
            raise Refused(f"{name}: pytest ended with {process.returncode}: {out[-2000:]}")
        named = _NAMED.search(out)
        by = "" if process.returncode == 0 else named[1] if named else "a test without a name"
        return Outcome(by, round(time.monotonic() - begun, 1))

    def end(self) -> None:
        """End what is still running."""
        for process in list(self.running):
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tried(mutants: Sequence[Mutant], root: Path, journal: Journal, jobs: int) -> dict[str, Outcome]:
    """The outcome of every mutant by id; what the journal knows is not run again. First the tests run unchanged."""
    sources = {study: source_hash(root, study) for study in dict.fromkeys(m.study for m in mutants)}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = Trees(root, Path(folder), jobs)

        def unchanged(study: str) -> None:
            kept = key(None, sources[study])
            if kept not in journal.known:
                journal.add(kept, f"{study} unchanged", trees.outcome(None, study))
            if by := journal.known[kept].by:
                raise Refused(f"{study}: its quick tests fail without any mutant: {by}")

        def one(mutant: Mutant) -> None:
            kept = key(mutant, sources[mutant.study])
            if kept not in journal.known:
                journal.add(kept, mutant.id, outcome := trees.outcome(mutant, mutant.study))
                print(f"{mutant.id}: {outcome.by or 'survived'} ({outcome.seconds:.0f} s)", flush=True)

        try:
            with ThreadPoolExecutor(jobs) as pool:
                open_ = [m for m in mutants if key(m, sources[m.study]) not in journal.known]
                list(pool.map(unchanged, dict.fromkeys(m.study for m in open_)))
                list(pool.map(one, open_))
        finally:
            trees.end()
    return {m.id: journal.known[key(m, sources[m.study])] for m in mutants}


def known(mutants: Iterable[Mutant], root: Path, journal: Journal) -> dict[str, Outcome]:
    """The outcomes that the journal has at the present sources, by id."""
    sources: dict[str, str] = {}
    for m in mutants:
        sources.setdefault(m.study, source_hash(root, m.study))
    kept = {m.id: key(m, sources[m.study]) for m in mutants}
    return {ident: journal.known[k] for ident, k in kept.items() if k in journal.known}


def page(mutants: Sequence[Mutant], outcomes: dict[str, Outcome], commit: str) -> str:
    """docs/mutants.md: by study a row for each mutant."""
    killed = sum(bool(outcomes[m.id].by) for m in mutants)
    lines = [
        "# Mutants",
        "",
        "Each mutant is a single change of what a study estimates: a sign, a set, a seed, a base, a dose, a split, a "
        "reference, a rule that is left out. It is put into a copy of the workspace, and the study's quick tests run. "
        "`make mutants` writes this page; the mutants stand in `tests/mutants/`.",
        "",
        f"{killed} of {len(mutants)} are killed (tried on the sources of {commit}).",
    ]
    for study in dict.fromkeys(m.study for m in mutants):
        mine = [m for m in mutants if m.study == study]
        dead = sum(bool(outcomes[m.id].by) for m in mine)
        lines += ["", f"## {study}: {dead} of {len(mine)} killed", "", "| mutant | what it breaks | outcome |"]
        lines += ["|---|---|---|", *(f"| `{m.id}` | {_cell(m.breaks)} | {_said(m, outcomes[m.id])} |" for m in mine)]
    return "\n".join(lines) + "\n"


def _commit(root: Path) -> str:
    """The commit that is checked out, in a phrase."""
    command = ["git", "-C", str(root), "rev-parse", "--short=10", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else "no commit"


def _said(mutant: Mutant, outcome: Outcome) -> str:
    if not outcome.by:
        return f"survived: {_cell(mutant.why) or 'no reason known'}"
    return f"killed by `{_cell(outcome.by.rpartition('/')[2])}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Try the mutants of the studies' estimands.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the workspace")
    parser.add_argument("--study", default="", help="only this study's")
    parser.add_argument("--only", default="", metavar="ID", help="only this mutant")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    given = parser.parse_args(words)
    try:
        listed = read_lists(given.root)
        chosen = [m for m in listed if given.study in ("", m.study) and given.only in ("", m.id)]
        if not chosen:
            raise Refused(f"no such mutant; there are {', '.join(m.id for m in listed)}")
        journal = Journal(given.root / "build" / "mutants.jsonl")
        outcomes = tried(chosen, given.root, journal, given.jobs)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    everything = known(listed, given.root, journal)
    if len(everything) == len(listed):
        (given.root / "docs" / "mutants.md").write_text(page(listed, everything, _commit(given.root)), encoding="utf-8")
    survivors = [m for m in chosen if not outcomes[m.id].by]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed; {len(listed) - len(everything)} not run yet")
    for m in survivors:
        print(f"survived: {m.id}: {m.breaks}; {m.why or 'no reason is written'}")
    return int(1 - len(survivors) / len(chosen) < ENOUGH or any(not m.why for m in survivors))


if __name__ == "__main__":
    sys.exit(main())
