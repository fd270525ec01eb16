"""What ends one of several processes while its main thread waits or works: a signal, a lost rank, a launcher gone.

A thread of each process shows its heartbeat and looks at all three every second, so that nothing depends on the main
thread, which may be hours inside one batch or one collective. After a signal it leaves the main thread a second to
unwind and then ends the process; what was made is on disk. One of all processes says why, the others are silent.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import NoReturn

from alignment_core.pipeline import heartbeat
from alignment_core.pipeline.heartbeat import Process, RankLost, Ranks
from alignment_core.text import visible

log = logging.getLogger("alignment_core")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNWIND = 1.0
"""Seconds that the main thread has after a signal."""
RENDEZVOUS = 1800.0
"""Seconds in which all processes of a start must have come; from then on their heartbeats are looked at."""
_TICK, _GRACE = 1.0, 20.0
_KEPT = "what is made is kept: the same command continues"


class Watch:
    """Inside, this process's thread is running; heartbeats begin with `begin`."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.ranks: Ranks | None = None
        self.signal: int | None = None
        """The signal that ends this process, once there is one."""
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._began = time.monotonic()
        self._next_beat = 0.0
        self._code = 1
        self._deadline: float | None = None
        self._ending = self._claimed = self._stopped = False
        self._lock = threading.Lock()

    def __enter__(self) -> Watch:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        # The interpreter writes a signal's number there at once, whatever the main thread does.
        self._old_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, self._interrupt) for number in SIGNALS}
        os.register_at_fork(after_in_child=self._forked)
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self._stopped = True
            self._writer.send(b"\0")
            self._thread.join()
            signal.set_wakeup_fd(self._old_fd)
            self._reader.close()
            self._writer.close()
        for number, handler in self._old_handlers.items():
            # A process that is about to end is not disturbed, not even while the interpreter shuts down.
            signal.signal(number, handler if error is None else signal.SIG_IGN)
        if self.ranks is not None:
            self.ranks.leave()
        if error is not None:
            atexit.register(self._end_here)

    def begin(self, ranks: Ranks) -> None:
        """All processes have come; from now on one without a heartbeat is lost."""
        ranks.look()
        self.ranks = ranks

    def reports(self, code: int) -> bool:
        """Whether the main thread of this process reports why the run ends, with that exit code.

        No signal disturbs it from now on.
        """
        self._ending = True
        with self._lock:
            self._code = code
            if self._deadline is not None:
                self._deadline = time.monotonic() + UNWIND
            return self._claim(code)

    def find_lost(self, limit: float, patience: float = 0) -> RankLost | None:
        """The ranks without a heartbeat for `limit` seconds or without a process, looked for during `patience`.

        Returns when the lowest rank that is alive has had the time to say so.
        """
        self._ending = True
        if (ranks := self.ranks) is None:
            return None
        end = time.monotonic() + patience
        while not (lost := ranks.lost(limit)) and time.monotonic() < end and ranks.claimed() is None:
            time.sleep(0.05)
        return self._name(ranks, lost) if lost else None

    def leave(self, code: int) -> NoReturn:
        """End this process and say nothing, with the exit code of the one that has said why, or else with `code`."""
        try:
            if self.ranks is not None:
                code = self.ranks.claimed() or code
                self.ranks.leave()
        finally:
            os._exit(code)

    def _name(self, ranks: Ranks, lost: list[Process]) -> RankLost:
        error = ranks.error(lost)
        end = time.monotonic() + 2 * heartbeat.INTERVAL + 1
        while not ranks.lowest(lost) and ranks.claimed() is None and time.monotonic() < end:
            time.sleep(0.05)
        return error

    def _claim(self, code: int) -> bool:
        """Whether this call is the first of all processes' and threads'."""
        if self._claimed:
            return False
        self._claimed = self.rank == 0 if self.ranks is None else self.ranks.claim(code)
        return self._claimed

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if not self._ending:
            self._ending = True
            raise KeyboardInterrupt

    def _end_here(self) -> None:
        """Leave out the interpreter's shutdown, which takes seconds with torch loaded and may wait for other ranks."""
        try:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
        finally:
            os._exit(self._code)

    def _forked(self) -> None:
        """A process forked from this one has signals of its own."""
        if not self._stopped:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _run(self) -> None:
        while not self._stopped:
            wait = min(_TICK, heartbeat.INTERVAL)
            if self._deadline is not None:
                wait = min(wait, max(0.0, self._deadline - time.monotonic()))
            if select.select([self._reader], [], [], wait)[0]:
                came = [number for number in self._reader.recv(64) if number in SIGNALS]
                if came and not self._claimed:
                    self.signal = self.signal or came[0]
                    self._deadline = min(self._deadline or math.inf, time.monotonic() + UNWIND)
            try:
                self._check(time.monotonic())
            except OSError as error:  # a folder that does not answer now may do so at the next look
                log.debug("heartbeat: %s", error)

    def _check(self, now: float) -> None:
        if self._deadline is not None and now >= self._deadline:
            self._end_by_signal()
        if self._claimed or self._stopped:
            return  # the main thread says why and ends
        if self._launcher not in (None, os.getppid()):
            who = f"rank {self.rank} on host {socket.gethostname()}"
            self._end(f"error: the launcher of {who} (process {self._launcher}) is gone; {_KEPT}", 2)
        if self.ranks is None:
            if now - self._began > RENDEZVOUS + (_GRACE if self.rank else 0):
                what = f"not all {self.size} processes of the run came within {RENDEZVOUS / 60:.0f} min"
                self._end(f"error: {what}; end them all, look at what they print, and start them again", 2)
            return
        if now >= self._next_beat:
            self._next_beat = now + heartbeat.INTERVAL
            self.ranks.show()
            self.ranks.look()
        if lost := self.ranks.lost(heartbeat.LIMIT):
            self._end(f"error: {self._name(self.ranks, lost)}", 2)
        if self._deadline is None and self.ranks.claimed() is not None:
            self._deadline = now + _GRACE  # another process has said why the run ends

    def _end_by_signal(self) -> NoReturn:
        if self.signal == signal.SIGTERM and (error := self.find_lost(heartbeat.LIMIT)):
            self._end(f"error: {error}", 2)
        self._end("interrupted; the same command continues", 130)

    def _end(self, line: str, code: int) -> NoReturn:
        """End the process; the lock is kept, so that the main thread does not do so before the line is written."""
        self._lock.acquire()
        try:
            if self._claim(code):
                # Neither sys.stderr nor logging: the first may be redirected, either may be locked by the main thread.
                os.write(2, f"{chr(10) * os.isatty(2)}{visible(' '.join(line.split()))}\n".encode())
                note = threading.Thread(target=log.debug, args=("stopped: %s", line), daemon=True)
                note.start()
                note.join(1)
        finally:
            self.leave(code)
