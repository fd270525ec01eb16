"""Errors that become one line on the command line.

A `UserError` is the user's to mend (a bad row, an unknown key, a missing file, a dead endpoint): its message says
what, where, and the nearest thing that would work. The command line prints it without a traceback and exits with
code 2. `Unfinished` is one of them: what was done is kept, and the same command goes on. Anything else that escapes is
our own fault: code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can mend; `str(error)` is one line: what, where, what would work."""


class InputError(UserError):
    """Something read from a file is not what it should be."""

    def __init__(self, where: str, line: int | None, reason: str) -> None:
        self.where, self.line, self.reason = where, line, reason
        super().__init__(f"{where}{'' if line is None else f':{line}'}: {reason}")


class Unfinished(UserError):
    """Calls to a server failed in a way that passes, so that a step stays open (exit code 2)."""

    def __init__(self, what: str, missing: int, of: int, things: str, reason: str) -> None:
        super().__init__(
            f"{what}: {missing} of {of} {things} are missing because calls failed; the first: {reason}; the "
            f"{of - missing} that came are kept: the same command asks for the rest, and --accept-missing counts them "
            "as missing"
        )


class NothingToReport(UserError):
    """Everything ran and nothing could be measured (every verdict is missing): one line, exit code 2, no rate."""


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known word nearest to `word`, or an empty string when none is near."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return f" (did you mean {match[0]!r}?)" if match else ""
