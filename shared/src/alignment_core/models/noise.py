"""Keep the libraries' chatter off the terminal: their warnings go to the run's log at debug level.

transformers, TRL, PEFT, accelerate, datasets and bitsandbytes write to stderr through handlers of their own and
through `warnings`. A user of a study can act on none of it. Errors are left alone.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LIBRARIES = ("transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "huggingface_hub", "torch")
log = logging.getLogger("alignment_core.libraries")


class _Forward(logging.Handler):
    """Hands a library's record to our log, where it is a debug line."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("%s: %s", record.name, record.getMessage())


_forward = _Forward()


def hush() -> None:
    """Send the libraries' log records to ours; may be called any number of times."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            if handler is not _forward:
                logger.removeHandler(handler)
        if _forward not in logger.handlers:
            logger.addHandler(_forward)
        logger.propagate = False
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    if "transformers" in sys.modules:
        sys.modules["transformers"].utils.logging.disable_progress_bar()


@contextmanager
def quiet() -> Iterator[None]:
    """While the block runs, warnings raised inside the libraries become debug lines of our log.

    Warnings of our own code keep the filters that are set, so a test still sees them as errors.
    """
    hush()
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if "site-packages" in filename:
            log.debug("%s:%d: %s: %s", filename, lineno, category.__name__, message)
        else:
            shown(message, category, filename, lineno, *rest)

    with warnings.catch_warnings():
        warnings.filterwarnings("default", module=rf"({'|'.join(LIBRARIES)})(\.|$)")
        warnings.showwarning = show  # type: ignore[assignment]
        yield
    hush()


@contextmanager
def without_stderr() -> Iterator[None]:
    """While the block runs nothing reaches stderr: Rust writes a trace there before a panic is raised."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
