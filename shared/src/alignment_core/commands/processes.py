"""Several processes of one run (torchrun, `accelerate launch`): how they wait for each other, and how they end.

They meet over gloo on the CPU whatever they train on, so that the first one may take hours over a step while the
others wait without a device spinning or a watchdog ending them. When one fails, the rest cannot go on: the launcher
ends them, and only the first to fail says why.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from alignment_core.errors import UserError
from alignment_core.runs import first_process
from alignment_core.team import Team

log = logging.getLogger("alignment_core")

FAILED = ".failed"
"""In the run folder: some process of this start has said why it failed."""
_PATIENCE = timedelta(days=2)
_GRACE = 20.0


def world() -> int:
    """How many processes work on this run (WORLD_SIZE, else 1)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def meeting() -> Iterator[Team | None]:
    """All processes of the run as a team, None when there is one; inside, torch.distributed is set up."""
    if world() == 1:
        yield None
        return
    _check()
    accelerate = importlib.import_module("accelerate")
    dist = importlib.import_module("torch.distributed")
    state = accelerate.PartialState(timeout=_PATIENCE)
    yield connect(dist)
    state.destroy_process_group()


def _check() -> None:
    """`UserError` when the launcher's variables do not make a world."""
    lacking = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if lacking:
        raise UserError(
            f"WORLD_SIZE={world()} says that several processes run, but {lacking[0]} is not set; start them with "
            "torchrun or accelerate launch, or unset WORLD_SIZE"
        )


def connect(dist: Any) -> Team:
    """The processes of torch.distributed as a team; values travel over gloo, sums over the device's own way."""
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def gather(value: Any) -> list[Any]:
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=group)
        return values

    def add(tensor: Any) -> None:
        dist.all_reduce(tensor, group=group if tensor.device.type == "cpu" else None)

    return Team(dist.get_rank(), dist.get_world_size(), gather, add)


@contextmanager
def one_voice(folder: Path, everyone: Team | None) -> Iterator[None]:
    """With several processes, an error inside is told by the process that has it first, and by no other.

    What fails in one process fails in the others soon after, by the same mistake or because the first is gone.
    """
    if everyone is None:
        yield
        return
    if everyone.first:
        (folder / FAILED).unlink(missing_ok=True)
    everyone.wait()
    try:
        yield
    except BaseException as error:
        if not _speaks(folder):
            log.debug("another process failed first; here: %s: %s", type(error).__name__, error)
            time.sleep(_GRACE)  # the launcher ends this process when the one that speaks is gone
            os._exit(1)
        raise


@contextmanager
def alike() -> Iterator[None]:
    """Before the processes meet they all find the same mistakes: the first one tells them, the others say nothing."""
    try:
        yield
    except UserError:
        if not first_process():
            time.sleep(_GRACE)
            os._exit(2)
        raise


def _speaks(folder: Path) -> bool:
    """Whether this process is the first to fail."""
    try:
        os.close(os.open(folder / FAILED, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
