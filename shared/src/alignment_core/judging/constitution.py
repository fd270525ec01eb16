"""A constitution: numbered principles in a plain file that a user edits (Bai et al. 2022, arXiv 2212.08073).

One principle a line, `1. Do no harm.`; a line that does not begin with a number continues the principle above it,
blank lines and lines that begin with # are skipped. Numbers run from 1 without a gap, so that a cited number means
the same to the critic and to the reader.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from alignment_core.errors import InputError, UserError

_NUMBERED = re.compile(r"\s*(\d{1,9})[.)]\s+(\S.*)")


@dataclass(frozen=True)
class Constitution:
    """The principles in order; the first has number 1."""

    principles: tuple[str, ...]

    @property
    def text(self) -> str:
        """One numbered line a principle."""
        return "\n".join(f"{i}. {principle}" for i, principle in enumerate(self.principles, start=1))

    @property
    def sha256(self) -> str:
        """What names the constitution in a step's key: its principles, not its comments."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


def parse(text: str, where: str) -> Constitution:
    """The principles of a file's text; `InputError` names the line that cannot be read."""
    found: list[str] = []
    for line, raw in enumerate(text.splitlines(), start=1):
        words = raw.strip()
        if not words or words.startswith("#"):
            continue
        match = _NUMBERED.fullmatch(words)
        if match is None:
            if not found:
                raise InputError(where, line, "a principle begins with its number, for example `1. Do no harm.`")
            found[-1] += " " + words
        elif int(match[1]) != len(found) + 1:
            raise InputError(where, line, f"principle {match[1]} stands where {len(found) + 1} should")
        else:
            found.append(match[2])
    if not found:
        raise UserError(f"{where}: no principle in it; write numbered lines, for example `1. Do no harm.`")
    return Constitution(tuple(found))


def read(path: Path) -> Constitution:
    """The constitution in a file; `UserError` where it cannot be read."""
    if not path.is_file():
        raise UserError(f"constitution={path}: no such file; write numbered lines, for example `1. Do no harm.`")
    try:
        return parse(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(str(path), None, "not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"constitution={path}: cannot be read: {error.strerror}") from error
