"""A folder that cannot take our files: one line that the user can act on, whichever library met it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment_core.errors import UserError

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def writable(folder: Path, *, any_error: bool = False) -> Iterator[None]:
    """Turn the errors of a folder that cannot take our files into one line the user can act on."""
    try:
        yield
    except OSError as error:
        inside = error.filename is not None and str(error.filename).startswith(str(folder))
        if any_error or error.errno in _UNWRITABLE[:3] or (error.errno in _UNWRITABLE and inside):
            raise _unwritable(folder, error.strerror or str(error)) from error
        raise
    except Exception as error:
        # Rust writers (safetensors, tokenizers) and torch report a full disk as their own exception types.
        if any(sign in str(error) for sign in ("No space left", "StorageFull", "os error 28")):
            raise _unwritable(folder, "No space left on device") from error
        raise


def _unwritable(folder: Path, why: str) -> UserError:
    mend = "free space" if "space" in why or "quota" in why else "make it writable"
    return UserError(f"cannot write in {folder}: {why}; {mend} or choose another folder with --runs, then run it again")
