"""The record types: messages, examples, preference pairs, prompts, completions, verdicts.

Every record names its `cluster`: the unit that is independent of every other (a verb-object combination, a HarmfulQA
question, an XSTest contrast pair). Intervals and tests average over a cluster or resample clusters.

Records are frozen pydantic dataclasses in strict mode: a field of another type is an error when a record is made.
`to_json` gives the form on disk; `from_json` reads it, ignores no unknown key, and raises `ValueError` in one line that
names the record and the field.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import ConfigDict, Field, Strict, ValidationError
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

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


STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Every record's: no unknown key, no conversion, no NaN or infinity."""

Count = Annotated[int, Field(ge=0)]
_COUNT = "a whole number from 0"
_MUST = {
    "role": f"one of {', '.join(get_args(Role))}",
    "kind": f"one of {', '.join(KINDS)}",
    "label": f"one of {', '.join(LABELS)}",
    "finish": "one of stop, length",
    "seed": "a whole number or null",
    "score": "a number or null",
    "evidence": "two whole numbers or null",
    "candidate": _COUNT,
    "tokens": _COUNT,
}
"""What a field must be; every other is a string."""

R = TypeVar("R", bound="DataclassInstance")


def flat(record: DataclassInstance) -> dict[str, Any]:
    """The JSON form of a record whose fields hold no records."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def parse(cls: type[R], record: str, row: object) -> R:
    """A JSON object as a record of type `cls`; `ValueError` in one line names `record` and the field."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{record}: expected an object, found {type(row).__name__}")
    known = cls.__dataclass_fields__.keys()
    if not row.keys() <= known:
        raise ValueError(f"{record}: unknown key {min(map(str, row.keys() - known))!r}")
    try:
        return cls(**row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    key, found = str(first["loc"][0]), first["input"]
    if key not in row:
        raise ValueError(f"{record}: missing key {key!r}")
    if key in _MUST:
        raise ValueError(f"{record}: {key!r} must be {_MUST[key]}, found {row[key]!r:.60}")
    raise ValueError(f"{record}: {key!r} must be a string, found {type(found).__name__}")


def _messages(record: str, row: object, *keys: str) -> object:
    """`row` with the lists of messages under `keys` as records."""
    if not isinstance(row, Mapping):
        return row
    parsed: dict[str, tuple[Message, ...]] = {}
    for key in keys:
        value = row.get(key)
        if not isinstance(value, list | tuple) or not value:
            raise ValueError(f"{record}: {key!r} must be a non-empty list of messages")
        parsed[key] = tuple(Message.from_json(m) for m in value)
    return {**row, **parsed}


def _last_user(messages: tuple[Message, ...]) -> str:
    return next((m.content for m in reversed(messages) if m.role == "user"), "")


@dataclass(frozen=True, slots=True, config=STRICT)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    @classmethod
    def from_json(cls, row: object) -> Self:
        return parse(cls, "message", row)


@dataclass(frozen=True, slots=True, config=STRICT)
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
        return _last_user(self.messages)

    @property
    def reply(self) -> str:
        """Text of the final assistant message."""
        return self.messages[-1].content

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        made = parse(cls, "example", _messages("example", row, "messages"))
        if made.messages[-1].role != "assistant" or not any(m.role == "user" for m in made.messages):
            raise ValueError("example: 'messages' must hold a user message and end with the assistant's reply")
        if not made.reply.strip():
            raise ValueError("example: the assistant's reply is empty")
        return made


@dataclass(frozen=True, slots=True, config=STRICT)
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
        return _last_user(self.chosen)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        made = parse(cls, "pair", _messages("pair", row, "chosen", "rejected"))
        chosen, rejected = made.chosen, made.rejected
        if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
            raise ValueError("pair: 'chosen' and 'rejected' must share every message but the last")
        if chosen[-1] == rejected[-1]:
            raise ValueError("pair: 'chosen' and 'rejected' are the same reply")
        if chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
            raise ValueError("pair: the last message of each side must be the assistant's")
        return made


@dataclass(frozen=True, slots=True, config=STRICT)
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
        return _last_user(self.messages)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        made = parse(cls, "prompt", _messages("prompt", row, "messages"))
        if made.messages[-1].role != "user":
            raise ValueError("prompt: 'messages' must end with a user message (a gold answer must not be in it)")
        return made


@dataclass(frozen=True, slots=True, config=STRICT)
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
    candidate: Count = 0
    tokens: Count = 0
    """Number of new tokens, end-of-turn included."""
    finish: Literal["stop", "length"] = "stop"
    failure: str = ""
    """Why there is no reply, where a server gave none; `text` is then empty."""

    def to_json(self) -> dict[str, Any]:
        return flat(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        return parse(cls, "completion", row)


@dataclass(frozen=True, slots=True, config=STRICT)
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
    candidate: Count = 0
    rule: str = ""
    """Name of the rule that decided, or why the verdict is missing."""
    evidence: Annotated[tuple[int, int], Strict(False)] | None = None
    """Span of the completion's text (code points, end exclusive) that decided."""
    score: float | None = None
    """A graded judgement, where the judge gives one."""

    @property
    def missing(self) -> bool:
        return self.label is None

    def to_json(self) -> dict[str, Any]:
        return flat(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        return parse(cls, "verdict", row)


@dataclass(frozen=True, slots=True, config=STRICT)
class Shortfall:
    """How many rows a part of a data set was to have and how many it got; printed, never silent."""

    part: str
    source: str
    wanted: int
    got: int
    note: str = ""

    @property
    def short(self) -> int:
        return max(0, self.wanted - self.got)
