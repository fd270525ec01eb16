"""A step: its key, what its folder holds, how it is sealed and checked.

The key hashes all that decides the content, the code that the step can reach among it. Sealing goes in an order that a
crash can interrupt anywhere: every file to disk, then step.json with the hash of every file, of every input's
step.json and of itself, then the checkpoints away; the rename is the store's. Logs and timings are in no hash: they
differ between two makings of one thing.
"""

from __future__ import annotations

import hashlib
import json
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
from alignment_core.errors import InputError, UserError

STEP = "step.json"
MADE = "made.json"
"""In a step's folder: how long it took, in how many attempts; while it is unfinished also what it is to be."""
_EXEMPT = re.compile(r"made\.json|(.+_)?timings\.json|log(-.+)?\.txt")
_LABEL = re.compile(r"([a-z][a-z0-9_]*?)(?:-s(\d+))?-([0-9a-f]{12})")


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
    question: str = ""
    """As the key, without the code: steps of one question differ at most by the code that made them."""

    def __truediv__(self, file: str | Path) -> Path:
        return self.folder / file


def step_key(
    name: str, settings: Any, seed: int | None, reads: Sequence[tuple[str, str]], identity: Any, code: str
) -> str:
    """First 12 hex digits of the sha256 over all that decides a step's content; `reads` are names and keys."""
    parts = [name, plain(settings, FOR_KEY), seed, [list(pair) for pair in reads], plain(identity, FOR_KEY), code]
    return hashlib.sha256(io.canonical(parts).encode()).hexdigest()[:12]


def label_of(name: str, seed: int | None, key: str) -> str:
    """The name of a step's folder."""
    return f"{name}{'' if seed is None else f'-s{seed}'}-{key}"


def parse_label(label: str) -> tuple[str, int | None] | None:
    """Name and seed of a step's folder; None for any other name."""
    found = _LABEL.fullmatch(label)
    return None if found is None else (found[1], None if found[2] is None else int(found[2]))


def is_exempt(name: str) -> bool:
    """Whether a file of that name is a log or timings, which no hash covers."""
    return _EXEMPT.fullmatch(name) is not None


def _files(folder: Path) -> dict[str, Path]:
    """Every file of a step that a hash covers, by its path inside; checkpoints and step.json are left out."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path != folder / STEP
        and not is_exempt(path.name)
        and "checkpoints" not in path.relative_to(folder).parts
    }


def sealed(facts: Mapping[str, Any]) -> str:
    """The text of a JSON file that holds its own hash: `facts`, and `sha256` over them."""
    inner = {key: value for key, value in facts.items() if key != "sha256"}
    digest = hashlib.sha256(io.canonical(inner).encode()).hexdigest()
    return json.dumps({**inner, "sha256": digest}, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `sealed` wrote, byte for byte; None where the file is missing or was changed."""
    try:
        text = path.read_bytes().decode("utf-8")
        facts = io.loads(text)
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and sealed(facts) == text else None


def seal(partial: Path, facts: Mapping[str, Any]) -> None:
    """Everything to disk, then step.json, then the checkpoints (they hold pickles) away."""
    for folder in [partial, *(p for p in partial.rglob("*") if p.is_dir())]:
        io.sweep(folder)
    for path in sorted(partial.rglob("*"), reverse=True):
        if path.is_file() and "checkpoints" not in path.relative_to(partial).parts:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        elif path.is_dir():
            io.fsync_dir(path)
    files = {name: io.sha256_file(path) for name, path in _files(partial).items()}
    io.write_text(partial / STEP, sealed({**facts, "files": files}))
    drop_checkpoints(partial)


def drop_checkpoints(partial: Path) -> None:
    """Remove every checkpoint of a step that is sealed."""
    for folder in [p for p in partial.rglob("checkpoints") if p.is_dir()]:
        shutil.rmtree(folder)


def facts_of(folder: Path) -> dict[str, Any] | None:
    """The sealed step.json of a folder; None where it is missing or was changed."""
    return read_sealed(folder / STEP)


def inputs_of(reads: Sequence[Step]) -> dict[str, str]:
    """The hash of each input's step.json by the input's label; `UserError` where one is gone."""
    try:
        return {step.folder.name: io.sha256_file(step / STEP) for step in reads}
    except OSError as error:
        raise UserError(f"{error.filename}: the step is gone; start the run again") from error


def damage(folder: Path) -> str:
    """What is wrong with a sealed step, in a phrase; empty when every file is as it was made."""
    facts = facts_of(folder)
    if facts is None:
        return "step.json is missing or was changed"
    for name, digest in facts["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{' '.join(name.split())} is missing"
        if io.sha256_file(path) != digest:
            return f"{' '.join(name.split())} was changed"
    return ""


def outdated(folder: Path) -> str:
    """Which input of a sealed step is not as it was when the step was made, in a phrase; empty when all are."""
    for label, digest in (facts_of(folder) or {}).get("reads", {}).items():
        path = folder.parent / label / STEP
        if not path.is_file() or io.sha256_file(path) != digest:
            return f"its input {label} is gone or was made again with other content"
    return ""


def made_of(folder: Path) -> dict[str, Any]:
    """The step's made.json; empty where it is missing or damaged, for nothing rests on it."""
    try:
        return io.read_object(folder / MADE)
    except (UserError, InputError):
        return {}


def seconds_of(folder: Path) -> float:
    """How long the making of a step took so far, over all attempts; of one that was killed up to its last sign."""
    made = made_of(folder)
    seconds, begun = made.get("seconds", 0.0), made.get("begun")
    if not isinstance(seconds, int | float):
        return 0.0
    return float(seconds) + (max(0.0, folder.stat().st_mtime - begun) if isinstance(begun, int | float) else 0.0)
