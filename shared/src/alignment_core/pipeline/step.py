"""A step of a run: its key, what its folder holds, how it becomes whole and is known again.

The key hashes all that decides the content. Sealing goes in an order that a crash can interrupt anywhere: every file
to disk, then step.json with the files' sizes, then the checkpoints away; the rename is the run's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from alignment_core import io
from alignment_core.config import FOR_KEY
from alignment_core.errors import UserError

_STALE = re.compile(r"\..+\.\d+\.tmp")


def plain(value: Any, context: Mapping[str, str] | None = None) -> Any:
    """`value` as JSON data: settings dumped, paths as text, tuples as lists, dictionaries with string keys.

    With `FOR_KEY` as the context settings leave out what decides nothing, such as a server's address."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", context=context)
    if isinstance(value, Mapping):
        return {str(k): plain(v, context) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, context) for v in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value


@dataclass(frozen=True)
class Step:
    """A step that is whole: its folder holds everything it made. What is in memory is never trusted over the files."""

    name: str
    key: str
    folder: Path
    seed: int | None = None

    def __truediv__(self, file: str | Path) -> Path:
        return self.folder / file


def step_key(name: str, version: int, settings: Any, seed: int | None, reads: Sequence[Step], identity: Any) -> str:
    """First 12 hex digits of the sha256 over all that decides a step's content."""
    parts = [name, version, plain(settings, FOR_KEY), seed, [[s.name, s.key] for s in reads], plain(identity, FOR_KEY)]
    return hashlib.sha256(io.canonical(parts).encode()).hexdigest()[:12]


def sweep(folder: Path) -> None:
    """Remove what a killed `io.atomic` left under its temporary name."""
    for path in [p for p in folder.iterdir() if _STALE.fullmatch(p.name) and p.is_file()]:
        path.unlink()


def _files(folder: Path) -> dict[str, int]:
    """Size in bytes of every file of a step, by its path inside; checkpoints and step.json are left out."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "step.json" and "checkpoints" not in path.relative_to(folder).parts
    }


def finished(partial: Path, step: Step) -> bool:
    """Whether the work in `partial` ended and only the sealing was interrupted."""
    path = partial / "step.json"
    if not path.exists():
        return False
    facts = io.read_object(path)
    return bool(facts.get("key") == step.key and facts.get("files") == _files(partial))


def seal(partial: Path, facts: dict[str, Any]) -> None:
    """Everything to disk, then step.json, then the checkpoints (they hold pickles) away."""
    for folder in [partial, *(p for p in partial.rglob("*") if p.is_dir())]:
        sweep(folder)
    for path in sorted(partial.rglob("*"), reverse=True):
        if path.is_file() and "checkpoints" not in path.relative_to(partial).parts:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        elif path.is_dir():
            io.fsync_dir(path)
    io.write_json(partial / "step.json", {**facts, "files": _files(partial)})
    for folder in [p for p in partial.rglob("checkpoints") if p.is_dir()]:
        shutil.rmtree(folder)


def check_whole(step: Step) -> None:
    """Raise `UserError` when a finished step was changed or cut afterwards."""
    path = step / "step.json"
    facts = io.read_object(path) if path.exists() else {}
    files, sealed = _files(step.folder), facts.get("files", {})
    wrong = [name for name, size in sealed.items() if files.get(name) != size] if isinstance(sealed, dict) else ["it"]
    if facts.get("key") != step.key or wrong:
        what = (
            f"{' '.join(wrong[0].split())} is missing or has another size"
            if wrong
            else "its step.json is missing or of another step"
        )
        raise UserError(f"{step.folder} was changed after it was made: {what}; delete that folder and run it again")
