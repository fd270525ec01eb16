"""Every policy from hand-made scores to rows that can be trained on; the control that knows no score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_core.errors import UserError
from alignment_core.judging.critique import Critique
from alignment_core.records import Completion
from mini_cai import selection
from mini_cai.config import SelectionSettings
from mini_cai.rows import examples
from mini_cai.scored import Scored
from mini_cai.selection import kept, matched_random, select, sft_rows, split

SETTINGS = SelectionSettings()


def scored(prompt: str, *scores: Any, tokens: tuple[int, ...] = ()) -> list[Scored]:
    """Candidates of one prompt with these scores; each is a whole number, an (expected, score) pair, or None."""
    out = []
    for number, given_score in enumerate(scores):
        expected, score = given_score if isinstance(given_score, tuple) else (None, given_score)
        length = tokens[number] if tokens else 10 + number
        reply = Completion(prompt, "candidates", f"{prompt} reply {number}", f"{prompt}?", "benign", cluster=prompt,
                           candidate=number, tokens=length)  # fmt: skip
        out.append(Scored(reply, Critique(prompt, number, score, expected=expected, reason=f"r{number}")))
    return out


def numbers(found: selection.Selected, role: str | None = None) -> list[tuple[str, int]]:
    return [(r.id, r.number) for r in found.rows if role in (None, r.role)]


def test_best_takes_each_prompts_highest_and_the_earlier_of_equals() -> None:
    pool = [*scored("a", 3, 5, 5), *scored("b", 2), *scored("c", None, None), *scored("d", None, 1)]
    assert numbers(select("best", pool, SETTINGS)) == [("a", 1), ("b", 0), ("d", 1)]


def test_expected_scores_break_ties_between_equal_scores() -> None:
    assert numbers(select("best", scored("a", (4.6, 5), (4.9, 5)), SETTINGS)) == [("a", 1)]


def test_margin_needs_a_gap_and_two_scores() -> None:
    # 5-3 = 2 is wide enough, 5-4 is not, one score has no gap; a missing score is no score of 1.
    pool = [*scored("a", 3, 5), *scored("b", 4, 5), *scored("c", 5), *scored("d", 5, None)]
    found = select("margin", pool, SETTINGS)
    assert numbers(found, "best") == [("a", 1)]
    assert numbers(found, "worst") == [("a", 0)]
    assert [(p.chosen[-1].content, p.rejected[-1].content) for p in found.pairs] == [("a reply 1", "a reply 0")]
    assert found.pairs[0].chosen[0].content == "a?"


def test_diverse_takes_both_ends_and_no_candidate_twice() -> None:
    found = select("diverse", [*scored("a", 2, 5, 3), *scored("b", 4)], SETTINGS)
    assert numbers(found, "best") == [("a", 1), ("b", 0)]
    assert numbers(found, "worst") == [("a", 0)]
    wide = SETTINGS.model_copy(update={"top_k": 2, "bottom_k": 5})
    assert numbers(select("diverse", scored("a", 2, 5, 3), wide)) == [("a", 1), ("a", 2), ("a", 0)]


def test_no_pair_of_equals() -> None:
    assert select("diverse", scored("a", 4, 4), SETTINGS).pairs == ()


@pytest.mark.parametrize(("include", "roles"), [("both", {"best", "worst"}), ("best", {"best"}), ("worst", {"worst"})])
def test_include_keeps_a_side(include: Any, roles: set[str]) -> None:
    found = select("margin", scored("a", 1, 5), SETTINGS).included(include)
    assert {r.role for r in found.rows} == roles


@pytest.mark.parametrize("policy", ["best", "margin", "diverse"])
def test_every_policy_gives_rows_that_can_be_trained_on(policy: Any) -> None:
    # Upstream: diverse crashed (KeyError 'prompt') and margin gave 0 rows, for the nested file was saved.
    rows = kept(select(policy, [*scored("a", 1, 5), *scored("b", 2, 4)], SETTINGS).rows, 4)
    assert [(r.id, r.score) for r in rows] == [("a", 5), ("b", 4)]
    made = sft_rows(rows)
    assert made[0] == {"instruction": "a?", "output": "a reply 1", "meta": {"score": 5, "reason": "r1"}}
    # Upstream: the candidate held the prompt, so the target repeated the question.
    assert all(m["instruction"] not in m["output"] for m in made)
    assert [e.reply for e in examples(rows)] == ["a reply 1", "b reply 1"]


def test_contradictions_are_left_out_by_every_policy() -> None:
    # Upstream: the filter was never applied to best and margin.
    pool = scored("a", 5, 4, 1)
    bad = Scored(pool[0].reply, Critique("a", 0, 5, reason="This is unsafe."))
    for policy in ("best", "margin", "diverse"):
        found = select(policy, [bad, *pool[1:]], SETTINGS)  # type: ignore[arg-type]
        assert ("a", 0) not in numbers(found)
        loose = SETTINGS.model_copy(update={"drop_contradictions": False})
        assert ("a", 0) in numbers(select(policy, [bad, *pool[1:]], loose))  # type: ignore[arg-type]


def test_empty_replies_are_never_selected() -> None:
    (one,) = scored("a", 5)
    blank = Scored(Completion("a", "s", "  ", "a?", "benign"), one.critique)
    assert select("best", [blank], SETTINGS).rows == ()


def test_what_a_server_failed_to_write_is_never_trained_on() -> None:
    pool = scored("a", 5, 4, tokens=(10, 10))
    lost = Scored(replace(pool[0].reply, failure="HTTP 400: refused"), pool[0].critique)
    for policy in ("best", "margin", "diverse"):
        assert ("a", 0) not in numbers(select(policy, [lost, pool[1]], SETTINGS))  # type: ignore[arg-type]
    wanted = list(select("best", pool, SETTINGS).rows)
    assert {r.number for seed in range(20) for r in matched_random(wanted, [lost, pool[1]], seed)} == {1}


def pool_of(prompts: int) -> list[Scored]:
    """Four candidates a prompt: the best is long in even prompts and short in odd ones."""
    return [
        s
        for i in range(prompts)
        for s in scored(f"p{i}", 5, 2, 3, 1, tokens=(40, 20, 30, 10) if i % 2 else (12, 34, 25, 40))
    ]


def test_random_is_matched_on_prompts_rows_and_tokens() -> None:
    pool = pool_of(200)
    wanted = list(select("best", pool, SETTINGS).rows)
    found = matched_random(wanted, pool, 13)
    assert [r.id for r in found] == [r.id for r in wanted]
    total = sum(r.tokens for r in wanted)
    assert abs(sum(r.tokens for r in found) - total) <= 0.01 * total
    assert found == matched_random(wanted, pool, 13)
    assert found != matched_random(wanted, pool, 14)
    # Blind to scores: about a quarter are the best ones by chance, not all.
    assert 0.1 < sum(r.score == 5 for r in found) / len(found) < 0.5


def test_random_does_not_look_at_scores() -> None:
    pool = pool_of(30)
    wanted = list(select("best", pool, SETTINGS).rows)
    shuffled = [Scored(s.reply, Critique(s.reply.prompt_id, s.reply.candidate, None)) for s in pool]
    texts = [[r.candidate for r in matched_random(wanted, p, 1)] for p in (pool, shuffled)]
    assert texts[0] == texts[1]


def test_several_rows_of_a_prompt_get_different_random_candidates() -> None:
    pool = pool_of(10)
    settings = SETTINGS.model_copy(update={"top_k": 3, "min_score": 2})
    wanted = kept(select("diverse", pool, settings).rows, 2)
    found = matched_random(wanted, pool, 1)
    assert sorted(r.id for r in found) == sorted(r.id for r in wanted)
    assert len({(r.id, r.number) for r in found}) == len(found)


def test_the_split_keeps_a_prompts_rows_together_and_leaves_something_to_train() -> None:
    rows = list(select("diverse", pool_of(10), SETTINGS).rows)
    train, val = split(rows, 0.2, 1337)
    assert len({r.id for r in val}) == 2
    assert not {r.id for r in val} & {r.id for r in train}
    assert len(train) + len(val) == len(rows)
    assert split(rows, 0.0, 1)[1] == []
    assert split(rows, 0.01, 1)[1] != []  # the original's floor of one
    with pytest.raises(UserError, match="too few to train on"):
        split(rows[:2], 0.2, 1)


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=1, max_size=5), min_size=1, max_size=8))
def test_whatever_the_scores_rows_have_one_and_come_from_the_pool(table: list[list[int | None]]) -> None:
    pool = [s for i, row in enumerate(table) for s in scored(f"p{i}", *row)]
    texts = {s.reply.text for s in pool}
    for policy in ("best", "margin", "diverse"):
        found = select(policy, pool, SETTINGS)  # type: ignore[arg-type]
        assert all(r.score is not None and r.candidate in texts for r in found.rows)
        assert len({(r.id, r.number) for r in found.rows}) == len(found.rows)
    best = select("best", pool, SETTINGS)
    assert [r.score for r in best.rows] == [max(s for s in row if s) for row in table if any(row)]
