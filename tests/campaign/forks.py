"""Real command lines in forked children of one parent that has imported everything, each killed at will.

Importing torch and TRL takes longer than a whole reduced run, so the parent imports once and never uses torch; a
child, in a session of its own, runs the same typer app that the installed command runs. It dies by SIGKILL alone: no
`finally`, no destructor, no flush.
"""

from __future__ import annotations

import importlib
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STUDIES = ("drift-dpo", "neuron-brittleness", "orth-refusal", "mini-cai")
_ROOMS = ("cli", "config", "study", "plan", "report", "training", "evaluation", "stages", "analysis", "dpo", "freeze")
_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "safetensors.torch", "scipy.stats", "matplotlib")
_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
"""What Python says of itself before it touches the disk (`sys.addaudithook`)."""


@dataclass(frozen=True)
class When:
    """When a child dies: `moment` after so many seconds; `operation` just before its file operation of that number;
    `writing` up to 3 ms after the file of that number was opened to be written."""

    how: str
    at: float


def prepare() -> None:
    """Import what the studies import, without a thread started; `RuntimeError` when there is one after all."""
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", TOKENIZERS_PARALLELISM="false",
                      HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", OPENBLAS_NUM_THREADS="1")  # fmt: skip
    for name in _LIBRARIES:
        importlib.import_module(name)
    for study in STUDIES:
        for room in _ROOMS:
            name = f"{study.replace('-', '_')}.{room}"
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
    for name in ("loop", "train", "generate", "score", "load"):
        importlib.import_module(f"alignment_core.models.{name}")
    from transformers.models.llama import modeling_llama  # noqa: F401
    from trl import DPOTrainer, SFTTrainer  # noqa: F401

    tasks = Path("/proc/self/task")
    names = [(task / "comm").read_text().strip() for task in tasks.iterdir()] if tasks.is_dir() else []
    # Arrow's allocator keeps a thread of its own and knows how to fork.
    if len([name for name in names if name != "jemalloc_bg_thd"]) > 1:
        raise RuntimeError(f"the parent has threads ({', '.join(names)}): a child could inherit a lock nobody opens")


@dataclass
class Ended:
    """How a child ended: its exit code, or None when it was killed; seconds; file operations when it was counted."""

    code: int | None
    seconds: float


def run(study: str, arguments: list[str], out: Path, when: When | None = None, count: Path | None = None) -> Ended:
    """Run `study arguments` in a child, and kill it as `when` says. `count` gets the number of its file operations."""
    heard, told = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(heard)
        _child(study, arguments, out, when, count, told)
    os.close(told)
    try:
        return _watch(child, when, heard, begun)
    finally:
        os.close(heard)


def _watch(child: int, when: When | None, heard: int, begun: float) -> Ended:
    limit = when.at if when is not None and when.how == "moment" else None
    while True:
        left = 0.2 if limit is None else min(0.2, max(0.0, begun + limit - time.monotonic()))
        ready, _, _ = select.select([heard], [], [], left)
        if ready and os.read(heard, 1):
            time.sleep(random.random() * 0.003)
            os.killpg(child, signal.SIGKILL)
        elif ready:  # the child's end is closed: it has ended
            limit = None
        if limit is not None and time.monotonic() - begun >= limit:
            os.killpg(child, signal.SIGKILL)
            limit = None
        done, status = os.waitpid(child, 0 if ready else os.WNOHANG)
        if done:
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            return Ended(None if killed else os.waitstatus_to_exitcode(status), time.monotonic() - begun)


def _child(study: str, arguments: list[str], out: Path, when: When | None, count: Path | None, told: int) -> None:
    os.setsid()
    stream = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(stream, number)
    seen = _hook(when, told)
    code = 70
    try:
        sys.argv = [study, *arguments]
        module = importlib.import_module(f"{study.replace('-', '_')}.cli")
        module.app(standalone_mode=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        if count is not None:
            count.write_text(f"{seen()}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _hook(when: When | None, told: int) -> Callable[[], int]:
    """Count this process's file operations under a run folder, and die as `when` says."""
    number = 0

    def heard(event: str, given: tuple[object, ...]) -> None:
        nonlocal number
        if event not in _OPERATIONS or not isinstance(given[0], str | bytes | Path):
            return
        if event == "open" and (len(given) < 3 or not isinstance(given[2], int) or not given[2] & os.O_ACCMODE):
            return
        if "/steps/" not in os.fsdecode(given[0]) and "/runs/" not in os.fsdecode(given[0]):
            return
        number += 1
        if when is None or number != int(when.at):
            return
        if when.how == "operation":
            os.kill(os.getpid(), signal.SIGKILL)
        elif when.how == "writing":
            os.write(told, b"x")

    sys.addaudithook(heard)
    return lambda: number
