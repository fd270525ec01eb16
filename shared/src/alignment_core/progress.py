"""How far a run is: the step in hand and the long work inside it. Neither a terminal nor torch here.

Whoever works says so:

    with work("training", 120, "steps") as told:
        told.at(40, "loss 1.23")
    for batch in each(batches, "scoring", "texts", len): ...

Whoever shows it reads `now()` as often as it likes. The log gets a line at level info after ten seconds of a work and
then at each further tenth of it (ten seconds apart at least, five minutes at most), and at level debug every second
and whatever has a note. As a library: nothing is shown, and the logger `alignment_core` has the lines.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

log = logging.getLogger("alignment_core")

T = TypeVar("T")

TICK = {"tick": True}
"""On the log records of work going on, which a live display has no need to print."""
_APART, _SILENCE, _SHARE = 10.0, 300.0, 0.1
_WINDOW = 60.0
"""Seconds over which a rate is taken: batches of long texts come first, so an older rate misleads."""


class Work:
    """A long piece of work: `done` of `total` units. Whoever does it calls `at` or `advance`."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done, self.note = what, total, unit, done, ""
        self.started = monotonic()
        self._marks = deque([(self.started, done)])
        self._told, self._told_done, self._recorded = self.started, done, self.started

    def resize(self, total: int, done: int = 0) -> None:
        """The work turns out to be `total` units, of which `done` were done before."""
        self.total, self.done, self._told_done = total, done, done
        self._marks = deque([(monotonic(), done)])

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done."""
        self.at(self.done + count, note)

    def at(self, done: int, note: str = "") -> None:
        """`done` units are done in all; `note` is what is worth saying beside it, such as a loss."""
        clock = monotonic()
        self.done, self.note = done, note or self.note
        self._marks.append((clock, done))
        while len(self._marks) > 2 and self._marks[1][0] < clock - _WINDOW:
            self._marks.popleft()
        since = clock - self._told
        if since >= _APART and (done - self._told_done >= _SHARE * self.total or since >= _SILENCE):
            self._told, self._told_done = clock, done
            self._record(logging.INFO, clock)
        elif note or clock - self._recorded >= 1:
            self._record(logging.DEBUG, clock)

    def _record(self, level: int, clock: float) -> None:
        self._recorded = clock
        log.log(level, "%s", ": ".join((*_here(), self.text())), extra=TICK)

    @property
    def rate(self) -> float | None:
        """Units a second of late; None before the first."""
        (begun, before), (ended, after) = self._marks[0], self._marks[-1]
        return (after - before) / (ended - begun) if after > before and ended > begun else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes at this rate."""
        return (self.total - self.done) / self.rate if self.rate else None

    def text(self) -> str:
        """`training 40/120 steps, 3.2/s, 25 s left, loss 1.23`."""
        parts = [f"{self.what} {self.done}/{self.total} {self.unit}"]
        if self.rate and self.left is not None:
            parts += [f"{figures(self.rate)}/s", f"{duration(self.left)} left"]
        return ", ".join([*parts, *([self.note] if self.note else [])])


@dataclass
class Now:
    """What goes on in this process."""

    step: str = ""
    """The step in hand, with its seed: `seed 13: stage_a`; empty between steps."""
    since: float = 0.0
    """When the step began, by `time.monotonic`."""
    works: list[Work] = field(default_factory=list)
    """The works under way, each inside the one before it."""


_now = Now()


def now() -> Now:
    """What goes on; the works are a copy, so that another thread may walk through them."""
    return Now(_now.step, _now.since, list(_now.works))


def _here() -> tuple[str, ...]:
    return (_now.step,) if _now.step else ()


@contextmanager
def work(what: str, total: int, unit: str = "batches", done: int = 0) -> Iterator[Work]:
    """A long work of `total` units, of which `done` were done before (they count for no rate)."""
    one = Work(what, total, unit, done)
    _now.works.append(one)
    try:
        yield one
    finally:
        if one in _now.works:
            _now.works.remove(one)
        log.debug("%s", ": ".join((*_here(), f"{what}: {duration(monotonic() - one.started)}")), extra=TICK)


def _one(_: object) -> int:
    return 1


def each(items: Sequence[T], what: str, unit: str = "batches", size: Callable[[T], int] = _one) -> Iterator[T]:
    """The items, told as work while they are gone through; `size` is how many units one of them counts."""
    with work(what, sum(map(size, items)), unit) as told:
        for item in items:
            yield item
            told.advance(size(item))


def named(name: str, seed: int | None) -> str:
    """A step as the user reads it: `seed 13: stage_a`."""
    return name if seed is None else f"seed {seed}: {name}"


@contextmanager
def step(name: str, seed: int | None, folder: str, *, again: bool, why: str = "") -> Iterator[None]:
    """A step is being made in `folder`; `again` where an interrupted attempt left something to go on from, `why` where
    one that was there is made again."""
    before = now()
    _now.step, _now.since, _now.works = named(name, seed), monotonic(), []
    reason = f" (made again: {why})" if why else ""
    log.info("%s: %s%s", _now.step, "continues" if again else "starts", reason, extra=TICK)
    log.debug("in %s", folder)
    try:
        yield
    except BaseException:
        log.info("%s: stopped after %s", _now.step, duration(monotonic() - _now.since))
        raise
    else:
        log.info("%s: done in %s", _now.step, duration(monotonic() - _now.since))
    finally:
        _now.step, _now.since, _now.works = before.step, before.since, before.works


def kept(name: str, seed: int | None, folder: str) -> None:
    """A step was whole already."""
    log.info("%s: kept", named(name, seed))
    log.debug("in %s", folder)


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for small, large, size in (("s", "min", 60), ("min", "h", 60), ("h", "d", 24)):
        whole, rest = divmod(whole, size)
        if large == "d" or whole < (60 if large == "min" else 24):
            return f"{whole} {large} {rest:02d} {small}"
    raise AssertionError("every duration has days")


def figures(rate: float) -> str:
    """A rate in two or three figures."""
    return f"{rate:.0f}" if rate >= 99.5 else f"{rate:.1f}" if rate >= 0.95 else f"{rate:.2g}"
