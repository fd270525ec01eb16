"""The processes that share the work of a step, and how their shares become one.

A step that all processes work on sees them as its process group; every other step, and a process on its own, is a
group of one, so that what rank 0 does by itself never waits for the others. Shares are whole batches of the full plan:
in bfloat16 a number depends on what it was batched with, and the plan is the same for any number of processes.

The communication (torch.distributed, or threads in a test) is passed in: this module needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from alignment_core.progress import each

T = TypeVar("T")
R = TypeVar("R")


def is_main_process() -> bool:
    """True in the process that writes: the only one, or torchrun's rank 0."""
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    """How many processes work on this run (torchrun's WORLD_SIZE, else 1)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _gather_one(value: Any) -> list[Any]:
    return [value]


def _reduce_one(_: Any) -> None:
    """The sum over one process."""


@dataclass(frozen=True)
class ProcessGroup:
    """`size` processes of which this is number `rank`; every method but `is_main` is called by all or by none."""

    rank: int = 0
    size: int = 1
    gather: Callable[[Any], list[Any]] = _gather_one
    """Every process's value, in the order of the ranks; returns when all have given theirs."""
    all_reduce: Callable[[Any], None] = _reduce_one
    """Make a tensor, in place, its sum over all processes."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the process that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Return when every process is here."""
        self.gather(None)

    def broadcast(self, make: Callable[[], T]) -> T:
        """What `make` gives in rank 0, in every process; it is called in no other, and sees a group of one."""
        with using(SINGLE):
            made = make() if self.is_main else None
        received: T = self.gather(made)[0]
        return received

    def map_batches(
        self,
        batches: Sequence[T],
        work: Callable[[T], R],
        what: str = "",
        unit: str = "batches",
        size: Callable[[T], int] = lambda _: 1,
    ) -> list[R]:
        """`work` of every batch, in order; each is done by one process, every `self.size`-th from `rank` on.

        `what` is how its progress is shown, `size` how many of `unit` a batch counts.
        """
        if self.size > 1 and what:
            what += f" (one process of {self.size})"
        own = batches[self.rank :: self.size]
        mine = [work(batch) for batch in (each(own, what, unit, size) if what else own)]
        if self.size == 1:
            return mine
        shards = self.gather(mine)
        return [shards[i % self.size][i // self.size] for i in range(len(batches))]


SINGLE = ProcessGroup()
_current: ContextVar[ProcessGroup] = ContextVar("process_group", default=SINGLE)


def process_group() -> ProcessGroup:
    """Those who work on the current step: all processes in a step that is done together, else this one alone."""
    return _current.get()


@contextmanager
def using(group: ProcessGroup) -> Iterator[None]:
    """Inside, `process_group()` is `group`."""
    token = _current.set(group)
    try:
        yield
    finally:
        _current.reset(token)
