"""Who makes a step: a token that says whether its process is still there.

A maker works in a partial folder that carries its token, so that a folder has one maker whatever the file system makes
of locks. A process of this machine is looked up; one of another machine is known by its heartbeat, the folder's time
of change, which its maker renews every ten seconds.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from alignment_core.io import host_id, process_exists, process_started
from alignment_core.pipeline.heartbeat import INTERVAL, LIMIT

_SEPARATOR = "+"

_at_work: set[str] = set()
"""Random parts of the tokens in use in this process."""


@dataclass(frozen=True)
class Owner:
    """A process that makes a step."""

    host: str
    host_id: str
    """`io.host_id`: the host, since when it runs, and its space of process numbers."""
    pid: int
    started: str
    """When the process began, in the host's clock ticks; empty where the system does not tell."""
    random: str

    @classmethod
    def here(cls) -> Owner:
        """This process; a new token at every call."""
        pid = os.getpid()
        return cls(_host(), host_id(), pid, process_started(pid) or "", secrets.token_hex(4))

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """What `str` wrote; None for any other text."""
        parts = text.split(_SEPARATOR)
        if len(parts) != 5 or not parts[2].isdigit():
            return None
        return cls(parts[0], parts[1], int(parts[2]), parts[3], parts[4])

    def __str__(self) -> str:
        return _SEPARATOR.join((self.host, self.host_id, str(self.pid), self.started, self.random))

    @property
    def named(self) -> str:
        """As a user reads it."""
        return f"process {self.pid} on {self.host}"

    def state(self, folder: Path, clock: Callable[[], float]) -> Literal["at work", "gone", "silent"]:
        """`gone` for sure, or only `silent` (of another machine, no heartbeat); `clock` tells the disk's time."""
        if self.host_id == host_id():
            return "at work" if self._runs() else "gone"
        try:
            return "silent" if clock() - folder.stat().st_mtime > LIMIT else "at work"
        except OSError:
            return "gone"

    def _runs(self) -> bool:
        if (self.pid, self.started) == (os.getpid(), process_started(os.getpid()) or ""):
            return self.random in _at_work
        return process_exists(self.pid) and (process_started(self.pid) or "") == self.started


@contextmanager
def at_work(owner: Owner) -> Iterator[None]:
    """Inside, this process works under that token."""
    _at_work.add(owner.random)
    try:
        yield
    finally:
        _at_work.discard(owner.random)


@contextmanager
def beating(folder: Path) -> Iterator[None]:
    """Inside, the folder shows a heartbeat, from a thread; it ends when the folder is gone."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(INTERVAL):
            try:
                os.utime(folder)
            except OSError:
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@lru_cache(maxsize=1)
def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host"
