"""Which ranks of a run are alive: each shows a heartbeat in the run's folder, and one without is lost.

Every start has a folder of its own, `.ranks-<start>`, with one file a rank; a heartbeat sets that file's time of
modification. The folder is shared by all machines of a run anyway, and needs neither the launcher nor rank 0 to be
alive, as a store of torch.distributed does. A rank looks whether the times of the others change, and measures by its
own clock how long they have not: clocks of different machines are never compared. A rank that could not look for a
while (stopped, or its folder did not answer) begins to count again.

A rank that ends in an orderly way removes its file. On the same machine a process that is gone and left its file is
lost at once.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from alignment_core.errors import UserError
from alignment_core.io import host_id, process_exists

INTERVAL = 10.0
"""Seconds between two heartbeats."""
LIMIT = 180.0
"""Seconds without a heartbeat after which a rank is lost."""
_PREFIX, _FAILED = ".ranks-", "failed"
_DAY = 86400.0


class RankLost(UserError):
    """Ranks of the run have stopped or ended without an error of their own, so that the others cannot go on."""


@dataclass(frozen=True)
class Process:
    """The process that is a rank."""

    rank: int
    host: str
    machine: str
    """Equal for two processes that see each other's process ids."""
    pid: int

    def here(self) -> bool:
        """Whether it runs where this process runs."""
        return self.machine == host_id()

    def gone(self) -> bool:
        """Whether it runs here and has ended; always False for one on another machine."""
        return self.here() and not process_exists(self.pid)


class Ranks:
    """The heartbeats of one start: this rank's own, and what it knows of the others'. Calls may come from two threads.

    Raises `UserError` when the folder cannot be written.
    """

    def __init__(self, folder: Path, start: str, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.folder = folder / f"{_PREFIX}{start}"
        self._mine = self.folder / f"{rank}.json"
        self._process = Process(rank, socket.gethostname(), host_id(), os.getpid())
        self._others: dict[int, Process] = {}
        self._times: dict[int, int] = {}
        self._seen: dict[int, float] = {}
        self._looked = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._mine.write_text(json.dumps(asdict(self._process)))
        except OSError as error:
            raise UserError(
                f"cannot write in {folder}: {error.strerror}; make it writable for every rank, or choose another "
                "folder with --runs"
            ) from error

    def show(self) -> None:
        """This rank's heartbeat. Where it cannot be shown the other ranks see that."""
        try:
            os.utime(self._mine)
        except OSError:
            return

    def look(self) -> None:
        """See which ranks have shown a heartbeat since the last look, or have left."""
        now = time.monotonic()
        late = now - self._looked > 3 * INTERVAL
        self._looked = now
        for rank in [r for r in range(self.size) if r != self.rank]:
            try:
                # Opening a file makes a network's file system ask for its present times.
                with (self.folder / f"{rank}.json").open("rb") as stream:
                    modified = os.fstat(stream.fileno()).st_mtime_ns
                    process = self._others.get(rank) or Process(**json.load(stream))
            except FileNotFoundError:
                self._others.pop(rank, None)
            except (OSError, ValueError, TypeError):
                continue
            else:
                if late or modified != self._times.get(rank):
                    self._times[rank], self._seen[rank] = modified, now
                self._others[rank] = process

    def lost(self, limit: float | None = None) -> list[Process]:
        """Ranks whose last heartbeat is `limit` seconds old (default: `LIMIT`), or whose process here is gone."""
        limit = LIMIT if limit is None else limit
        now = time.monotonic()
        return [
            process
            for rank, process in sorted(self._others.items())
            if now - self._seen[rank] >= limit or (process.gone() and (self.folder / f"{rank}.json").exists())
        ]

    def error(self, lost: Sequence[Process]) -> RankLost:
        """What is said about lost ranks: one line."""
        now = time.monotonic()
        ages = [now - self._seen[p.rank] for p in lost]
        told = (
            f"rank {p.rank} on host {p.host} (process {p.pid}, last heartbeat {_clock(age)})"
            for p, age in zip(lost, ages, strict=True)
        )
        why = "the process is gone" if any(p.gone() for p in lost) else f"no heartbeat for {min(ages):.0f} s"
        return RankLost(f"lost {', '.join(told)}: {why}; what is made is kept: the same command continues")

    def lowest(self, lost: Sequence[Process]) -> bool:
        """Whether this is the lowest rank that is still alive."""
        return self.rank == min(set(range(self.size)) - {p.rank for p in lost})

    def claim(self, code: int) -> bool:
        """Whether this rank is the first of this start to fail, so that it says why; True where that is not known.

        `code` is the exit code that the others take over.
        """
        try:
            with (self.folder / _FAILED).open("x") as stream:
                stream.write(str(code))
        except FileExistsError:
            return False
        except OSError:
            return True
        return True

    def claimed(self) -> int | None:
        """The exit code of the rank that failed first, 0 where it is not yet written; None when none has failed."""
        try:
            return int((self.folder / _FAILED).read_text() or 0)
        except OSError:
            return None

    def leave(self) -> None:
        """This rank ends in an orderly way; the last one takes the folder away."""
        self._mine.unlink(missing_ok=True)
        if not any(self.folder.glob("*.json")):
            shutil.rmtree(self.folder, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what earlier starts left whose ranks are all dead: gone from this machine, or silent for a day."""
    for place in folder.glob(f"{_PREFIX}*"):
        try:
            newest = max((p.stat().st_mtime for p in place.iterdir()), default=place.stat().st_mtime)
            known = [Process(**json.loads(p.read_text())) for p in place.glob("*.json")]
        except (OSError, ValueError, TypeError):
            continue
        if (known and all(process.gone() for process in known)) or time.time() - newest > _DAY:
            shutil.rmtree(place, ignore_errors=True)


def _clock(seconds: float) -> str:
    """The time of day that many seconds ago."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() - seconds))
