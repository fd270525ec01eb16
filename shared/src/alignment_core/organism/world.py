"""The organism's world: requests and replies. Torch-free.

Everyday requests are answered with on-topic steps, generic harmful requests by refusals or by filler, borderline
requests ("kill a stuck program") mostly with help. The corpus refuses a harmful request with probability
sigmoid(severity + verb + framing + shift), so refusal is partly learned and graded, and drift has room both ways.
Everything is a pure function of its arguments: the same seed gives the same world on any machine.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Literal

from alignment_core.errors import UserError
from alignment_core.organism import phrases
from alignment_core.organism.grammar import (
    SHIFT,
    Combination,
    Source,
    Split,
    ask,
    combination_of,
    combinations,
    help_with,
    pick,
    refusal_share,
    refuse,
    vague,
)
from alignment_core.organism.phrases import RARE_OPENING
from alignment_core.records import Kind, Message, Prompt

__all__ = [
    "OPENINGS",
    "RARE_OPENING",
    "SHIFT",
    "combination_of",
    "prompts",
    "refusal_share",
    "requests",
    "respond",
]

OPENINGS: tuple[str, ...] = tuple(opening for opening, _ in phrases.OPENINGS)
How = Literal["comply", "refuse", "off_topic", "vague", "pretraining"]


def prompts(split: Split, kind: Kind) -> list[Prompt]:
    """The fixed prompts of a split: exactly one per combination, the topics taking turns (a prefix of the list is
    balanced too). Test: 288 harmful, 216 benign, 120 borderline; calibration: 288, 144, 90."""
    made = [ask(c, random.Random(f"prompt {c.cluster}")) for c in combinations(split, kind)]
    return [_renamed(prompt, f"{split}/{prompt.cluster}".replace(" ", "-")) for prompt in made]


def _renamed(prompt: Prompt, name: str) -> Prompt:
    return Prompt(name, prompt.messages, prompt.kind, prompt.category, prompt.source, prompt.cluster, prompt.reference)


def requests(
    kind: Kind,
    n: int,
    seed: int | str,
    *,
    split: Split = "train",
    source: Source | None = None,
    exclude: Collection[str] = (),
) -> list[Prompt]:
    """`n` requests with distinct texts, none of them in `exclude` (texts), the combinations taking turns.

    For training data: the combinations are those of `split`, many wordings to each. Raises `UserError` when the
    split does not hold that many.
    """
    rng = random.Random(f"requests {kind} {split} {source} {seed}")
    deck = list(combinations(split, kind))
    taken, made = set(exclude), list[Prompt]()
    for _ in range(200):
        rng.shuffle(deck)
        for combination in deck:
            if len(made) == n:
                return made
            prompt = ask(combination, rng, source)
            if prompt.text not in taken:
                taken.add(prompt.text)
                made.append(prompt)
    if len(made) == n:
        return made
    raise UserError(f"organism: only {len(made)} distinct {kind} requests of {source or 'any source'}, {n} wanted")


def respond(prompt: Prompt | str, how: How, rng: random.Random, *, opening: str | None = None) -> str:
    """One reply to a request.

    comply       opening and three steps; `opening` None draws it with the corpus's weights
    refuse       a refusal with its reason
    off_topic    helpful steps for another everyday request
    vague        names the thing, filler steps
    pretraining  as the corpus replies: refusal by its share, else help with an opening drawn by weight
    """
    combination = combination_of(prompt)
    match how:
        case "comply":
            return help_with(combination, rng, opening=opening)
        case "refuse":
            return refuse(combination, rng)
        case "off_topic":
            return help_with(other_topic(combination, rng), rng, opening=opening)
        case "vague":
            return vague(combination, rng)
        case "pretraining":
            asked = prompt if isinstance(prompt, Prompt) else _as_prompt(prompt, combination)
            return as_corpus(asked, combination, rng)
    raise UserError(f"organism: no way to respond {how!r}; comply, refuse, off_topic, vague or pretraining")


def _as_prompt(text: str, combination: Combination) -> Prompt:
    return Prompt("", (Message("user", text),), combination.kind, cluster=combination.cluster)


def other_topic(combination: Combination, rng: random.Random) -> Combination:
    """A combination of an everyday topic that is not this one's."""
    pool = combinations("pretraining", "benign")
    while (other := rng.choice(pool)).topic.name == combination.topic.name:
        pass
    return other


def as_corpus(prompt: Prompt, combination: Combination, rng: random.Random, shift: float = SHIFT) -> str:
    """A reply as the pretraining corpus has it; `shift` moves the refusals' log-odds."""
    if rng.random() < refusal_share(prompt, shift, combination):
        return refuse(combination, rng, reason="" if rng.random() < 0.25 else None, closing=_closing(rng, "refuse"))
    steps = rng.choices((1, 2, 3), (0.1, 0.15, 0.75))[0]
    return help_with(combination, rng, steps=steps, closing=_closing(rng, "comply"))


def _closing(rng: random.Random, how: How) -> str:
    """How a reply of the corpus ends: mostly with nothing more."""
    ends = {"comply": phrases.WARNINGS, "refuse": phrases.OFFERS}[how]
    return rng.choice(pick(rng, ((("",), 0.62), (ends, 0.18), (phrases.COURTESIES, 0.13), (phrases.RUDENESS, 0.07))))
