"""The things that walk through the house: messages, examples, pairs, prompts, completions, verdicts.

Every record knows its `cluster`: the unit that is independent of every other (a verb-object combination, a
HarmfulQA question, an XSTest contrast pair). Intervals and tests average over a cluster or resample clusters.

All records are plain frozen dataclasses whose JSON form (`to_json`, `from_json`) is the on-disk form; `from_json`
raises `ValueError` with a one-line reason on anything malformed, and ignores no unknown key.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from typing import Any, Literal, Self, get_args

Role = Literal["system", "user", "assistant"]
Kind = Literal["harmful", "benign", "borderline"]
Label = Literal["refusal", "partial", "compliance", "incoherent"]
LABELS: tuple[Label, ...] = get_args(Label)
KINDS: tuple[Kind, ...] = get_args(Kind)

_SPACE = re.compile(r"\s+")


def normalise(text: str) -> str:
    """Prompt text as compared between sets: NFKC, lower case, runs of white space folded to one space."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip().lower()


def fingerprint(text: str) -> str:
    """Sixteen hex digits that name a text after `normalise`; the default prompt id and cluster."""
    return hashlib.sha256(normalise(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@cache
def _keys(cls: type) -> tuple[frozenset[str], tuple[str, ...], tuple[str, ...]]:
    """Known keys, required ones, and those that hold text."""
    known = fields(cls)
    required = tuple(f.name for f in known if f.default is MISSING and f.default_factory is MISSING)
    return frozenset(f.name for f in known), required, tuple(f.name for f in known if f.type == "str")


def _checked(record: str, row: object, cls: type) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise ValueError(f"{record}: expected an object, found {type(row).__name__}")
    known, required, texts = _keys(cls)
    if extra := sorted(map(str, set(row) - known)):
        raise ValueError(f"{record}: unknown key {extra[0]!r}")
    for key in required:
        if key not in row:
            raise ValueError(f"{record}: missing key {key!r}")
    for key in texts:
        if key in row:
            _text(record, row, key)
    return dict(row)


def _text(record: str, row: Mapping[str, Any], key: str) -> None:
    if not isinstance(row.get(key), str):
        raise ValueError(f"{record}: {key!r} must be a string, found {type(row.get(key)).__name__}")


def _counts(record: str, row: Mapping[str, Any], *keys: str) -> None:
    """The training seed a whole number or null, and every one of `keys` that is there a whole number from 0."""
    for key in keys:
        if key in row and (type(row[key]) is not int or row[key] < 0):
            raise ValueError(f"{record}: {key!r} must be a whole number from 0, found {row[key]!r:.60}")
    if row.get("seed") is not None and type(row["seed"]) is not int:
        raise ValueError(f"{record}: 'seed' must be a whole number or null, found {row['seed']!r:.60}")


def _one_of(record: str, row: Mapping[str, Any], key: str, allowed: Sequence[str]) -> None:
    if row.get(key) not in allowed:
        raise ValueError(f"{record}: {key!r} must be one of {', '.join(allowed)}, found {row.get(key)!r}")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    @classmethod
    def from_json(cls, row: object) -> Self:
        values = _checked("message", row, cls)
        _one_of("message", values, "role", get_args(Role))
        _text("message", values, "content")
        return cls(**values)


def _span(value: object) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(n) is int for n in value):
        raise ValueError(f"verdict: 'evidence' must be two whole numbers or null, found {value!r}")
    return value[0], value[1]


def _messages(record: str, key: str, value: object) -> tuple[Message, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{record}: {key!r} must be a non-empty list of messages")
    return tuple(Message.from_json(m) for m in value)


@dataclass(frozen=True, slots=True)
class Example:
    """A supervised conversation: the last message is the assistant's reply that is trained on."""

    messages: tuple[Message, ...]
    category: str
    """`helpful` or `refusal`: what the reply is."""
    source: str
    """Where it comes from, for example `dolly` or `wildjailbreak:vanilla_harmful`."""
    cluster: str = ""
    """Unit of independence; by default the fingerprint of the last user message."""

    def __post_init__(self) -> None:
        if not self.cluster:
            object.__setattr__(self, "cluster", fingerprint(self.prompt))

    @property
    def prompt(self) -> str:
        """Text of the last user message."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def reply(self) -> str:
        """Text of the final assistant message."""
        return self.messages[-1].content

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        values = _checked("example", row, cls)
        messages = _messages("example", "messages", values.get("messages"))
        if messages[-1].role != "assistant" or not any(m.role == "user" for m in messages):
            raise ValueError("example: 'messages' must hold a user message and end with the assistant's reply")
        if not messages[-1].content.strip():
            raise ValueError("example: the assistant's reply is empty")
        for key in ("category", "source"):
            _text("example", values, key)
        return cls(**{**values, "messages": messages})


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two replies to one prompt, the first preferred. `chosen` and `rejected` are whole conversations that share
    every message but the last."""

    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    source: str
    bucket: str = ""
    """Which rule made the pair, for example `one_safe`, `both_safe`, `both_unsafe`."""
    cluster: str = ""

    def __post_init__(self) -> None:
        if not self.cluster:
            object.__setattr__(self, "cluster", fingerprint(self.prompt))

    @property
    def prompt(self) -> str:
        """Text of the last user message."""
        return next((m.content for m in reversed(self.chosen) if m.role == "user"), "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        values = _checked("pair", row, cls)
        chosen = _messages("pair", "chosen", values.get("chosen"))
        rejected = _messages("pair", "rejected", values.get("rejected"))
        if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
            raise ValueError("pair: 'chosen' and 'rejected' must share every message but the last")
        if chosen[-1] == rejected[-1]:
            raise ValueError("pair: 'chosen' and 'rejected' are the same reply")
        if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
            raise ValueError("pair: the last message of each side must be the assistant's")
        _text("pair", values, "source")
        return cls(**{**values, "chosen": chosen, "rejected": rejected})


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question put to every model state. No gold answer is ever part of what the model sees."""

    id: str
    messages: tuple[Message, ...]
    kind: Kind
    category: str = ""
    """Harm category, topic or task type; the axis of per-category rates."""
    source: str = ""
    cluster: str = ""
    reference: str = ""
    """A reference answer, used only for the reference-answer loss and never shown to the model under test."""

    def __post_init__(self) -> None:
        if not self.cluster:
            object.__setattr__(self, "cluster", fingerprint(self.text))

    @property
    def text(self) -> str:
        """Text of the last user message."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        values = _checked("prompt", row, cls)
        _text("prompt", values, "id")
        messages = _messages("prompt", "messages", values.get("messages"))
        if messages[-1].role != "user":
            raise ValueError("prompt: 'messages' must end with a user message (a gold answer must not be in it)")
        _one_of("prompt", values, "kind", KINDS)
        return cls(**{**values, "messages": messages})


@dataclass(frozen=True, slots=True)
class Completion:
    """What one model state replied to one prompt. Saved first, judged later from the file."""

    prompt_id: str
    subject: str
    """The model state, for example `baseline` or `stage_a`."""
    text: str
    """Only the new tokens, decoded without special tokens."""
    prompt: str
    """Text of the last user message, for readers and judges."""
    kind: Kind
    category: str = ""
    source: str = ""
    cluster: str = ""
    seed: int | None = None
    candidate: int = 0
    tokens: int = 0
    """Number of new tokens, end-of-turn included."""
    finish: Literal["stop", "length"] = "stop"
    failure: str = ""
    """Why there is no reply, where a server gave none; `text` is then empty."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        values = _checked("completion", row, cls)
        for key in ("prompt_id", "subject", "text", "prompt"):
            _text("completion", values, key)
        _one_of("completion", values, "kind", KINDS)
        _one_of("completion", {"finish": "stop", **values}, "finish", ("stop", "length"))
        _counts("completion", values, "candidate", "tokens")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one judge said of one completion. `label` None means missing (the judge failed or could not be parsed)
    and is never a verdict."""

    prompt_id: str
    subject: str
    judge: str
    label: Label | None
    kind: Kind
    category: str = ""
    source: str = ""
    cluster: str = ""
    seed: int | None = None
    candidate: int = 0
    rule: str = ""
    """Name of the rule that decided, or why the verdict is missing."""
    evidence: tuple[int, int] | None = None
    """Span of the completion's text (code points, end exclusive) that decided."""
    score: float | None = None
    """A graded judgement, where the judge gives one."""

    @property
    def missing(self) -> bool:
        return self.label is None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        values = _checked("verdict", row, cls)
        for key in ("prompt_id", "subject", "judge"):
            _text("verdict", values, key)
        if values.get("label") is not None:
            _one_of("verdict", values, "label", LABELS)
        _one_of("verdict", values, "kind", KINDS)
        _counts("verdict", values, "candidate")
        score = values.get("score")
        if score is not None and not (type(score) in (int, float) and -1e300 < score < 1e300):
            raise ValueError(f"verdict: 'score' must be a number or null, found {score!r:.60}")
        if values.get("evidence") is not None:
            values["evidence"] = _span(values["evidence"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """How many rows a part of a data set was to have and how many it got; printed, never silent."""

    part: str
    source: str
    wanted: int
    got: int
    note: str = field(default="")

    @property
    def short(self) -> int:
        return max(0, self.wanted - self.got)
