"""Work shared by a process group: who does what, in which order it comes back, and that one alone waits for nobody."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from alignment_core.config import TrainSettings
from alignment_core.errors import UserError
from alignment_core.models.sharding import Part, ShardedBatches, Sharding
from alignment_core.pipeline.process_group import SINGLE, ProcessGroup, process_group, using
from alignment_core.testing import in_threads, thread_group


def test_alone_is_a_group_of_one() -> None:
    assert process_group() is SINGLE
    assert SINGLE.map_batches([1, 2, 3], lambda n: n * n) == [1, 4, 9]
    assert SINGLE.broadcast(lambda: 7) == 7
    assert SINGLE.gather("x") == ["x"]
    tensor = torch.ones(2)
    SINGLE.all_reduce(tensor)
    assert tensor.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_batch_is_done_once_and_comes_back_in_order(world: int) -> None:
    done: list[tuple[int, int]] = []

    def work(member: ProcessGroup) -> list[int]:
        return member.map_batches(range(7), lambda n: (done.append((n, member.rank)), n * 10)[1])

    assert in_threads(world, work) == [[0, 10, 20, 30, 40, 50, 60]] * world
    assert sorted(done) == [(n, n % world) for n in range(7)]


def test_the_first_makes_alone_what_all_get() -> None:
    asked: list[int] = []

    def make() -> int:
        asked.append(process_group().size)
        return 5

    assert in_threads(3, lambda member: member.broadcast(make)) == [5, 5, 5]
    assert asked == [1]


def test_sums_are_the_same_in_every_process() -> None:
    def work(member: ProcessGroup) -> list[float]:
        tensor = torch.tensor([1.0, 10.0]) * (member.rank + 1)
        member.all_reduce(tensor)
        return list(tensor.tolist())

    assert in_threads(3, work) == [[6.0, 60.0]] * 3


def test_a_group_is_seen_inside_alone_and_in_no_other_thread() -> None:
    member = thread_group(2)[1]
    seen: list[int] = []
    with using(member):
        assert process_group() is member
        thread = threading.Thread(target=lambda: seen.append(process_group().size))
        thread.start()
        thread.join()
    assert process_group() is SINGLE
    assert seen == [1]


# Training: the rows of each step

TRAIN = TrainSettings(batch_size=4, accumulate=2)


def test_a_deal_by_hand() -> None:
    # Six rows in micro-batches of 4 and 2, two processes: a micro-batch each, half of the step's mean each.
    assert Sharding.of(TRAIN, 2).step([[5, 1, 4, 2], [0, 3]]) == [
        [Part((5, 1, 4, 2), 0.5, False), Part((0, 3), 0.5, False)]
    ]
    # Three processes: gcd(2, 3) = 1, each micro-batch in three pieces; the second has a gap, filled with a row of the
    # step that weighs nothing.
    assert Sharding.of(TRAIN, 3).step([[5, 1, 4, 2], [0, 3]]) == [
        [Part((5,), 0.125, False), Part((1,), 0.125, False), Part((4, 2), 0.25, False)],
        [Part((5,), 0.0, False), Part((0,), 0.25, False), Part((3,), 0.25, False)],
    ]


@pytest.mark.parametrize("accumulate", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 4, 5, 23, 24])
def test_every_step_has_one_processs_rows_and_weights(accumulate: int, processes: int, count: int) -> None:
    sharding = Sharding.of(TrainSettings(batch_size=4, accumulate=accumulate), processes)
    rows = list(range(count))
    micro = [rows[k : k + 4] for k in range(0, count, 4)]
    rounds = [
        parts
        for start in range(0, len(micro), accumulate)
        for parts in sharding.step(micro[start : start + accumulate])
    ]
    samplers = [ShardedBatches(micro, sharding, rank) for rank in range(processes)]
    assert all(len(sampler) == len(rounds) for sampler in samplers)
    with ThreadPoolExecutor(1) as pool:
        for rank, sampler in enumerate(samplers):
            assert list(pool.submit(list, sampler).result()) == [
                [(row, parts[rank]) for row in parts[rank].rows] for parts in rounds
            ]
    assert all(len(part.rows) <= sharding.size for parts in rounds for part in parts)
    # In the order of rounds and ranks the rows that weigh something are one process's rows, each once.
    assert [row for parts in rounds for part in parts if part.weight for row in part.rows] == rows
    first = [part for parts in rounds[: sharding.rounds] for part in parts]
    assert sum(part.weight for part in first) == pytest.approx(1)
    # A row's weight is what it has in the mean over micro-batches of the means over their rows.
    whole = min(accumulate, len(micro))
    for part in (part for part in first if part.weight):
        size = len(next(m for m in micro if part.rows[0] in m))
        assert part.weight / len(part.rows) == pytest.approx(1 / (whole * size))


def test_more_processes_than_rows_of_a_step_are_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size=4 and train.accumulate=1 cannot be shared by 5 processes"):
        Sharding.of(TrainSettings(batch_size=4, accumulate=1), 5)
