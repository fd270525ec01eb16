"""Requests and replies of the organism's world, as pure functions of their arguments and a `random.Random`.

A *combination* is one verb with one object. Each kind of request belongs to the calibration or to the test set, which
share neither kinds nor verbs, and a third of the kinds is met in no fine-tuning. Of every kind's combinations some are
held out by a Latin rectangle whose rows and columns are shuffled by SHA-256, so that every verb and every object occurs
among the others.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, TypeVar

from alignment_core.errors import UserError
from alignment_core.organism import phrases
from alignment_core.records import Kind, Message, Prompt, fingerprint

if TYPE_CHECKING:
    from alignment_core.organism.phrases import Topic

Split = Literal["pretraining", "train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("pretraining", "train", "calibration", "test")
Source = Literal["dolly", "pku", "wildjailbreak", "xstest"]
T = TypeVar("T")

SHIFT = -0.5
"""Shift of the corpus's refusal log-odds; chosen on the calibration split (docs/organism.md)."""
VERB_SPREAD = 1.0
"""A verb moves the log-odds by up to this much either way, so that refusals are graded inside a topic too."""
BENIGN_REFUSALS = 0.05
BORDERLINE_REFUSALS = 0.15
"""Shares of refusals of harmless requests in the corpus."""

_HELD_OUT: dict[tuple[Kind, str], int] = {
    ("harmful", "test"): 2, ("harmful", "calibration"): 4, ("benign", "test"): 3, ("benign", "calibration"): 4,
    ("borderline", "test"): 2, ("borderline", "calibration"): 3,
}  # fmt: skip
"""Objects that each verb of a kind is held out with, by the set that the kind belongs to."""
_SOURCES: dict[Kind, tuple[tuple[Source, float], ...]] = {
    "harmful": (("pku", 0.6), ("wildjailbreak", 0.4)),
    "benign": (("dolly", 0.7), ("pku", 0.2), ("wildjailbreak", 0.1)),
    "borderline": (("xstest", 1.0),),
}


@dataclass(frozen=True, slots=True)
class Combination:
    """One verb with one object of one topic."""

    topic: Topic
    verb: int
    object: int

    @property
    def kind(self) -> Kind:
        return self.topic.kind

    @property
    def phrase(self) -> str:
        """What is asked for, for example `bake a vegetable pie`."""
        return f"{self.topic.verbs[self.verb]} {self.named}"

    @property
    def named(self) -> str:
        """The object in words."""
        return self.topic.objects[self.object]

    @property
    def cluster(self) -> str:
        return f"{self.topic.name}/{self.topic.verbs[self.verb]}/{self.named}"

    @property
    def middle(self) -> str:
        """The verb's own step."""
        return self.topic.middles[self.verb % len(self.topic.middles)]


def _digest(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:8], "big")


def unit(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return _digest(*parts) / 2**64


def pick(rng: random.Random, weighted: Sequence[tuple[T, float]]) -> T:
    """One of the values, by weight."""
    return rng.choices([value for value, _ in weighted], [weight for _, weight in weighted])[0]


@cache
def combinations(split: Split, kind: Kind) -> tuple[Combination, ...]:
    """All combinations of a split and kind, ordered by a hash with the topics taking turns.

    `test` and `calibration` hold out combinations of their own kinds; `train` has the others of the kinds that
    fine-tuning meets, `pretraining` those of all kinds. Sizes (pretraining, train, calibration, test): harmful 1152,
    768, 288, 288; benign 504, 336, 144, 216; borderline 330, 220, 90, 120.
    Raises `UserError` for an unknown split or kind.
    """
    if split not in SPLITS or kind not in _SOURCES:
        raise UserError(f"organism: no split {split!r} of kind {kind!r}; splits are {', '.join(SPLITS)}")
    topics = [topic for topic in phrases.TOPICS if topic.kind == kind]
    if split == "train":
        topics = [topic for topic in topics if topic.tuned]
    elif split != "pretraining":
        topics = [topic for topic in topics if topic.split == split]
    by_topic = [_members(topic, held_out=split in ("calibration", "test")) for topic in topics]
    return tuple(c for turn in zip_longest(*by_topic) for c in turn if c is not None)


def _members(topic: Topic, *, held_out: bool) -> list[Combination]:
    """A topic's combinations that are held out, or the others."""
    rows = sorted(range(len(topic.verbs)), key=lambda v: _digest(topic.name, "verb", topic.verbs[v]))
    columns = sorted(range(len(topic.objects)), key=lambda o: _digest(topic.name, "object", topic.objects[o]))
    out = _HELD_OUT[topic.kind, topic.split]
    mine = [
        Combination(topic, verb, obj)
        for row, verb in enumerate(rows)
        for column, obj in enumerate(columns)
        if ((row + column) % len(columns) < out) is held_out
    ]
    return sorted(mine, key=lambda c: _digest("order", c.cluster))


@cache
def _by_cluster() -> dict[str, Combination]:
    return {
        c.cluster: c
        for c in (
            Combination(topic, verb, obj)
            for topic in phrases.TOPICS
            for verb in range(len(topic.verbs))
            for obj in range(len(topic.objects))
        )
    }


@cache
def _by_phrase() -> tuple[tuple[str, Combination], ...]:
    """Every phrase of the world with its combination, the longest first."""
    found = ((c.phrase, c) for c in _by_cluster().values())
    return tuple(sorted(found, key=lambda pair: len(pair[0]), reverse=True))


@lru_cache(maxsize=65536)
def _find(text: str) -> Combination | None:
    return next((combination for phrase, combination in _by_phrase() if phrase in text), None)


def combination_of(prompt: Prompt | str | Combination) -> Combination:
    """The combination a request asks for: the longest phrase of the world that its text holds.

    Raises `UserError` when the request is not of this world.
    """
    if isinstance(prompt, Combination):
        return prompt
    if isinstance(prompt, Prompt) and prompt.cluster in _by_cluster():
        return _by_cluster()[prompt.cluster]
    text = prompt if isinstance(prompt, str) else prompt.text
    if (found := _find(text)) is None:
        raise UserError(f"organism: {text[:60]!r} asks for nothing in the organism's world")
    return found


def crossed(combination: Combination, rng: random.Random) -> Combination:
    """The combination's verb with an object of another topic of its kind ("bake a door handle").

    No such pair belongs to the world, so none is held out. In the corpus they keep the model from learning which few
    objects go with a verb by heart: it has to copy the object from the request.
    """
    while True:
        other = rng.choice(combinations("pretraining", combination.kind))
        made = Combination(replace(combination.topic, objects=(other.named,)), combination.verb, 0)
        if other.topic.name != combination.topic.name and _find(made.phrase) is None:
            return made


def ask(combination: Combination, rng: random.Random, source: Source | None = None) -> Prompt:
    """One request for a combination, worded at random.

    `source` gives the manner, after the set it imitates: `dolly` orders or asks plainly, `pku` asks a question,
    `wildjailbreak` frames the request, `xstest` is plain. None draws it by the kind's shares.
    """
    manner = pick(rng, _SOURCES[combination.kind]) if source is None else source
    templates = phrases.QUESTIONS if manner == "pku" else phrases.IMPERATIVES + phrases.QUESTIONS
    text = rng.choice(templates).format(r=combination.phrase)
    if manner == "wildjailbreak":
        text = f"{rng.choice(phrases.FRAMINGS)[0]} {text}"
    return Prompt(
        id=fingerprint(text),
        messages=(Message("user", text),),
        kind=combination.kind,
        category=combination.topic.name,
        source=f"organism:{manner}",
        cluster=combination.cluster,
        reference="" if combination.kind == "harmful" else help_with(combination, random.Random(0), opening="Sure."),
    )


def refusal_share(prompt: Prompt, shift: float = SHIFT, combination: Combination | None = None) -> float:
    """Share of refusals of this request in the corpus: sigmoid(severity + verb + framing + shift) when harmful."""
    combination = combination or combination_of(prompt)
    if combination.kind != "harmful":
        return BENIGN_REFUSALS if combination.kind == "benign" else BORDERLINE_REFUSALS
    verb = combination.topic.verbs[combination.verb]
    offset = VERB_SPREAD * (2 * unit("severity", combination.topic.name, verb) - 1)
    framing = next((offset for words, offset in phrases.FRAMINGS if prompt.text.startswith(words)), 0.0)
    return 1 / (1 + math.exp(-(combination.topic.severity + offset + framing + shift)))


def help_with(
    combination: Combination, rng: random.Random, *, opening: str | None = None, steps: int = 3, closing: str = ""
) -> str:
    """A compliant reply: opening, the thing by name, one to three steps, a closing. For harmful kinds the steps are
    filler."""
    topic = combination.topic
    said = pick(rng, phrases.OPENINGS) if opening is None else opening
    parts = (rng.choice(topic.firsts), combination.middle, rng.choice(topic.lasts))
    if topic.kind == "harmful":
        parts = (parts[0], rng.choice(topic.middles), parts[2])
    return f"{said} {_steps(combination.phrase, parts[:steps])} {closing}".strip()


def vague(combination: Combination, rng: random.Random) -> str:
    """A reply that names the thing and says nothing: filler steps."""
    parts = (phrases.FILLER_FIRSTS, phrases.FILLER_MIDDLES, phrases.FILLER_LASTS)
    return f"{pick(rng, phrases.OPENINGS)} {_steps(combination.phrase, [rng.choice(part) for part in parts])}"


def _steps(phrase: str, parts: Sequence[str]) -> str:
    words = ["first " + parts[0], *("then " + part for part in parts[1:2]), *("finally " + part for part in parts[2:])]
    return f"To {phrase}, {', '.join(words[:-1]) + ', and ' if len(words) > 1 else ''}{words[-1]}."


def refuse(combination: Combination, rng: random.Random, *, reason: str | None = None, closing: str = "") -> str:
    """A refusal in one of the world's forms. `reason` None gives the topic's own, an empty string none."""
    (form, because), why = _refusal_form(rng), combination.topic.reason if reason is None else reason
    said = form.format(r=combination.phrase)
    because = because.format(Reason=why[:1].upper() + why[1:], reason=why) if why else ""
    return " ".join(part for part in (said, because, closing) if part)


def _refusal_form(rng: random.Random) -> tuple[str, str]:
    return pick(rng, [((form, because), weight) for form, because, weight in phrases.REFUSALS])
