"""A run's list, `run.json`: the steps it holds and the hashes of its files, so that a change of any is found.

A step is listed when it is started, with the hash of its step.json once it is whole; a listed step is never pruned.
Settings and environment are listed at the start, results and pages at the end. The file holds its own hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.pipeline.locks import locked
from alignment_core.pipeline.step import STEP, damage, is_exempt, outdated, parse_label, read_sealed, sealed

LIST = "run.json"
_PAGES = re.compile(r"report\.(html|md)|tables\.tex|verdicts\.csv|figures/.+")
"""What `report` writes again from the other files, and nothing is made from."""
OLD = "steps"
"""In a run's folder: where versions before the store kept the run's own steps."""


def steps_folder(run_folder: Path) -> Path:
    """Where the steps of the run's study lie."""
    return run_folder.parent / "steps"


def refuse_old(run_folder: Path) -> None:
    """`UserError` for a run folder of a version that kept its steps inside."""
    if (run_folder / OLD).is_dir():
        raise UserError(
            f"{run_folder} was made by an earlier version, which kept the steps inside the run's folder; move it away, "
            "or choose another folder with --runs"
        )


def read(run_folder: Path) -> dict[str, Any]:
    """The list, empty where there is none yet; `UserError` where it was changed."""
    path = run_folder / LIST
    if not path.exists():
        return {"steps": {}, "files": {}}
    found = read_sealed(path)
    if found is None:
        raise UserError(f"{path} was changed after it was made; delete it and start the run again")
    return found


def update(run_folder: Path, steps: Mapping[str, str | None], files: Iterable[Path] = ()) -> None:
    """Add steps (hash of step.json by label; None: started) and the hashes of files. A step takes the place of the one
    of the same name and seed."""
    with locked(run_folder / ".lock"):
        try:
            old = read(run_folder)
        except UserError:
            old = {"steps": {}, "files": {}}  # damaged: what is known now is written anew
        new = {parse_label(label) for label in steps}
        kept = {label: digest for label, digest in old["steps"].items() if parse_label(label) not in new}
        hashes = {path.relative_to(run_folder).as_posix(): io.sha256_file(path) for path in files}
        text = sealed({"steps": {**kept, **steps}, "files": {**old["files"], **hashes}})
        if not (run_folder / LIST).exists() or (run_folder / LIST).read_text(encoding="utf-8") != text:
            io.write_text(run_folder / LIST, text)


def list_files(run_folder: Path) -> None:
    """List every file of the run's folder as it is now; those that are gone are dropped."""
    with locked(run_folder / ".lock"):
        files = {p.relative_to(run_folder).as_posix(): io.sha256_file(p) for p in _files(run_folder)}
        io.write_text(run_folder / LIST, sealed({"steps": read(run_folder)["steps"], "files": files}))


def _files(run_folder: Path) -> Iterator[Path]:
    for path in sorted(run_folder.rglob("*")):
        inside = path.relative_to(run_folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.is_file() and not hidden and not is_exempt(path.name) and inside.as_posix() != LIST:
            yield path


def held(study_folder: Path) -> set[str]:
    """Labels of the steps that some run of the study lists; `UserError` where a list is damaged."""
    return {label for path in sorted(study_folder.glob(f"*/{LIST}")) for label in read(path.parent)["steps"]}


@contextmanager
def rewriting(run_folder: Path) -> Iterator[None]:
    """Inside, files of a listed run are written again: those are listed anew, and every other keeps its hash."""
    before = {path: path.stat().st_mtime_ns for path in _files(run_folder)}
    yield
    if (run_folder / LIST).exists():
        update(run_folder, {}, [p for p in _files(run_folder) if before.get(p) != p.stat().st_mtime_ns])


def problems(run_folder: Path, *, pages: bool = True) -> Iterator[str]:
    """What was changed after it was made, one line each: the list, the run's files (with its pages or without), its
    steps and their inputs."""
    yield from _file_problems(run_folder, pages=pages)
    store, listed = steps_folder(run_folder), read_sealed(run_folder / LIST)
    for label, digest in ({} if listed is None else listed["steps"]).items():
        if digest is not None and (wrong := _step_problem(store / label, digest)):
            yield f"{store / label}: {wrong}"


def _file_problems(run_folder: Path, *, pages: bool) -> Iterator[str]:
    listed = read_sealed(run_folder / LIST)
    if listed is None:
        yield f"{run_folder / LIST} is missing or was changed"
        return
    for name, digest in listed["files"].items():
        if pages or not _PAGES.fullmatch(name):
            path = run_folder / name
            if not path.is_file():
                yield f"{path} is missing"
            elif io.sha256_file(path) != digest:
                yield f"{path} was changed"


def _step_problem(folder: Path, digest: str) -> str:
    if not folder.is_dir():
        return "the step is gone"
    if wrong := damage(folder):
        return wrong
    if io.sha256_file(folder / STEP) != digest:
        return "it was made again with other content"
    return outdated(folder)


def check(run_folder: Path) -> None:
    """`UserError` where the run, or a step it rests on, was changed after it was made; its pages are not looked at."""
    refuse_old(run_folder)
    _raise(run_folder, list(problems(run_folder, pages=False)))


def check_results(run_folder: Path) -> None:
    """`UserError` where the results or settings of a listed run were changed; its steps are not looked at. A record
    has no list and is taken as it is."""
    if (run_folder / LIST).exists():
        _raise(run_folder, list(_file_problems(run_folder, pages=False)))


def _raise(run_folder: Path, found: Sequence[str]) -> None:
    if found:
        more = f" ({len(found) - 1} more: verify {run_folder} lists them)" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{more}; start the run again: it makes again what was changed")
