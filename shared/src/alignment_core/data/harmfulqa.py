"""HarmfulQA (arXiv 2308.09662): harmful questions by topic, with harmless (blue) and harmful (red) conversations.

Traps: through Arrow an absent conversation is null, in the raw JSON it is not there; conversations have several turns
and do not open with the question; blue is harmless, not refused; some questions stand twice, so sets are split by
question and not by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Reading, Rejects, read, text
from alignment_core.records import Message, Role, fingerprint

if TYPE_CHECKING:
    from alignment_core.config import SourceSettings

Conversation = tuple[Message, ...]
_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True, slots=True)
class HarmfulQaRow:
    """One question with its conversations, either of which may be none."""

    question: str
    topic: str = ""
    subtopic: str = ""
    blue: tuple[Conversation, ...] = ()
    red: tuple[Conversation, ...] = ()

    @property
    def prompt(self) -> str:
        return self.question

    @property
    def cluster(self) -> str:
        """The question: rows that repeat it belong together."""
        return fingerprint(self.question)


def _conversations(row: Mapping[str, Any], key: str) -> tuple[Conversation, ...]:
    found = row.get(key) or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{key!r} must be an object, found {type(found).__name__}")
    return tuple(_turns(key, found[name]) for name in sorted(found) if found[name])


def _turns(key: str, turns: Any) -> Conversation:
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise ValueError(f"{key!r}: a conversation must be a list of turns")
    unknown = next((turn.get("from") for turn in turns if turn.get("from") not in _ROLES), None)
    if unknown is not None:
        raise ValueError(f"{key!r}: a turn is from human or gpt, found {unknown!r:.40}")
    return tuple(Message(_ROLES[text(turn, "from")], text(turn, "value")) for turn in turns)


def parse(row: Mapping[str, Any]) -> HarmfulQaRow:
    """One row, of the data set or of a list of questions."""
    named = text(row, "topic", default=""), text(row, "subtopic", default="")
    conversations = _conversations(row, "blue_conversations"), _conversations(row, "red_conversations")
    return HarmfulQaRow(text(row, "question"), *named, *conversations)


def load(settings: SourceSettings, rejects: Rejects) -> Reading[HarmfulQaRow]:
    """Every row of the set; see `sources.read` for the errors."""
    return read(SOURCES["harmfulqa"], settings, parse, rejects)
