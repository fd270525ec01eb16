"""Data sources: the rows of a public set, whatever file they come in.

A set comes from the hub at a pinned commit, or from a file or folder in the set's own format. Both ways read the same
files with the same code. A malformed row is counted and kept with its file, line and reason; none is dropped
silently. One small reader for each set stands beside this file and turns one row into one record.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from alignment_core.data import files, hub
from alignment_core.data.catalogue import SOURCES, Source
from alignment_core.errors import InputError, UserError
from alignment_core.io import sha256_file, write_jsonl
from alignment_core.records import Example, Kind, Message, Prompt, fingerprint

if TYPE_CHECKING:
    from alignment_core.config import SourceSettings

T = TypeVar("T")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Turn:
    """One request and one reply to it, as a source has them."""

    prompt: str
    reply: str
    source: str
    tag: str = ""
    """Task type, harm category or kind of row: the axis of per-category rates."""
    cluster: str = ""
    """Unit of independence: by default the fingerprint of the prompt."""

    def __post_init__(self) -> None:
        if not self.cluster:
            object.__setattr__(self, "cluster", fingerprint(self.prompt))

    def example(self, category: str, reply: str | None = None) -> Example:
        """The turn as a supervised conversation, with `reply` in place of its own where given."""
        messages = (Message("user", self.prompt), Message("assistant", self.reply if reply is None else reply))
        return Example(messages, category, self.source, self.cluster)

    def question(self, kind: Kind, reference: str = "") -> Prompt:
        """The turn's request alone, as a held-out prompt."""
        name = f"{self.source}:{fingerprint(self.prompt)}"
        return Prompt(name, (Message("user", self.prompt),), kind, self.tag, self.source, self.cluster, reference)


@dataclass
class Rejects:
    """Rows that could not be read, with file, line and reason. With `strict` the first one is an `InputError`."""

    strict: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file: str, line: int, reason: str, row: Any) -> None:
        """Set a row aside, or stop at it."""
        if self.strict:
            raise InputError(file, line, reason)
        self.rows.append({"file": file, "line": line, "reason": reason, "row": _plain(row)})

    def reasons(self) -> dict[str, int]:
        """How many rows each file and reason took, most first."""
        return dict(Counter(f"{r['file']}: {r['reason']}" for r in self.rows).most_common())

    def write(self, path: Path) -> None:
        """Write one object a row; an empty file says that none was rejected."""
        write_jsonl(path, self.rows)


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What one source gave: `rows` = `len(records)` + `rejected`."""

    source: str
    records: list[T]
    rows: int
    rejected: int
    origin: dict[str, str]
    """Repository and commit, or file names and hashes."""


def _plain(row: Any) -> Any:
    """`row` where it is JSON, else its text (a parquet row may hold bytes or dates)."""
    try:
        json.dumps(row, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return repr(row)[:20_000]
    return row


def _value(row: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The first of `keys` that is there and not null (a table turns absent fields into nulls)."""
    return next((row[k] for k in keys if row.get(k) is not None), _MISSING)


def text(row: Mapping[str, Any], *keys: str, default: str | None = None) -> str:
    """A string under the first of `keys` that is there. `ValueError` when it is no string, blank, or not Unicode;
    with a `default` that stands in when it is absent or blank."""
    value = _value(row, keys)
    if value is _MISSING or (isinstance(value, str) and not value.strip()):
        if default is not None:
            return default
        raise ValueError(f"{keys[0]!r} is {'missing' if value is _MISSING else 'empty'}")
    if not isinstance(value, str):
        raise ValueError(f"{keys[0]!r} must be a string, found {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"{keys[0]!r} holds half a character (a lone surrogate)") from None
    return value


def flag(row: Mapping[str, Any], *keys: str) -> bool:
    """A boolean; 0, 1, "true" and "false" count as booleans, because tables write them so."""
    value = _value(row, keys)
    if value is _MISSING:
        raise ValueError(f"{keys[0]!r} is missing")
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    found = known.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None
    if found is None:
        raise ValueError(f"{keys[0]!r} must be true or false, found {value!r:.60}")
    return found


def index(row: Mapping[str, Any], *keys: str, below: int = 2) -> int | None:
    """A whole number from 0 to `below` - 1, or None where it is absent."""
    value = _value(row, keys)
    if value is _MISSING or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if not (number.is_integer() and 0 <= number < below):
        raise ValueError(f"{keys[0]!r} must be a whole number from 0 to {below - 1}, found {value!r:.60}")
    return int(number)


def locate(source: Source, settings: SourceSettings) -> tuple[list[Path], dict[str, str]]:
    """The source's files and where they come from; fetches from the hub unless `settings.path` is given."""
    if settings.path is not None:
        found = files.find(settings.path, source.files, source.name)
        return found, {"path": ", ".join(p.name for p in found), "sha256": _digest(found)}
    if not source.repo:
        raise UserError(f"{source.name}: on no hub; give its file as the source's path")
    known = [s.repo for s in SOURCES.values()]
    folder, commit = hub.fetch_dataset(source.repo, settings.revision or source.revision, source.files, known)
    return files.find(folder, source.files, source.name), {"repo": source.repo, "revision": commit}


def _digest(paths: list[Path]) -> str:
    return "+".join(sha256_file(p)[:16] for p in paths)


def identity(source: Source, settings: SourceSettings) -> dict[str, str]:
    """What names the source's content in a step's key, without a download: repository, commit and files, or hashes."""
    if settings.path is not None:
        found = files.find(settings.path, source.files, source.name)
        return {"source": source.name, "sha256": _digest(found)}
    revision = settings.revision or source.revision
    return {"source": source.name, "repo": source.repo, "revision": revision, "files": " ".join(source.files)}


def read(
    source: Source,
    settings: SourceSettings,
    parse: Callable[[Mapping[str, Any]], T],
    rejects: Rejects,
) -> Reading[T]:
    """All of a source's rows as records. `parse` raises `ValueError` on a malformed row.

    Raises `UserError` when nothing is left, `HubError` when the source cannot be had, `InputError` when strict.
    """
    paths, origin = locate(source, settings)
    records: list[T] = []
    rejected = 0
    for path in paths:
        for line, row, reason in _parsed(path, parse):
            if reason is None:
                records.append(row)
            else:
                rejected += 1
                rejects.add(str(path), line, reason, row)
    if not records:
        where = ", ".join(map(str, paths))
        first = f"; the first of {rejected} bad rows: {rejects.rows[-rejected]['reason']}" if rejected else ""
        raise UserError(f"{source.name}: {where} holds no usable row{first}")
    return Reading(source.name, records, len(records) + rejected, rejected, origin)


def _parsed(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> Iterator[tuple[int, Any, str | None]]:
    """`(line, record, None)` for a good row, `(line, row, reason)` for a bad one."""
    for line, row, reason in files.rows(path):
        if reason is None and not isinstance(row, Mapping):
            reason = f"expected an object, found {type(row).__name__}"
        if reason is None:
            try:
                record = parse(row)
            except ValueError as error:
                reason = str(error)
            else:
                yield line, record, None
                continue
        yield line, row, reason
