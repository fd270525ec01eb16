"""Process groups whose processes are threads of the test."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from alignment_core.pipeline.process_group import ProcessGroup, using

T = TypeVar("T")


def thread_group(size: int) -> list[ProcessGroup]:
    """A process group of threads, one each; values travel as pickles, as between processes."""
    barrier, given = threading.Barrier(size, timeout=60), [b""] * size

    def member(rank: int) -> ProcessGroup:
        def gather(value: Any) -> list[Any]:
            given[rank] = pickle.dumps(value)
            barrier.wait()
            values = [pickle.loads(one) for one in given]
            barrier.wait()  # no one gives the next value before all have read this one
            return values

        def all_reduce(tensor: Any) -> None:
            tensor.copy_(sum(gather(tensor)))

        return ProcessGroup(rank, size, gather, all_reduce)

    return [member(rank) for rank in range(size)]


def in_threads(size: int, work: Callable[[ProcessGroup], T]) -> list[T]:
    """What `work` gives in each of `size` threads that are a process group; the first error is raised."""

    def of(member: ProcessGroup) -> T:
        with using(member):
            return work(member)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(of, thread_group(size)))
