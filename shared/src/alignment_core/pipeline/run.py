"""The run folder: steps with content keys, kept over kills, continued by the same command.

    runs/<study>/<preset>[-<short hash of overrides>]/
      config.json  env.json  log.txt  timings.json
      steps/<step>[-s<seed>]-<key>/     each with step.json; `.<...>.partial` while it is being made

A step's key hashes its name, version, settings, seed, the keys of the steps it reads, and the identity of every model
and file it uses. A step is made in a partial folder that survives a kill, so that the work can continue inside it, and
is renamed when whole. The order (files to disk, then step.json, then checkpoints away, then rename, then the folder
entry to disk) is such that a crash between any two calls leaves either a partial step or a whole one.

One process owns a run folder: an flock that dies with it. Under torchrun the first rank (RANK=0) owns the folder,
writes and renames; the others wait, or work in the steps that all do together (`process_group.py`, whose communication
the caller passes in, so that this module needs no torch).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core import io, progress
from alignment_core.config import Settings
from alignment_core.errors import UserError
from alignment_core.pipeline.environment import environment, memory_peak, reset_memory_peak
from alignment_core.pipeline.process_group import SINGLE, ProcessGroup, is_main_process, using, world_size
from alignment_core.pipeline.step import Step, check_whole, finished, plain, seal, step_key, sweep

__all__ = ["Run", "Step", "changes", "plain", "run_folder", "step_key"]

log = logging.getLogger("alignment_core")

_NAME = re.compile(r"[a-z][a-z0-9_]*")
TRACEBACK = "the traceback is in"
"""Opens the note on an exception that says where its traceback was written."""
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def changes(config: Settings, preset: Settings) -> dict[str, Any]:
    """The settings in which `config` differs from its preset, by dotted key."""

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(value, dict) and value:
            return {k: v for key, part in value.items() for k, v in flat(part, f"{prefix}{key}.").items()}
        return {prefix[:-1]: value}

    ours, theirs = flat(plain(config)), flat(plain(preset))
    return {k: ours.get(k) for k in sorted(ours.keys() | theirs.keys()) if ours.get(k) != theirs.get(k)}


def run_folder(root: Path, study: str, preset: str, config: Settings, preset_config: Settings) -> Path:
    """`root/study/preset`, with a short hash of the overrides when there are any."""
    different = changes(config, preset_config)
    suffix = f"-{hashlib.sha256(io.canonical(different).encode()).hexdigest()[:6]}" if different else ""
    return root / study / f"{preset}{suffix}"


@contextmanager
def _writable(folder: Path, *, any_error: bool = False) -> Iterator[None]:
    """Turn the errors of a folder that cannot take our files into one line the user can act on."""
    try:
        yield
    except OSError as error:
        inside = error.filename is not None and str(error.filename).startswith(str(folder))
        if any_error or error.errno in _UNWRITABLE[:3] or (error.errno in _UNWRITABLE and inside):
            raise _unwritable(folder, error.strerror or str(error)) from error
        raise
    except Exception as error:
        # Rust writers (safetensors, tokenizers) and torch report a full disk as their own exception types.
        if any(sign in str(error) for sign in ("No space left", "StorageFull", "os error 28")):
            raise _unwritable(folder, "No space left on device") from error
        raise


def _unwritable(folder: Path, why: str) -> UserError:
    mend = "free space" if "space" in why or "quota" in why else "make it writable"
    return UserError(f"cannot write in {folder}: {why}; {mend} or choose another folder with --runs, then run it again")


def _lock(folder: Path) -> int:
    """File descriptor that holds the folder's lock; the system lets go of it when the process dies."""
    import fcntl

    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
        os.close(handle)
        raise UserError(f"{folder} is in use by {holder}; wait for it, or choose another folder with --runs") from error
    except OSError as error:
        os.close(handle)
        raise UserError(f"{folder} cannot be locked: {error.strerror}; choose a local folder with --runs") from error
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n".encode())
    return handle


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
def _log_file(folder: Path, study: str) -> Iterator[None]:
    _ours_names.add(study.replace("-", "_"))
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
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
        error.add_note(f"{TRACEBACK} {folder / 'log.txt'}")
        raise
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        root.removeHandler(handler)
        handler.close()


@dataclass(frozen=True)
class Planned:
    """A step as a dry run finds it: what it would do, and whether it is made already."""

    name: str
    seed: int | None
    label: str
    about: str
    kept: bool
    opens: Callable[[], None] | None
    """Opens what the step needs from outside, and raises `UserError` where that cannot be had."""


class Run:
    """A run folder owned by this process (`Run.open`), or a walk over its steps that makes nothing (`Run.plan`)."""

    def __init__(
        self, folder: Path, group: ProcessGroup = SINGLE, *, accept_missing: bool = False, planning: bool = False
    ) -> None:
        self.folder = folder
        self.is_main = is_main_process()
        self.accept_missing = accept_missing
        """Whether calls that failed in passing are sealed as missing, instead of leaving their step open."""
        self.planning = planning
        """Whether steps are only listed in `planned`: nothing is made, and no step's folder need be there."""
        self.planned: list[Planned] = []
        self._group = group

    @classmethod
    def plan(cls, folder: Path) -> Run:
        """A run whose steps are listed and not made."""
        return cls(folder, planning=True)

    @classmethod
    @contextmanager
    def open(
        cls,
        folder: Path,
        study: str,
        preset: str,
        config: Settings,
        seeds: Sequence[int],
        *,
        group: ProcessGroup | None = None,
        accept_missing: bool = False,
    ) -> Iterator[Run]:
        """Own `folder`, write config.json and env.json, log to log.txt.

        Under torchrun `group` must be given: the processes of the run, this one's rank among them, and how they wait
        for each other. Raises `UserError` when the folder is in use by another run, read-only, or full.
        """
        if group is None and world_size() > 1:
            raise RuntimeError("several processes, and no process group was given to Run.open")
        run = cls(folder, group or SINGLE, accept_missing=accept_missing)
        with ExitStack() as stack:
            if run.is_main:
                with _writable(folder, any_error=True):
                    (folder / "steps").mkdir(parents=True, exist_ok=True)
                    stack.callback(os.close, _lock(folder))
                    stack.enter_context(_log_file(folder, study))
                    for place in (folder, *(p for p in folder.iterdir() if p.is_dir() and p.name != "steps")):
                        sweep(place)
                    about = {"study": study, "preset": preset, "seeds": list(seeds), "config": plain(config)}
                    io.write_json(folder / "config.json", about)
                    io.write_json(folder / "env.json", environment())
            run.barrier()
            yield run

    def barrier(self) -> None:
        """Wait until every process of the run is here; at once when there is one."""
        self._group.barrier()

    def do(
        self,
        name: str,
        work: Callable[[Path], None],
        *,
        version: int = 1,
        settings: Mapping[str, Any] | Settings | None = None,
        seed: int | None = None,
        reads: Sequence[Step] = (),
        identity: Mapping[str, Any] | None = None,
        together: bool = False,
        about: str = "",
        opens: Callable[[], None] | None = None,
    ) -> Step:
        """The step `name`, made by `work(folder)` unless it is whole already.

        `work` gets a partial folder that may hold what an earlier, killed attempt left: it continues there or writes
        over it. A `checkpoints` folder inside is deleted when the step is whole. With several processes rank 0 works
        and the others wait; with `together` all of them work, each sees the others as its `process_group()`, and what
        `work` writes by itself only rank 0 may write. `about` says in a phrase what the step does, for a dry run;
        `opens` tries what it needs from outside, before the first step of a run.
        Raises whatever `work` raises; a full or read-only disk becomes a `UserError`.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"step name {name!r}: lower case, digits and _ only")
        key = step_key(name, version, settings, seed, reads, identity)
        label = f"{name}{'' if seed is None else f'-s{seed}'}-{key}"
        step = Step(name, key, self.folder / "steps" / label, seed)
        if self.planning:
            self._list(step, label, about, opens)
            return step
        facts = {
            "name": name,
            "key": key,
            "version": version,
            "seed": seed,
            "settings": plain(settings),
            "reads": {s.folder.name: s.key for s in reads},
            "identity": plain(identity),
        }
        if self._group.broadcast(step.folder.exists):
            check_whole(step)
            progress.kept(name, seed, label)
        else:
            partial = step.folder.with_name(f".{label}.partial")
            with _writable(self.folder):
                self._make(step, partial, facts, work, together)
        self.barrier()
        return step

    def _list(self, step: Step, label: str, about: str, opens: Callable[[], None] | None) -> None:
        if label not in {one.label for one in self.planned}:
            self.planned.append(Planned(step.name, step.seed, label, about, step.folder.exists(), opens))

    def _make(
        self, step: Step, partial: Path, facts: dict[str, Any], work: Callable[[Path], None], together: bool
    ) -> None:
        timed: AbstractContextManager[None] = nullcontext()
        if self.is_main:
            timed = self._timed(step, again=partial.exists())
            partial.mkdir(exist_ok=True)
        with timed:
            done = self._group.broadcast(lambda: finished(partial, step))
            if (self.is_main or together) and not done:
                with using(self._group if together else SINGLE):
                    work(partial)
            self.barrier()
            if self.is_main:
                seal(partial, facts)
                os.replace(partial, step.folder)
                io.fsync_dir(step.folder.parent)

    @contextmanager
    def _timed(self, step: Step, *, again: bool) -> Iterator[None]:
        """Add the seconds and the peak memory of a step, whole or interrupted, to timings.json."""
        reset_memory_peak()
        start = time.monotonic()
        try:
            with progress.step(step.name, step.seed, step.folder.name, again=again):
                yield
        finally:
            self._add_timing(step, time.monotonic() - start, memory_peak())

    def _add_timing(self, step: Step, seconds: float, peak: int) -> None:
        path = self.folder / "timings.json"
        timings = io.read_json(path) if path.exists() else {"steps": {}}
        old = timings["steps"].get(step.folder.name, {"seconds": 0.0, "peak_rss_bytes": 0, "attempts": 0})
        timings["steps"][step.folder.name] = {
            "name": step.name,
            "seed": step.seed,
            "seconds": round(old["seconds"] + seconds, 3),
            "peak_rss_bytes": max(old["peak_rss_bytes"], peak),
            "attempts": old["attempts"] + 1,
        }
        io.write_json(path, timings)
