"""Several processes of one run (torchrun, `accelerate launch`): how they wait for each other, and how they end.

They meet over gloo on the CPU whatever they train on, so that the first one may take hours over a step while the
others wait without a device spinning or a watchdog ending them. Waiting has no limit: heartbeats tell whether the
others are alive (`watch.py`). When one fails, the rest cannot go on: all end, and only one says why.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from alignment_core.cli.watch import Watch
from alignment_core.errors import UserError
from alignment_core.pipeline import heartbeat
from alignment_core.pipeline.process_group import ProcessGroup, is_main_process, world_size

log = logging.getLogger("alignment_core")

_UNLIMITED = timedelta(days=365)
_GRACE = 20.0
_BROKEN = re.compile("gloo|nccl|connection|broken pipe|store", re.IGNORECASE)
"""In what torch says when another process is gone."""


@contextmanager
def join(folder: Path) -> Iterator[ProcessGroup | None]:
    """All processes of the run in `folder` as a process group, None when there is one.

    Inside, torch.distributed is set up, and an error is told by the process that has it first, and by no other: what
    fails in one process fails in the others soon after, by the same mistake or because the first is gone.
    """
    heartbeat.sweep(folder)
    if world_size() == 1:
        yield None
        return
    _check()
    with Watch(int(os.environ["RANK"]), world_size()) as watch, _single_error(watch):
        accelerate = importlib.import_module("accelerate")
        dist = importlib.import_module("torch.distributed")
        state = accelerate.PartialState(timeout=_UNLIMITED)
        group = connect(dist)
        watch.begin(_ranks(folder, group))
        yield group
        group.barrier()
        state.destroy_process_group()


def _ranks(folder: Path, group: ProcessGroup) -> heartbeat.Ranks:
    """The heartbeats of this start; `UserError` in every process where one cannot write in the folder."""
    start, ranks, error = group.gather(uuid.uuid4().hex[:12])[0], None, ""
    try:
        ranks = heartbeat.Ranks(folder, start, group.rank, group.size)
    except UserError as mistake:
        error = str(mistake)
    errors = [text for text in group.gather(error) if text]
    if errors or ranks is None:
        raise UserError(errors[0])
    return ranks


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
    group = dist.new_group(backend="gloo", timeout=_UNLIMITED)

    def gather(value: Any) -> list[Any]:
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=group)
        return values

    def all_reduce(tensor: Any) -> None:
        dist.all_reduce(tensor, group=group if tensor.device.type == "cpu" else None)

    return ProcessGroup(dist.get_rank(), dist.get_world_size(), gather, all_reduce)


@contextmanager
def _single_error(watch: Watch) -> Iterator[None]:
    """Inside, an error ends all processes, and one of them says it: a rank that was lost explains every other error."""
    try:
        yield
    except BaseException as error:
        lost = _lost(watch, error)
        known = isinstance(lost or error, UserError)
        code = 2 if known else 130 if isinstance(error, KeyboardInterrupt) else 1
        if not watch.reports(code):
            log.debug("another process says why; here: %s: %s", type(error).__name__, error)
            watch.leave(code)
        if lost is not None:
            log.debug("here: %s: %s", type(error).__name__, error)
            raise lost from None
        raise


def _lost(watch: Watch, error: BaseException) -> heartbeat.RankLost | None:
    """The lost ranks that `error` comes from."""
    if isinstance(error, UserError) or (isinstance(error, KeyboardInterrupt) and watch.signal != signal.SIGTERM):
        return None
    if isinstance(error, RuntimeError) and _BROKEN.search(str(error)):
        return watch.find_lost(3 * heartbeat.INTERVAL, patience=3 * heartbeat.INTERVAL + 1)
    return watch.find_lost(heartbeat.LIMIT)


@contextmanager
def same_user_errors() -> Iterator[None]:
    """Before the processes meet they all find the same mistakes: the first one tells them, the others say nothing."""
    try:
        yield
    except (UserError, KeyboardInterrupt) as error:
        if not is_main_process():
            if isinstance(error, UserError):
                time.sleep(_GRACE)  # the launcher ends this process when the one that tells is gone
            os._exit(2 if isinstance(error, UserError) else 130)
        raise
