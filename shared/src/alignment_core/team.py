"""The processes that share the work of a step, and how their shares become one.

A step that all processes work on sees them as its team; every other step, and a process on its own, is a team of one,
so that what the first process does by itself never waits for the others. Shares are whole batches of the full plan:
in bfloat16 a number depends on what it was batched with, and the plan is the same for any number of processes.

The means (torch.distributed, or threads in a test) are plugged in: this module needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from alignment_core.progress import each

T = TypeVar("T")
R = TypeVar("R")


def _alone(value: Any) -> list[Any]:
    return [value]


def _whole(_: Any) -> None:
    """The sum over one process."""


@dataclass(frozen=True)
class Team:
    """`world` processes of which this is number `rank`; every method but `first` is called by all or by none."""

    rank: int = 0
    world: int = 1
    gather: Callable[[Any], list[Any]] = _alone
    """Every process's value, in the order of the ranks; returns when all have given theirs."""
    add: Callable[[Any], None] = _whole
    """Make a tensor, in place, its sum over all processes."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process is here."""
        self.gather(None)

    def tell(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, in every process; it is called in no other, and sees no team."""
        with working(ALONE):
            made = make() if self.first else None
        told: T = self.gather(made)[0]
        return told

    def share(
        self,
        batches: Sequence[T],
        work: Callable[[T], R],
        what: str = "",
        unit: str = "batches",
        size: Callable[[T], int] = lambda _: 1,
    ) -> list[R]:
        """`work` of every batch, in order; each is done by one process, every `world`-th from `rank` on.

        `what` is how its progress is told, `size` how many of `unit` a batch counts.
        """
        if self.world > 1 and what:
            what += f" (one process of {self.world})"
        own = batches[self.rank :: self.world]
        mine = [work(batch) for batch in (each(own, what, unit, size) if what else own)]
        if self.world == 1:
            return mine
        shares = self.gather(mine)
        return [shares[i % self.world][i // self.world] for i in range(len(batches))]


ALONE = Team()
_here: ContextVar[Team] = ContextVar("team", default=ALONE)


def team() -> Team:
    """Those who work on the step in hand: all processes in a step that is done together, else this one alone."""
    return _here.get()


@contextmanager
def working(members: Team) -> Iterator[None]:
    """Inside, `team()` is `members`."""
    token = _here.set(members)
    try:
        yield
    finally:
        _here.reset(token)
