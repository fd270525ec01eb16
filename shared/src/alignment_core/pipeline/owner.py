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

BEAT = 10.0
"""Seconds between two heartbeats."""
SILENT = 180.0
"""Seconds without a heartbeat after which a process of another machine counts as gone."""
_SEPARATOR = "+"

_at_work: set[str] = set()
"""Random parts of the tokens in use in this process."""


@dataclass(frozen=True)
class Owner:
    """A process that makes a step."""

    host: str
    boot: str
    """Since when the host runs, and in which space of process numbers (containers have their own)."""
    pid: int
    started: str
    """When the process began, in the host's clock ticks; empty where the system does not tell."""
    random: str

    @classmethod
    def here(cls) -> Owner:
        """This process; a new token at every call."""
        pid = os.getpid()
        return cls(_host(), _boot(), pid, _started(pid) or "", secrets.token_hex(4))

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """What `str` wrote; None for any other text."""
        parts = text.split(_SEPARATOR)
        if len(parts) != 5 or not parts[2].isdigit():
            return None
        return cls(parts[0], parts[1], int(parts[2]), parts[3], parts[4])

    def __str__(self) -> str:
        return _SEPARATOR.join((self.host, self.boot, str(self.pid), self.started, self.random))

    @property
    def named(self) -> str:
        """As a user reads it."""
        return f"process {self.pid} on {self.host}"

    def state(self, folder: Path, clock: Callable[[], float]) -> Literal["at work", "gone", "silent"]:
        """`gone` for sure, or only `silent` (of another machine, no heartbeat); `clock` tells the disk's time."""
        if (self.host, self.boot) == (_host(), _boot()):
            return "at work" if self._runs() else "gone"
        try:
            return "silent" if clock() - folder.stat().st_mtime > SILENT else "at work"
        except OSError:
            return "gone"

    def _runs(self) -> bool:
        started = _started(self.pid)
        if (self.pid, self.started) == (os.getpid(), _started(os.getpid()) or ""):
            return self.random in _at_work
        if started is not None:
            return started == self.started
        return not Path("/proc/self/stat").exists() and _exists(self.pid)


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
        while not ended.wait(BEAT):
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


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@lru_cache(maxsize=1)
def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host"


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return "unknown"


def _started(pid: int) -> str | None:
    """When a process began; None where it is not there, or the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
