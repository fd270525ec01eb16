"""A process's log in the run's folder: our own lines and every library's warnings, and the traceback of a fault."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment_core.errors import UserError

log = logging.getLogger("alignment_core")

TRACEBACK = "the traceback is in"
"""Opens the note on an exception that says where its traceback was written."""


def _ours(record: logging.LogRecord) -> bool:
    """Our own lines and every library's warnings go to log.txt."""
    return record.levelno >= logging.WARNING or record.name.split(".")[0] in _ours_names


_ours_names = {"alignment_core"}


class _Readable(logging.Formatter):
    """What steers a terminal is written as an escape: a log is looked at with `cat`, and may quote a model's words."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _own_log(folder: Path) -> tuple[Path, int]:
    """The log file of this process: `log.txt`, or `log-<process>.txt` while another process writes that; and the
    descriptor that holds it."""
    import fcntl

    for name in ("log.txt", f"log-{os.getpid()}.txt"):
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        except OSError:
            pass  # a file system without locks: the processes share log.txt
        return folder / name, handle
    raise UserError(f"{folder} holds the log of another process with this process's number; choose another --runs")


@contextmanager
def log_file(folder: Path, study: str) -> Iterator[None]:
    """Inside, lines are written to the log of this process; an error that escapes says where its traceback is."""
    _ours_names.add(study.replace("-", "_"))
    path, held = _own_log(folder)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_Readable("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_ours)
    root = logging.getLogger()
    root.addHandler(handler)
    levels = {name: logging.getLogger(name).level for name in _ours_names}
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield
    except UserError as error:
        log.debug("stopped: %s", error)
        raise
    except Exception as error:
        log.debug("failed", exc_info=error)
        error.add_note(f"{TRACEBACK} {path}")
        raise
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        root.removeHandler(handler)
        handler.close()
        os.close(held)
