"""What a run shows on stderr while it works.

On a terminal: our log lines, and under them a live picture of the study's parts (done, now, left), the step in hand,
and a bar with rate and time left for each long work in it (`alignment_core.progress` knows them). Elsewhere: lines
alone. The cursor is never hidden and nothing is set on the terminal, so that no way of ending leaves it changed.

What libraries write to stdout or stderr from Python while a study runs is of use to nobody there: it goes to the
run's log.txt, line by line, as debug lines of `alignment_core.libraries`.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from alignment_core import progress
from alignment_core.errors import UserError, nearest
from alignment_core.progress import duration, figures
from alignment_core.text import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.live import Live
    from rich.text import Text

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.DEBUG: "dim"}
_REFRESH = 4
"""Pictures a second."""
_LATE = 1.0
"""Seconds after which a work inside another gets a bar of its own."""
_BAR, _LEAST_BAR = 30, 8
_SMALL = 4 << 10

libraries = logging.getLogger("alignment_core.libraries")


@dataclass
class Plan:
    """The parts of a study for each seed, and how far they are."""

    name: str
    parts: Sequence[str]
    seeds: Sequence[int]
    seed: int | None = None
    done: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def starts(self, seed: int) -> None:
        """The parts of `seed` begin."""
        self.seed, self.done = seed, []

    def completes(self, part: str) -> None:
        """A part is complete for the seed in hand."""
        self.done.append(part)
        logging.getLogger("alignment_core").info("seed %s: %s complete", self.seed, part, extra=progress.TICK)

    def finishes(self) -> None:
        """All seeds are done; what is left is what they say together."""
        self.seed, self.done = None, [*self.parts]
        logging.getLogger("alignment_core").info("writing results and report", extra=progress.TICK)


class _Lines(logging.Formatter):
    """`12:01:33 seed 13: stage_a: text`, tracebacks only at debug level, hostile text shown escaped."""

    def __init__(self, tracebacks: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self.tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        text, place = record.getMessage(), progress.now().step
        if place and not text.startswith(place):
            text = f"{place}: {text}"
        text = visible(text, lines=True)
        if record.exc_info and self.tracebacks:
            text += "\n" + visible(self.formatException(record.exc_info), lines=True)
        mark = "warning: " if record.levelno == logging.WARNING else "error: " if record.levelno > 30 else ""
        return f"{self.formatTime(record, self.datefmt)} {mark}{text}"


class _Above(logging.Handler):
    """Prints log lines above the live picture, which shows what work is going on better than lines do."""

    def __init__(self, console: Console, ticks: bool) -> None:
        super().__init__()
        self.console, self.ticks = console, ticks

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        if record.levelno < logging.WARNING and getattr(record, "tick", False) and not self.ticks:
            return
        self.console.print(Text(self.format(record), style=_STYLES.get(record.levelno, "")), soft_wrap=True)


class _Noise(io.TextIOBase):
    """A stand-in for stdout or stderr whose lines go to the log; what asks for the descriptor gets the real one."""

    def __init__(self, real: TextIO) -> None:
        self._real, self._rest, self._busy = real, "", False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._real.encoding

    def fileno(self) -> int:
        return self._real.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).replace("\r", "\n").split("\n")
        if len(self._rest) > _SMALL:
            lines, self._rest = [*lines, self._rest], ""
        # A handler that cannot write reports that on stderr, which is this stream.
        if not self._busy:
            self._busy = True
            try:
                for line in filter(str.strip, lines):
                    libraries.debug("%s", line)
            finally:
                self._busy = False
        return len(text)


class _Picture:
    """The live picture, drawn anew at every refresh to the width there is."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        now, clock, width = progress.now(), time.monotonic(), max(options.max_width - 1, 1)
        plain = options.ascii_only
        yield self._head(clock, width, plain)
        shown = [w for i, w in enumerate(now.works) if i == 0 or clock - w.started > _LATE]
        place = now.step.partition(": ")[2] or now.step
        if not shown:
            idle = f"{visible(place)}  {duration(clock - now.since)}" if place else self._between()
            yield _fit(f"  {idle}", width)
        for work in shown:
            yield _work(place, work, width, plain)
            place = ""

    def _between(self) -> str:
        """What goes on where no step is in hand."""
        if self.plan.seed is None and self.plan.done:
            return "writing results and report"
        return "" if self.plan.done else "starting"

    def _head(self, clock: float, width: int, plain: bool) -> Text:
        plan = self.plan
        spent = duration(clock - plan.began)
        done, current = len(plan.done), next((p for p in plan.parts if p not in plan.done), "")
        seed = "" if plan.seed is None else f"seed {plan.seed}"
        if seed and len(plan.seeds) > 1:
            seed += f" ({plan.seeds.index(plan.seed or 0) + 1} of {len(plan.seeds)})"
        tick, here = ("x", ">") if plain else ("✓", "▸")
        marks = [tick + p if p in plan.done else here + p if p == current else p for p in plan.parts]
        head = [visible(plan.name), *([seed] if seed else [])]
        for parts in (" ".join(marks), f"{current} ({min(done + 1, len(marks))} of {len(marks)})"):
            text = "  ".join([*head, parts, spent])
            if len(text) <= width:
                break
        return _fit(text, width, "bold")


def _work(place: str, work: progress.Work, width: int, plain: bool) -> Text:
    """`  stage_b: training ━━━━╸───  40/120 steps  3.2/s  25 s left  loss 1.23`, the least needed left out first."""
    label = "  " + visible(": ".join(filter(None, (place, work.what))))
    count = f"{work.done}/{work.total} {work.unit}" if work.total else "getting ready"
    rate, left = work.rate, work.left
    time_left = "" if left is None else f"{duration(left)} left"
    speed = "" if rate is None else f"{figures(rate)}/s"
    for extra in ([speed, time_left, visible(work.note)], [speed, time_left], [time_left], []):
        tail = "  ".join(filter(None, (count, *extra)))
        bar = min(_BAR, width - len(label) - len(tail) - 4)
        if bar >= _LEAST_BAR:
            full = bar * min(work.done, work.total) // max(work.total, 1)
            drawn = ("#" * full + "-" * (bar - full)) if plain else ("━" * full + "─" * (bar - full))
            return _fit(f"{label}  {drawn}  {tail}", width)
    return _fit(f"{label}  {count}" if len(label) + len(count) + 2 <= width else f"  {count}{label}", width)


def _fit(text: str, width: int, style: str = "") -> Text:
    from rich.text import Text

    line = Text(text, style, no_wrap=True, overflow="ellipsis")
    line.truncate(width, overflow="ellipsis")
    return line


def _lively() -> bool:
    """Whether stderr is a terminal that can draw over its own lines."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


@contextmanager
def _live(plan: Plan) -> Iterator[Console]:
    """The live picture on stderr; gone when the block ends."""
    from rich.console import Console
    from rich.live import Live

    class Steady(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False  # a run that is killed could not bring it back

    console = Steady(file=sys.stderr, highlight=False, markup=False, emoji=False)
    live: Live = Live(
        _Picture(plan),
        console=console,
        transient=True,
        refresh_per_second=_REFRESH,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live:
        yield console


@contextmanager
def terminal_log(names: Sequence[str], level: str, plan: Plan | None = None) -> Iterator[logging.Logger]:
    """Inside, the loggers `names` write to stderr from `level` up; gives the first of them.

    With a plan: on a terminal also the live picture (at level info and below), and what libraries print is logged.
    """
    if level not in LEVELS:
        raise UserError(f"no log level {level!r}{nearest(level, LEVELS)}; there are {', '.join(LEVELS)}")
    loggers = [logging.getLogger(name) for name in names]
    with ExitStack() as stack:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        if plan is not None:
            if LEVELS[level] <= logging.INFO and _lively():
                handler = _Above(stack.enter_context(_live(plan)), ticks=level == "debug")
            stack.enter_context(redirect_stderr(_Noise(sys.stderr)))
            stack.enter_context(redirect_stdout(_Noise(sys.stdout)))
        handler.setLevel(LEVELS[level])
        handler.setFormatter(_Lines(level == "debug"))
        for logger in loggers:
            stack.callback(logger.setLevel, logger.level)
            stack.callback(logger.removeHandler, handler)
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
        yield loggers[0]


def quiet_level(options: Any, first: bool) -> str:
    """The level that `--quiet` and `--log-level` ask for; a process that is not the first says only what fails it."""
    return ("warning" if options.quiet else str(options.log_level)) if first else "error"
