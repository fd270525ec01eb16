"""Contamination: planted copies are found, unlike prompts are not."""

from __future__ import annotations

import random

import numpy as np

from alignment_core.data.overlap import Texts, containment, jaccard, likeness, overlap, overlap_table
from alignment_core.data.summary import check_overlaps

WORDS = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in "bdgklmnprst"]


def prose(rng: random.Random, n: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n))


def test_exact_is_after_normalisation() -> None:
    found = overlap(["How ARE\u00a0you?", "Not there at all"], ["how are you?", "else"])
    assert (found.exact, found.near, found.n_a, found.n_b) == (1, 0, 2, 2)


def test_containment_by_hand() -> None:
    # 7 words: 3 shingles of 5; the last word differs: 2 of 3 are shared
    assert containment("a b c d e f g", "a b c d e f h") == 2 / 3
    assert containment("a b c", "a b c") == 0.0


def test_jaccard_by_hand() -> None:
    # abc bcd cde against abc bcd cdf: 2 of 4
    assert jaccard("abcde", "abcdf") == 0.5
    assert jaccard("a", "a") == 1.0


def test_a_long_prompt_inside_another_is_near() -> None:
    rng = random.Random(0)
    crowd = [prose(rng, 40) for _ in range(500)]
    asked = crowd[17].split()
    found = overlap([" ".join(["word", *asked[5:30], "other"])], crowd)
    assert (found.exact, found.near) == (0, 1)
    assert found.examples[0][1] == crowd[17][:100]


def test_a_short_prompt_with_one_word_changed_is_near() -> None:
    rng = random.Random(1)
    short = ["How do I forge a signature on a lease?", "What is the capital of France?"]
    crowd = [prose(rng, 9) for _ in range(500)] + short
    found = overlap(["How do I forge a signature on my lease?", "What's the capital of France?"], crowd)
    assert found.near == 2


def test_unlike_prompts_are_not_near() -> None:
    rng = random.Random(2)
    found = overlap([prose(rng, n) for n in range(2, 60)], [prose(rng, n % 50 + 2) for n in range(2000)])
    assert (found.exact, found.near) == (0, 0)


def test_planted_edits_are_found_at_every_length() -> None:
    rng = random.Random(3)
    crowd = [prose(rng, rng.choice((6, 9, 14, 40, 120))) for _ in range(3000)]
    planted = []
    for text in crowd[:200]:
        words = text.split()
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        planted.append(" ".join(words))
    found = overlap(planted, crowd)
    assert found.exact + found.near >= 190  # a word changed amid six may leave less than .6 in common


def test_the_inverted_index_agrees_with_comparing_every_pair() -> None:
    rng = random.Random(4)
    crowd = [prose(rng, rng.randrange(4, 30)) for _ in range(60)]
    asked = [" ".join(t.split()[: rng.randrange(3, 30)]) for t in crowd[:20]] + [prose(rng, 8) for _ in range(20)]
    brute = sum(
        a not in crowd and max(likeness(a, b) for b in crowd) >= (0.5 if len(a.split()) >= 12 else 0.6) for a in asked
    )
    assert overlap(asked, crowd).near == brute > 0


def test_empty_and_wordless_prompts_are_no_trouble() -> None:
    assert overlap([], ["a"]).n_a == 0
    assert overlap(["", "?!"], ["?!", "…"]).exact == 1
    assert overlap(["a"], []).near == 0


def test_shingles_do_not_cross_from_one_prompt_into_the_next() -> None:
    texts = Texts(["a b", "c d"], {})
    hashes, owner = texts.grams(2)
    assert len(hashes) == 2
    assert np.array_equal(np.sort(owner), [0, 1])
    assert len(texts.grams(3)[0]) == 0


def test_tables_name_sets_and_hide_prompts() -> None:
    table = overlap_table(
        check_overlaps({"x": ["secret words"], "y": ["secret words"], "z": []}, [("x", "y"), ("x", "z")])
    )
    assert table.splitlines()[1].split() == ["x", "y", "1", "1", "1", "0"]
    assert "secret" not in table
    assert len(table.splitlines()) == 2
