"""A process's log in the run's folder: our own lines and every library's warnings, and the traceback of a fault."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alignment_core.errors import UserError
from alignment_core.pipeline.locks import locked

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


@contextmanager
def _own_file(folder: Path) -> Iterator[Path]:
    """The log of this process: `log.txt`, or `log-<process>.txt` while another process writes that."""
    with ExitStack() as stack:
        path = folder / "log.txt"
        try:
            stack.enter_context(locked(path, wait=False))
        except BlockingIOError:
            path = folder / f"log-{os.getpid()}.txt"
        yield path


@contextmanager
def log_file(folder: Path, study: str) -> Iterator[None]:
    """Inside, lines are written to the log of this process; an error that escapes says where its traceback is."""
    _ours_names.add(study.replace("-", "_"))
    with _own_file(folder) as path, _logging_to(path):
        yield


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
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
