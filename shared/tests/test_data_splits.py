"""ShardedTrainer prompts: once, by quota, whatever the order of the rows; shortages shared, never silent."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment_core.data.sources import Turn
from alignment_core.data.splits import (
    Quota,
    Splitter,
    apportion,
    group,
    shared_prompts,
    shortfall_table,
    shuffled,
    three_way,
)


def turns(n: int, source: str = "s") -> list[Turn]:
    return [Turn(f"prompt {i}", f"reply {i}", source) for i in range(n)]


def test_three_way_is_ninety_five_five_with_at_least_one() -> None:
    assert three_way(10_000) == (9000, 500, 500)
    assert three_way(10) == (8, 1, 1)
    assert three_way(3) == (1, 1, 1)
    assert three_way(2) == (2, 0, 0)


def test_apportion_gives_what_is_wanted_where_there_is_enough() -> None:
    assert apportion([3, 2], 9, [True, True]) == [3, 2]


def test_apportion_shares_a_shortage_in_proportion() -> None:
    # 60 for 90 + 30: 45 and 15
    assert apportion([90, 30], 60, [True, True]) == [45, 15]
    # a part that keeps gets one even where its share is below a half: 1, then 4 of 5 to the large one, 0 to the other
    assert apportion([1000, 1, 1], 5, [True, True, False]) == [4, 1, 0]
    assert apportion([5, 5, 5], 2, [True, True, True]) == [1, 1, 0]


@given(
    wanted=st.lists(st.integers(0, 50), min_size=1, max_size=6),
    available=st.integers(0, 100),
    bits=st.integers(0, 63),
)
def test_apportion_never_deals_more_than_there_is_or_is_wanted(wanted: list[int], available: int, bits: int) -> None:
    keep = [bool(bits >> i & 1) for i in range(len(wanted))]
    most = [w - (bits >> i & 1) for i, w in enumerate(wanted)]
    found = apportion(wanted, available, keep, [max(0, m) for m in most])
    limits = [min(w, max(0, m)) for w, m in zip(wanted, most, strict=True)]
    assert sum(found) == min(sum(limits), available)
    assert all(0 <= f <= limit for f, limit in zip(found, limits, strict=True))


def test_a_shuffle_depends_on_seed_and_text_alone() -> None:
    items = turns(50)
    again = items[:]
    random.Random(1).shuffle(again)
    assert shuffled(items, 3) == shuffled(again, 3) != shuffled(items, 4)


def test_a_group_holds_all_that_share_a_prompt_or_a_cluster() -> None:
    items = [
        Turn("A b", "1", "s"),
        Turn("a  B", "2", "s"),
        Turn("x", "3", "s", cluster="k"),
        Turn("y", "4", "s", "", "k"),
    ]
    items.append(Turn("Y", "5", "s"))
    groups = sorted(group(items).values(), key=len)
    assert [sorted(t.reply for t in g) for g in groups] == [["1", "2"], ["3", "4", "5"]]


QUOTAS = [Quota("test", 3, first=True), Quota("val", 2), Quota("train", 5, keep=True)]


def test_quotas_are_met_in_order_and_what_is_left_is_counted() -> None:
    splitter = Splitter(0)
    dealt = splitter.split("s", turns(12), QUOTAS)
    assert {part: len(groups) for part, groups in dealt.items()} == {"test": 3, "val": 2, "train": 5}
    assert splitter.drops["s"].unused == 2
    assert not any(s.short for s in splitter.shortfalls)


def test_the_deal_does_not_depend_on_the_order_of_the_rows() -> None:
    items = turns(40) + [Turn(f"Prompt  {i}", "other", "s") for i in range(9)]
    again = items[:]
    random.Random(5).shuffle(again)
    assert Splitter(7).split("s", items, QUOTAS) == Splitter(7).split("s", again, QUOTAS)
    assert Splitter(7).split("s", items, QUOTAS) != Splitter(8).split("s", items, QUOTAS)


def test_a_shortage_is_on_record() -> None:
    splitter = Splitter(0)
    splitter.split("s", turns(6), QUOTAS)
    assert {s.part: (s.wanted, s.got) for s in splitter.shortfalls} == {"test": (3, 3), "val": (2, 1), "train": (5, 2)}
    assert "train" in shortfall_table(splitter.shortfalls)


def test_duplicates_are_counted_once_and_not_dealt_twice() -> None:
    splitter = Splitter(0)
    dealt = splitter.split("s", turns(5) + turns(5), QUOTAS)
    assert splitter.drops["s"].duplicates == 5
    assert sum(len(g) for groups in dealt.values() for g in groups) == 5


def test_a_prompt_of_an_earlier_source_or_of_the_evaluation_file_is_not_dealt_again() -> None:
    splitter = Splitter(0)
    splitter.reserve([Turn("PROMPT 0", "", "file")], "eval")
    first = splitter.split("s", turns(4), [Quota("a", 9)])
    second = splitter.split("t", turns(6, "t"), [Quota("b", 9)])
    assert len(first["a"]) == 3
    assert len(second["b"]) == 2
    assert splitter.drops["t"].elsewhere == 4


def test_a_prompt_that_was_dealt_under_another_cluster_is_not_dealt_again() -> None:
    splitter = Splitter(0)
    splitter.split("s", [Turn("x", "1", "s", cluster="k")], [Quota("a", 1)])
    assert splitter.split("t", [Turn("X", "2", "t")], [Quota("b", 1)]) == {"b": []}


def test_the_held_out_set_leaves_something_to_train_on() -> None:
    quotas = [Quota("test", 100, first=True, most=0.2), Quota("train", 100, keep=True)]
    for n, expected in ((8, (1, 7)), (50, (10, 40)), (1, (0, 1))):
        dealt = Splitter(0).split("s", turns(n), quotas)
        assert (len(dealt["test"]), len(dealt["train"])) == expected


def test_a_part_takes_only_what_it_can_use() -> None:
    usable = [Quota("pairs", 4, takes=lambda g: g[0].reply.endswith("1")), Quota("rest", 30)]
    dealt = Splitter(0).split("s", turns(22), usable)
    assert sorted(g[0].reply for g in dealt["pairs"]) == ["reply 1", "reply 11", "reply 21"]
    assert len(dealt["rest"]) == 19


@settings(deadline=None)
@given(
    words=st.lists(st.sampled_from("abcdefghij"), max_size=40),
    sizes=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    seed=st.integers(0, 9),
)
def test_no_prompt_is_ever_in_two_parts(words: list[str], sizes: list[int], seed: int) -> None:
    items = [Turn(w if i % 2 else w.upper(), str(i % 3), "s", cluster=f"c{ord(w) // 2}") for i, w in enumerate(words)]
    quotas = [Quota(name, n, first=not i, keep=i > 1) for i, (name, n) in enumerate(zip("wxyz", sizes, strict=True))]
    splitter = Splitter(seed)
    dealt = splitter.split("s", items, quotas)
    flat = {part: [t for g in groups for t in g] for part, groups in dealt.items()}
    assert shared_prompts(flat) == []
    clusters = [{t.cluster for t in those} for those in flat.values()]
    assert sum(map(len, clusters)) == len(set().union(*clusters))
    drops = splitter.drops["s"]
    assert len(items) == sum(map(len, flat.values())) + drops.duplicates + drops.elsewhere + drops.unused


def test_shared_prompts_finds_a_prompt_that_is_in_two_parts() -> None:
    assert shared_prompts({"a": [Turn("X", "", "s")], "b": [Turn(" x", "", "s"), Turn("y", "", "s")]})[0][1:] == (
        "a",
        "b",
    )


def test_items_that_cannot_be_told_apart_say_so() -> None:
    class Odd(list[int]):
        prompt = cluster = "x"

    with pytest.raises(TypeError, match="give `same`"):
        Splitter(0).split("s", [Odd()], [Quota("a", 1)])


def test_the_room_needs_no_torch() -> None:
    code = "import sys, alignment_core.data.splits, alignment_core.data.summary; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
