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
from alignment_core.pipeline.process_group import ProcessGroup, is_main_process, world_size

log = logging.getLogger("alignment_core")

FAILED = ".failed"
"""In the run folder: some process of this start has said why it failed."""
_PATIENCE = timedelta(days=2)
_GRACE = 20.0


@contextmanager
def join() -> Iterator[ProcessGroup | None]:
    """All processes of the run as a process group, None when there is one; inside, torch.distributed is set up."""
    if world_size() == 1:
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
            f"WORLD_SIZE={world_size()} says that several processes run, but {lacking[0]} is not set; start them with "
            "torchrun or accelerate launch, or unset WORLD_SIZE"
        )


def connect(dist: Any) -> ProcessGroup:
    """The processes of torch.distributed as a process group: values over gloo, sums over the device's backend."""
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def gather(value: Any) -> list[Any]:
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=group)
        return values

    def all_reduce(tensor: Any) -> None:
        dist.all_reduce(tensor, group=group if tensor.device.type == "cpu" else None)

    return ProcessGroup(dist.get_rank(), dist.get_world_size(), gather, all_reduce)


@contextmanager
def single_error(folder: Path, group: ProcessGroup | None) -> Iterator[None]:
    """With several processes, an error inside is told by the process that has it first, and by no other.

    What fails in one process fails in the others soon after, by the same mistake or because the first is gone.
    """
    if group is None:
        yield
        return
    if group.is_main:
        (folder / FAILED).unlink(missing_ok=True)
    group.barrier()
    try:
        yield
    except BaseException as error:
        if not _failed_first(folder):
            log.debug("another process failed first; here: %s: %s", type(error).__name__, error)
            time.sleep(_GRACE)  # the launcher ends this process when the one that speaks is gone
            os._exit(1)
        raise


@contextmanager
def same_user_errors() -> Iterator[None]:
    """Before the processes meet they all find the same mistakes: the first one tells them, the others say nothing."""
    try:
        yield
    except UserError:
        if not is_main_process():
            time.sleep(_GRACE)
            os._exit(2)
        raise


def _failed_first(folder: Path) -> bool:
    """Whether this process is the first to fail."""
    try:
        os.close(os.open(folder / FAILED, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
