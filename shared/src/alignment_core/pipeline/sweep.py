"""A sweep: a grid of settings and seeds as jobs, each a command line of its own, run by submitit.

    <sweep>/jobs/<job>/   what submitit keeps of a job: its id in the files' names, pickle, script, logs, result

A job's function gets a list of words and nothing else, so that no secret reaches a file; the environment is inherited.
Jobs on this machine are started at most so many at a time and end with the sweep; each holds a lock while its command
lives, so that a sweep that was killed and is started again waits for what still runs. Jobs on Slurm stay in the queue
when the sweep ends, and are found there by their ids.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from alignment_core import progress
from alignment_core.errors import UserError
from alignment_core.pipeline.locks import locked

if TYPE_CHECKING:
    import submitit

_LOCK = "command.lock"
"""In a job's folder: locked while the command lives; holds its process id."""
_CANCELLED = "cancelled"
"""In a job's folder: its command is not to be started any more."""
_INTERRUPT = {signal.SIGINT}


@dataclass(frozen=True)
class Job:
    """One command."""

    label: str
    """What it is, for readers."""
    folder: Path
    """Its own, under the sweep's."""
    words: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    code: int | None
    """The command's exit code; None where it was ended from outside."""
    reason: str
    """Of a failed job: the last error line of its log."""
    log: Path

    @property
    def good(self) -> bool:
        """Whether the command did what it was to do."""
        return self.code == 0

    def __str__(self) -> str:
        how = "ended from outside" if self.code is None else f"exit code {self.code}"
        return f"{self.job.label}: {how}: {self.reason}; log: {self.log}"


def split_values(text: str) -> list[str]:
    """`a,[1,2],"b,c"` at the commas outside brackets and quotes; `UserError` where one of them is not closed."""
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "[{(") - (character in "]})")
        if character == "," and not quote and depth <= 0:
            values.append("")
        else:
            values[-1] += character
    if quote or depth:
        raise UserError(f"cannot split {text!r} at its commas: a bracket or a quote is not closed")
    return [value.strip() for value in values]


class Command:
    """What a job does: run a command line. Started again after a preemption or a time limit, the command continues."""

    def __call__(self, words: list[str]) -> int:
        """The command's exit code, negative for a signal. Its output goes where the job's goes."""
        import submitit

        with ExitStack() as stack:
            passed: tuple[int, ...] = ()
            here = submitit.JobEnvironment()
            if here.cluster == "local":
                passed = (stack.enter_context(locked(here.paths.folder / _LOCK)),)
                # A command starts with the signals' defaults only where this process has a handler and blocks nothing.
                signal.signal(signal.SIGINT, _nothing)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)
                if (here.paths.folder / _CANCELLED).exists():
                    return 130
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=passed)
            for handle in passed:
                os.pwrite(handle, f"{child.pid}\n".encode(), 0)
            try:
                return child.wait()
            finally:
                if child.poll() is None:
                    child.terminate()

    def checkpoint(self, words: list[str]) -> Any:
        """What submitit puts into the queue after a preemption or a time limit: the same command."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, words)


def _nothing(_: int, __: FrameType | None) -> None:
    """An interrupt from the terminal is the sweep's, which ends the command."""


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Inside, the sweep's folder is this process's; `UserError` where another one has it or nothing can be written."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / ".lock", wait=False))
        except BlockingIOError:
            raise UserError(f"{folder}: the same sweep runs already; wait for it") from None
        except OSError as error:
            raise UserError(f"cannot use {folder}: {error.strerror}; choose another folder with --runs") from error
        yield


def cancel(job: Job) -> None:
    """The job's command will not start if it has not."""
    if job.folder.exists():
        (job.folder / _CANCELLED).touch()


def command_of(job: Job) -> int | None:
    """The process id of the job's command where it lives, whoever started it; 0 before it has one."""
    file = job.folder / _LOCK
    if not file.exists():
        return None
    try:
        with locked(file, wait=False):
            return None
    except BlockingIOError:
        return int(file.read_text() or 0)


class Engine(Protocol):
    """What runs jobs."""

    limit: int
    """Jobs under way at a time."""
    pause: float
    """Seconds between two looks at them."""

    def ready(self, job: Job) -> bool:
        """Whether the job may be started; one that still runs from an earlier sweep may not."""

    def start(self, job: Job) -> submitit.Job[int]:
        """Start the job, or find it where it waits already."""

    def ended(self, running: submitit.Job[int]) -> bool:
        """Whether the job is over."""

    def leave(self, running: Mapping[Job, submitit.Job[int]]) -> None:
        """The sweep is interrupted."""


def run_jobs(jobs: Sequence[Job], engine: Engine, tell: Callable[[Outcome, int], None]) -> list[Outcome]:
    """Run the jobs; `tell` hears of each that ended and how many have. Outcomes in the jobs' order."""
    waiting, running = list(jobs), dict[Job, "submitit.Job[int]"]()
    outcomes: dict[Job, Outcome] = {}
    with progress.work("sweep", len(jobs), "jobs") as told, _leaving(engine, running):
        while waiting or running:
            for job in [job for job, one in running.items() if engine.ended(one)]:
                outcomes[job] = _outcome(job, running.pop(job))
                tell(outcomes[job], len(outcomes))
            ready = [job for job in waiting if engine.ready(job)]
            room = engine.limit - len(running) - (len(waiting) - len(ready))
            for job in ready[: max(room, 0)]:
                waiting.remove(job)
                with _uninterrupted():
                    running[job] = engine.start(job)
            told.at(len(outcomes))
            time.sleep(engine.pause if running or waiting else 0)
    return [outcomes[job] for job in jobs]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Inside, an interrupt waits; what is started inside never sees one from the terminal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _leaving(engine: Engine, running: Mapping[Job, submitit.Job[int]]) -> Iterator[None]:
    """The engine hears of every way out but the last one."""
    try:
        yield
    except BaseException:
        engine.leave(running)
        raise


def _outcome(job: Job, done: submitit.Job[int]) -> Outcome:
    """How a job that is over ended."""
    import submitit
    from submitit.core.utils import UncompletedJobError

    code, said = None, _last_line(done.paths.stderr)
    # On a cluster a result may reach this machine late, and submitit waits for it; here it is there or never.
    if done.paths.result_pickle.exists() or not isinstance(done, submitit.LocalJob):
        with suppress(UncompletedJobError):
            code = done.result()
    if code is None:
        said = f"{done.state.lower()}: {said}"
    elif code < 0:
        said = f"signal {-code}: {said}"
    return Outcome(job, code, said, done.paths.stderr)


def _last_line(file: Path) -> str:
    """The last line of a log that says `error:`, else its last line."""
    try:
        lines = file.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    except OSError:
        return "no log"
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if line.startswith("error:")]
    return (errors or said or ["nothing in the log"])[-1].removeprefix("error: ")
