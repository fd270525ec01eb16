"""JSON and JSON Lines: streaming, atomic, with errors that name file and line.

A file is written under another name in the same folder, flushed to disk and renamed, so that a reader sees the old
file or the whole new one. The crash tests interrupt every write, fsync and rename in turn.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TextIO, TypeVar

from alignment_core.errors import InputError, UserError

T = TypeVar("T")

_STALE = re.compile(r"\..+\.([0-9a-f]{8})-\d+\.tmp")


class Record(Protocol):
    """Anything that knows its JSON form."""

    def to_json(self) -> dict[str, Any]: ...


def dumps(value: Any) -> str:
    """One line of JSON, non-ASCII kept, lone surrogates escaped; NaN and infinities are an error (`ValueError`)."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fsync_dir(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@lru_cache(maxsize=1)
def host_id() -> str:
    """8 hex digits that name this host, since when it runs, and its space of process numbers (a container's own)."""
    parts = [socket.gethostname()]
    try:
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"), os.readlink("/proc/self/ns/pid")]
    except OSError:
        parts.append("unknown")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def process_started(pid: int) -> str | None:
    """When a process of this host began, in its clock ticks; None where there is none, or the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def process_exists(pid: int) -> bool:
    """Whether a process of this host with that number is there."""
    if Path("/proc/self/stat").exists():
        return process_started(pid) is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sweep(folder: Path) -> None:
    """Remove what killed processes of this host left in `folder` under `atomic`'s temporary names."""
    for path in [p for p in folder.iterdir() if (found := _STALE.fullmatch(p.name)) and found[1] == host_id()]:
        pid = int(path.name.rsplit("-", 1)[1].removesuffix(".tmp"))
        if pid == os.getpid() or not process_exists(pid):
            path.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder")


@contextmanager
def atomic(path: Path) -> Iterator[TextIO]:
    """A text stream that becomes `path` when the block ends without an error, and nothing otherwise.

    Raises `UserError` when the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{host_id()}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        fsync_dir(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` atomically."""
    with atomic(path) as stream:
        stream.write(text)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by indented JSON atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n")


def _no_number(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is no JSON", name, 0)


def loads(text: str, *, nan: bool = True) -> Any:
    """The value of JSON text; a `ValueError` of one line, also for what is too deep or has too many digits.

    Other tools write NaN and infinities; without `nan` they are an error, as the standard has it.
    """
    try:
        return json.loads(text, parse_constant=None if nan else _no_number)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("a number of thousands of digits") from None


def read_json(path: Path) -> Any:
    """The value in a JSON file; `InputError` names the file and the line when it cannot be read."""
    try:
        return loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except json.JSONDecodeError as error:
        raise InputError(str(path), error.lineno, f"not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(str(path), None, "not UTF-8 text") from error
    except ValueError as error:
        raise InputError(str(path), None, f"not JSON: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def read_object(path: Path) -> dict[str, Any]:
    """As `read_json`, for a file that holds an object; `InputError` when it holds another thing."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(str(path), None, f"expected an object, found {type(value).__name__}")
    return value


def write_jsonl(path: Path, records: Iterable[Record | dict[str, Any]]) -> int:
    """Replace `path` by one JSON object a line, atomically; returns the number of lines."""
    count = 0
    with atomic(path) as stream:
        for record in records:
            stream.write(dumps(record if isinstance(record, dict) else record.to_json()) + "\n")
            count += 1
    return count


def append_jsonl(path: Path, records: Iterable[Record | dict[str, Any]], keep: int | None = None) -> None:
    """Add one JSON object a line at the end and bring it to disk; for files that grow while a step is being made.

    What a crash leaves is whole lines, then at most one torn line, which `recover_jsonl` cuts off. `keep` says how
    many lines stay in front of the new ones: what a torn batch left behind them is cut off first.
    """
    text = "".join(dumps(r if isinstance(r, dict) else r.to_json()) + "\n" for r in records)
    if keep is not None:
        recover_jsonl(path, keep)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise _unwritable(path, error) from error


def recover_jsonl(path: Path, keep: int | None = None) -> list[Any]:
    """The whole lines at the head of a file that was being appended to (at most `keep`); the rest is cut off.

    An absent file has no lines. A line is whole when it ends in a newline and parses: after a power cut a file's end
    may hold anything.
    """
    rows: list[Any] = []
    end = 0
    if not path.exists():
        return rows
    with path.open("rb") as stream:
        for raw in stream:
            try:
                row = loads(raw.decode("utf-8"), nan=False) if raw.endswith(b"\n") else None
            except ValueError:
                break
            if row is None or len(rows) == keep:
                break
            rows.append(row)
            end += len(raw)
    if end < path.stat().st_size:
        os.truncate(path, end)
    return rows


def read_rows(path: Path) -> Iterator[tuple[int, Any, str | None]]:
    """Stream `(line number, value, reason)`: `reason` is None for a good line and says what is wrong otherwise.

    Blank lines are skipped. Raises `UserError` when there is no such file.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    with stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.strip():
                continue
            try:
                value = loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                yield number, None, "not UTF-8 text"
            except ValueError as error:
                yield number, None, f"not JSON: {getattr(error, 'msg', error)}"
            else:
                yield number, value, None


def read_jsonl(
    path: Path,
    parse: Callable[[Any], T],
    on_reject: Callable[[InputError, Any], None] | None = None,
) -> Iterator[T]:
    """Parse each line. A malformed one raises `InputError` (file, line, reason) unless `on_reject` takes it."""
    for number, row, reason in read_rows(path):
        if reason is None:
            try:
                record = parse(row)
            except (ValueError, TypeError, KeyError) as error:
                reason = f"missing key {error}" if isinstance(error, KeyError) else str(error)
            else:
                yield record
                continue
        problem = InputError(str(path), number, reason)
        if on_reject is None:
            raise problem
        on_reject(problem, row)


class Journal:
    """An append-only JSONL file that outlives a kill; its first line says what the rest belongs to.

    Opening reads what is there (`rows`): what a kill left half-written is cut off, and a file with another header is
    refused (`UserError`). `append` returns once the row is on the disk; it may be called from several threads.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self._lock = Lock()
        self.rows: list[Any] = recover_jsonl(path)
        if not self.rows:
            append_jsonl(path, [{"journal": header}])
            fsync_dir(path.parent)
        elif canonical(self.rows[0]) != canonical({"journal": header}):
            raise UserError(f"{path}: belongs to another plan; remove it or choose another folder")
        del self.rows[:1]

    def append(self, row: dict[str, Any]) -> None:
        """Add one row; it is on the disk when this returns."""
        with self._lock:
            append_jsonl(self.path, [row])
            self.rows.append(row)

    def remove(self) -> None:
        """Delete the file: what it held has been written elsewhere."""
        self.path.unlink(missing_ok=True)
