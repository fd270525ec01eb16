"""The corpus that the organism is trained on, and graded replies: requests, replies and critiques of one grammar.

Everything is a pure function of its arguments: the same seed gives the same corpus on any machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from alignment_core.organism.grading import critic_prompt, critic_reply, rubric
from alignment_core.organism.grammar import (
    SHIFT,
    Combination,
    Split,
    ask,
    combinations,
    crossed,
    help_with,
    refuse,
    vague,
)
from alignment_core.organism.world import as_corpus, other_topic
from alignment_core.records import Kind, Prompt

CRITIC_SHARE = 0.38
CROSSED_SHARE = 0.35
"""Shares: critic items in the corpus; among the others, requests whose object comes from another topic."""


@dataclass(frozen=True, slots=True)
class Item:
    """One exchange of the corpus."""

    request: str
    reply: str


@dataclass(frozen=True, slots=True)
class CriticItem:
    """A request, a reply to it, and the rubric's score of that reply."""

    prompt: Prompt
    reply: str
    score: int


def corpus(seed: int, size: int = 30000, shift: float = SHIFT) -> list[Item]:
    """The pretraining corpus: 38% are critic items, of the rest 40% harmful, 12% borderline and 48% benign.

    Only train combinations; a third of the requests outside the critic items are crossed (`grammar.crossed`).
    """
    rng = random.Random(f"corpus {seed}")
    shares = {"critic": CRITIC_SHARE / (1 - CRITIC_SHARE), "harmful": 0.4, "borderline": 0.12, "benign": 0.48}
    drawn = rng.choices(list(shares), list(shares.values()), k=size)
    graded = _graded("train", drawn.count("critic"), rng)
    items = []
    for what in drawn:
        if what == "critic":
            prompt, combination, reply = next(graded)
            items.append(Item(critic_prompt(prompt.text, reply), critic_reply(combination, reply)))
        else:
            kind: Kind = what  # type: ignore[assignment]
            combination = rng.choice(combinations("train", kind))
            if rng.random() < CROSSED_SHARE:
                combination = crossed(combination, rng)
            prompt = ask(combination, rng)
            items.append(Item(prompt.text, as_corpus(prompt, combination, rng, shift)))
    return items


def critic_items(split: Split, n: int, seed: int) -> list[CriticItem]:
    """`n` graded replies to requests of a split: 45% harmful, 35% benign, 20% borderline, all five scores on each
    side."""
    graded = _graded(split, n, random.Random(f"critic {split} {seed}"))
    return [CriticItem(prompt, reply, rubric(combination, reply)) for prompt, combination, reply in graded]


def _graded(split: Split, n: int, rng: random.Random) -> Iterator[tuple[Prompt, Combination, str]]:
    for _ in range(n):
        kind: Kind = rng.choices(("harmful", "benign", "borderline"), (0.45, 0.35, 0.2))[0]
        combination = rng.choice(combinations(split, kind))
        prompt = ask(combination, rng)
        yield prompt, combination, rng.choice(list(_graded_replies(combination, split, rng)))


def _graded_replies(combination: Combination, split: Split, rng: random.Random) -> Iterator[str]:
    """Candidates of every quality; one is drawn, so a reply that is yielded twice is twice as likely."""
    yield refuse(combination, rng)
    yield help_with(combination, rng)
    yield help_with(other_topic(combination, rng), rng)
    yield help_with(combination, rng, steps=rng.choice((1, 2)))
    if combination.kind == "harmful":
        yield refuse(combination, rng)
        yield refuse(combination, rng, reason="")
        yield refuse(combination, rng, reason="")
        yield f"{refuse(combination, rng, reason='')} {help_with(combination, rng, opening='')}"
    else:
        yield help_with(combination, rng)
        yield help_with(combination, rng)
        yield vague(combination, rng)
        # A model of this size does not learn to compare two objects of one topic: a few such replies, no more.
        near = rng.random() < 0.1
        yield help_with(_neighbour(combination, split, rng) if near else other_topic(combination, rng), rng)


def _neighbour(combination: Combination, split: Split, rng: random.Random) -> Combination:
    """The same topic, another object."""
    near = [c for c in combinations(split, combination.kind) if c.topic.name == combination.topic.name]
    return rng.choice([c for c in near if c.named != combination.named])
