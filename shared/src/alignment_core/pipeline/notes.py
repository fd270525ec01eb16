"""What a reader of the results must know of how a step was made, in sentences: the step keeps them in its step.json.

Whoever works in a step says `note("...")`; outside a step the sentence goes to the log alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

log = logging.getLogger("alignment_core")

_kept: ContextVar[dict[str, None] | None] = ContextVar("kept", default=None)


def note(sentence: str) -> None:
    """Keep a sentence for the results of the step in hand; the log has it once a process."""
    kept = _kept.get()
    if kept is not None:
        kept[sentence] = None
    _log(sentence)


@lru_cache(maxsize=1024)
def _log(sentence: str) -> None:
    log.info("%s", sentence)


@contextmanager
def noting() -> Iterator[dict[str, None]]:
    """Inside, what is noted comes into the given dictionary, each sentence once, in order."""
    sentences: dict[str, None] = {}
    token = _kept.set(sentences)
    try:
        yield sentences
    finally:
        _kept.reset(token)
