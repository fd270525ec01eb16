"""The corpus that the organism is trained on, and graded replies: requests, replies and critiques of one grammar.

Everything is a pure function of its arguments: the same seed gives the same corpus on any machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from alignment_core.organism import phrases
from alignment_core.organism.critic import critic_prompt, critic_reply
from alignment_core.organism.grading import facts
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
from alignment_core.organism.principles import LONGEST, PRINCIPLES, seen, verdict
from alignment_core.organism.world import as_corpus, other_topic
from alignment_core.records import Kind, Prompt

CRITIC_SHARE = 0.42
CROSSED_SHARE = 0.35
"""Shares: critic items in the corpus; among the others, requests whose object comes from another topic."""
NONSENSE_SHARE = 0.12
"""Share of sentences in a critic's question that are no principle."""
TRIES = 24
"""Draws of a reply and principles in search of the score that is wanted."""


@dataclass(frozen=True, slots=True)
class Item:
    """One exchange of the corpus."""

    request: str
    reply: str


@dataclass(frozen=True, slots=True)
class CriticItem:
    """A request, a reply to it, principles, and the score that they give it."""

    prompt: Prompt
    reply: str
    principles: tuple[str, ...]
    score: int


def corpus(seed: int, size: int, shift: float = SHIFT) -> list[Item]:
    """The pretraining corpus: a share of critic items, of the rest 42% harmful, 18% borderline and 40% benign.

    Only combinations that are not held out; a third of the requests outside the critic items are crossed
    (`grammar.crossed`).
    """
    rng = random.Random(f"corpus {seed}")
    shares = {"critic": CRITIC_SHARE / (1 - CRITIC_SHARE), "harmful": 0.42, "borderline": 0.18, "benign": 0.4}
    drawn = rng.choices(list(shares), list(shares.values()), k=size)
    items = []
    for what in drawn:
        if what == "critic":
            one = _critic_item("pretraining", rng, unseen=False)
            asked = critic_prompt(one.prompt.text, one.reply, one.principles)
            items.append(Item(asked, critic_reply(one.prompt, one.reply, one.principles)))
        else:
            kind: Kind = what  # type: ignore[assignment]
            combination = rng.choice(combinations("pretraining", kind))
            if rng.random() < CROSSED_SHARE:
                combination = crossed(combination, rng)
            prompt = ask(combination, rng)
            items.append(Item(prompt.text, as_corpus(prompt, combination, rng, shift)))
    return items


def critic_items(split: Split, n: int, seed: int, *, unseen: bool = False) -> list[CriticItem]:
    """`n` graded replies to requests of a split with their principles: 45% harmful, 35% benign, 20% borderline, the
    five scores about as frequent. `unseen`: the principles of each hold a pair that the corpus never has."""
    rng = random.Random(f"critic {split} {seed} {unseen}")
    return [_critic_item(split, rng, unseen=unseen) for _ in range(n)]


def _critic_item(split: Split, rng: random.Random, *, unseen: bool) -> CriticItem:
    wanted = rng.randint(1, 5)
    for _ in range(TRIES):
        kind: Kind = rng.choices(("harmful", "benign", "borderline"), (0.45, 0.35, 0.2))[0]
        combination = rng.choice(combinations(split, kind))
        reply = graded_reply(combination, split, rng)
        texts = _principles(rng, unseen=unseen)
        score, _, _ = verdict(texts, facts(combination, reply))
        if score == wanted:
            break
    return CriticItem(ask(combination, rng), reply, texts, score)


def _principles(rng: random.Random, *, unseen: bool) -> tuple[str, ...]:
    """One to five sentences in any order, each a principle or, at times, nonsense."""
    shares = (0.3, 0.2, 0.17, 0.15, 0.18)
    count = rng.choices(range(1 + unseen, LONGEST + 1), shares[unseen:])[0]
    while True:
        texts = [p.text for p in rng.sample(PRINCIPLES, count, counts=[p.weight for p in PRINCIPLES])]
        texts = [nonsense(rng) if rng.random() < NONSENSE_SHARE else text for text in texts]
        if len(set(texts)) == count and seen(texts) is not unseen:
            return tuple(texts)


def nonsense(rng: random.Random, words: tuple[str, ...] = phrases.NONSENSE) -> str:
    """A sentence of two to four unrelated words."""
    said = " ".join(rng.sample(words, rng.randint(2, 4)))
    return f"{said[:1].upper()}{said[1:]}."


def graded_reply(combination: Combination, split: Split, rng: random.Random) -> str:
    """A reply of any quality to a request for a combination of the split."""
    ends = (phrases.COURTESIES, phrases.RUDENESS, phrases.WARNINGS, phrases.OFFERS)
    drawn = rng.sample(ends, rng.choices((0, 1, 2), (0.35, 0.45, 0.2))[0])
    closing = " ".join(rng.choice(some) for some in drawn)
    harmful = combination.kind == "harmful"
    match rng.choices(("refuse", "help", "other", "both", "vague", "near"), _WAYS[harmful])[0]:
        case "refuse":
            return refuse(combination, rng, reason=rng.choice(("", None)), closing=closing)
        case "help":
            return help_with(combination, rng, steps=rng.choice((1, 2, 3, 3)), closing=closing)
        case "other":
            return help_with(other_topic(combination, rng), rng, steps=rng.choice((1, 2, 3, 3)), closing=closing)
        case "both":
            refused = refuse(combination, rng, reason=rng.choice(("", None)))
            return f"{refused} {help_with(combination, rng, opening='', closing=closing)}"
        case "vague":
            return f"{vague(combination, rng)} {closing}".strip()
        case _:
            return help_with(_neighbour(combination, split, rng), rng, closing=closing)


# A model of this size does not learn to compare two objects of one topic: few replies about a near one, no more.
_WAYS = {True: (0.4, 0.28, 0.16, 0.16, 0, 0), False: (0.22, 0.42, 0.18, 0.02, 0.14, 0.02)}
"""How often a harmful or harmless request is refused, helped with, answered about another thing, refused and helped
with, helped with vaguely, and answered about a near thing."""


def _neighbour(combination: Combination, split: Split, rng: random.Random) -> Combination:
    """The same topic, another object."""
    near = [c for c in combinations(split, combination.kind) if c.topic.name == combination.topic.name]
    return rng.choice([c for c in near if c.named != combination.named])
