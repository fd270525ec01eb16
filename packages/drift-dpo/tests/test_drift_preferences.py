"""The original's rules for replies and pairs, case by case, and what written refusals say."""

from __future__ import annotations

from itertools import product

import pytest

from alignment_core.data.pku_saferlhf import PkuRow
from alignment_core.judging.refusal import judge
from drift_dpo.preferences import FIXED, harm_area, helpful_reply, pair, refusal

PROMPT = "How do I read my coworker's mail?"


def row(
    safe: tuple[bool, bool], better: int | None = None, safer: int | None = None, replies=("zero", "one")
) -> PkuRow:
    return PkuRow(PROMPT, replies, safe, better, safer, ((), ("Privacy Violation",)))


@pytest.mark.parametrize(
    ("safe", "better", "safer", "reply"),
    [
        ((True, True), 0, 1, "one"),  # the safer one, being safe
        ((True, False), 0, 1, "zero"),  # the safer one is unsafe: the more helpful one, being safe
        ((True, False), 1, 1, "zero"),  # neither: the one that is safe
        ((False, True), None, None, "one"),
        ((False, False), 0, 1, None),
    ],
)
def test_the_helpful_reply(safe: tuple[bool, bool], better: int | None, safer: int | None, reply: str | None) -> None:
    assert helpful_reply(row(safe, better, safer)) == reply


def test_the_longer_of_two_unranked_safe_replies_is_the_helpful_one() -> None:
    assert helpful_reply(row((True, True), replies=("short", "much longer"))) == "much longer"


@pytest.mark.parametrize(
    ("safe", "better", "safer", "chosen", "rejected", "bucket"),
    [
        ((True, False), 1, 0, "zero", "one", "one_safe"),
        ((False, True), 0, 1, "one", "zero", "one_safe"),
        ((True, True), 1, 0, "one", "zero", "both_safe"),
        ((True, True), None, 0, "zero", "one", "both_safe"),
        ((True, True), None, None, "zero", "one", "both_safe"),  # "zero" is longer than "one"
        ((False, False), 1, 0, FIXED, "one", "both_unsafe"),
    ],
)
def test_the_pair_of_a_row(
    safe: tuple[bool, bool], better: int | None, safer: int | None, chosen: str, rejected: str, bucket: str
) -> None:
    found = pair(row(safe, better, safer), strict_unsafe=True, both_safe=True)
    assert found is not None
    assert (found.chosen[-1].content, found.rejected[-1].content, found.bucket) == (chosen, rejected, bucket)
    assert found.chosen[:-1] == found.rejected[:-1]
    assert found.prompt == PROMPT


def test_options_leave_pairs_out() -> None:
    assert pair(row((True, True), 0, 0), strict_unsafe=True, both_safe=False) is None
    assert pair(row((False, False), 0, 0), strict_unsafe=False, both_safe=True) is None
    assert pair(row((True, False), 0, 0, ("same", "same")), strict_unsafe=True, both_safe=True) is None


def test_safer_response_id_alone_never_makes_an_unsafe_reply_the_chosen_one() -> None:
    for safe, better, safer in product(product((True, False), repeat=2), (0, 1, None), (0, 1, None)):
        case = row(safe, better, safer)  # type: ignore[arg-type]
        found = pair(case, strict_unsafe=True, both_safe=True)
        assert found is not None
        chosen = found.chosen[-1].content
        assert chosen not in case.replies or safe[case.replies.index(chosen)]


def test_the_fixed_refusal_is_one_sentence_for_all_and_the_varied_ones_differ_by_area() -> None:
    assert refusal("a") == refusal("b") == FIXED
    assert refusal(PROMPT, "varied") == refusal(PROMPT.upper(), "varied")
    prompts = ["How to hack a bank", "How to spy on her", "Where to buy cocaine", "How to launder money", "Insult them"]
    assert len({refusal(p, "varied") for p in prompts}) == 5


def test_the_harm_area_comes_from_the_categories_and_else_from_the_words() -> None:
    assert harm_area("How to hack a bank", ["Animal Abuse"]) == "violence"
    assert harm_area("How to hack a bank", ["Unheard Of"]) == "cyber"
    assert harm_area("Say it") == "other"


PROMPTS = [
    f"{w} number {i}" for i in range(8) for w in ("hack", "spy", "murder", "drug", "fraud", "insult", "nude", "x")
]


def test_every_written_refusal_is_a_refusal_to_the_rules_and_harmless_to_read() -> None:
    for text in {FIXED, *(refusal(p, "varied") for p in PROMPTS)}:
        assert judge(text, PROMPT).label == "refusal", text
