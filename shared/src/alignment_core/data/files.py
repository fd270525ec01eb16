"""Rows of a data file, whatever its format: JSON Lines, a JSON list, TSV, CSV or parquet, plain or gz, xz, bz2.

Every row comes with its line, and a row that cannot be read comes with the reason in place of its value, so that rows
in are always rows kept plus rows rejected. Tables keep "NA" and empty cells as text: guessing nulls is the trap of
reading WildJailbreak.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from alignment_core.errors import InputError, UserError, nearest

FORMATS = (".jsonl", ".ndjson", ".json", ".tsv", ".csv", ".parquet")
_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_DAMAGED = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)
_LFS = b"version https://git-lfs"
_LONGEST_CELL = 1 << 26

Row = tuple[int, Any, str | None]
"""Line, value, and why the value cannot be used (None: it can)."""


def _format(path: Path) -> str:
    """The suffix that tells the format, compression cut off; empty when it is none of ours."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in _OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else ""


def find(path: Path, patterns: Sequence[str], name: str) -> list[Path]:
    """The data files at `path`: the file itself; in a folder those that match `patterns`, else all of them.

    Raises `UserError` when there is nothing to read.
    """
    if path.is_file():
        if not _format(path):
            raise UserError(f"{path}: not a data file of {name}; its name must end in one of {', '.join(FORMATS)}")
        return [path]
    if not path.is_dir():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{name}: no such file or folder: {path}{nearest(path.name, siblings)}")
    found = sorted({f for pattern in patterns for f in path.glob(pattern) if f.is_file()})
    if not found:
        inside = (f for f in path.rglob("*") if f.is_file() and _format(f))
        found = sorted(f for f in inside if not any(part.startswith(".") for part in f.relative_to(path).parts))
    if not found:
        raise UserError(f"{name}: no data file in {path}; put {' or '.join(patterns) or '*.jsonl'} there")
    return found


def rows(path: Path) -> Iterator[Row]:
    """Every row of a file. Raises `InputError` when the file as a whole cannot be read."""
    kind = _format(path)
    opener = _OPENERS.get(path.suffix.lower())
    try:
        with cast(BinaryIO, opener(path) if opener else path.open("rb")) as stream:
            if stream.read(len(_LFS)) == _LFS:
                raise InputError(str(path), None, "a Git LFS pointer, not the data; fetch the file itself")
            stream.seek(0)
            if kind == ".parquet":
                yield from _parquet(path, stream)
            elif kind in (".tsv", ".csv"):
                yield from _table(path, stream, "\t" if kind == ".tsv" else ",")
            elif kind == ".json":
                yield from _json(path, stream)
            else:
                yield from _lines(stream)
    except _DAMAGED as error:
        raise InputError(str(path), None, f"damaged archive: {error}; fetch the file again") from error
    except OSError as error:  # Arrow's, too, whose reasons have several lines
        why = error.strerror or str(error).partition("\n")[0]
        raise InputError(str(path), None, f"cannot be read: {why}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"not JSON: {name}")


def _loads(raw: str) -> Any:
    return json.loads(raw, parse_constant=_no_constant)


def _lines(stream: BinaryIO) -> Iterator[Row]:
    """One JSON value a line; blank lines are skipped."""
    for number, raw in enumerate(stream, start=1):
        if not raw.strip():
            continue
        line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        try:
            value = _loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield number, line.decode("utf-8", "replace").rstrip("\n"), "not UTF-8 text"
        except json.JSONDecodeError as error:
            yield number, line.decode("utf-8").rstrip("\n"), f"not JSON: {error.msg}"
        except RecursionError:
            yield number, line.decode("utf-8").rstrip("\n"), "not JSON: nested too deeply"
        except ValueError as error:  # NaN, or a number of thousands of digits
            yield number, line.decode("utf-8").rstrip("\n"), str(error).splitlines()[0]
        else:
            yield number, value, None


def _json(path: Path, stream: BinaryIO) -> Iterator[Row]:
    """A list of objects, or JSON Lines under the name .json; the line of a list's item is its place in the list."""
    head = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    stream.seek(0)
    if not head.startswith(b"["):
        yield from _lines(stream)
        return
    try:
        values = _loads(stream.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(str(path), None, "not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise InputError(str(path), error.lineno, f"not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), None, f"not JSON: {error}") from error
    for place, value in enumerate(values, start=1):
        yield place, value, None


def _text_lines(stream: BinaryIO) -> Iterator[str]:
    """Lines as text; a byte that is not UTF-8 becomes a lone surrogate, which marks its row."""
    for number, raw in enumerate(stream):
        line = raw.removeprefix(b"\xef\xbb\xbf") if number == 0 else raw
        yield line.decode("utf-8", "surrogateescape")


def _table(path: Path, stream: BinaryIO, delimiter: str) -> Iterator[Row]:
    """Rows of a table with a header, as objects of strings. The line is the one where the row begins.

    The dialect is strict, so that a quote that never closes is a bad row and not a swallowed file.
    """
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(_text_lines(stream), delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise InputError(str(path), 1, f"the header cannot be read: {error}") from error
        while header is not None:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, None, f"not a table row: {error} (lines {line} to {reader.line_num})"
                continue
            if cells:
                yield _cells(line, header, cells)
    finally:
        csv.field_size_limit(limit)


def _cells(line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        shown = [c.encode("utf-8", "replace").decode() for c in cells]
        return line, shown, f"{len(cells)} cells under {len(header)} headings"
    row = dict(zip(header, cells, strict=True))
    if any(not c.isascii() and any("\ud800" <= ch <= "\udfff" for ch in c) for c in cells):
        return line, {k: v.encode("utf-8", "replace").decode() for k, v in row.items()}, "not UTF-8 text"
    return line, row, None


def _parquet(path: Path, stream: BinaryIO) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(stream).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row, None
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise InputError(str(path), None, f"not a parquet file: {str(error).partition(chr(10))[0]}") from error
