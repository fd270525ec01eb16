"""Conversations that show what a chat template does: whether it is one of ours, and what it does to thinking."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignment_core.errors import UserError
from alignment_core.models.render import DATE, Endless, render
from alignment_core.models.template import around, encode_example
from alignment_core.records import Message

SYSTEM, PADDED_SYSTEM = Message("system", "Answer briefly."), Message("system", " \n Answer briefly.\n ")
USER, PADDED_USER = Message("user", "Who wrote it?"), Message("user", "\t Who wrote it? \n")
REPLY, PADDED_REPLY = Message("assistant", "She did."), Message("assistant", "\n She did. ")
NEXT, LAST = Message("user", "When?"), Message("assistant", "Last year.")
THOUGHT = "It was her."
THINKING = Message("assistant", f"<think>\n{THOUGHT}\n</think>\n\nShe did.")

PROBES: dict[str, tuple[tuple[Message, ...], bool]] = {
    "one user turn": ((USER,), True),
    "a system message": ((SYSTEM, USER), True),
    "an empty system message": ((Message("system", ""), USER), True),
    "several turns": ((USER, REPLY, NEXT), True),
    "several turns with a system message": ((SYSTEM, USER, REPLY, NEXT), True),
    "spaces around a user's text": ((PADDED_USER,), True),
    "spaces around every text": ((PADDED_SYSTEM, PADDED_USER, PADDED_REPLY, NEXT), True),
    "two user turns in a row": ((USER, NEXT), True),
    "thinking in an earlier reply": ((USER, THINKING, NEXT), True),
    "a reply": ((USER, REPLY), False),
    "a reply with a system message": ((SYSTEM, USER, REPLY), False),
    "several replies": ((USER, REPLY, NEXT, LAST), False),
    "spaces around the reply": ((USER, PADDED_REPLY), False),
    "thinking in the reply": ((USER, THINKING), False),
}
"""Probe conversations by name, and whether the next reply is asked for."""
_SENTENCE = re.compile(r"\w+(?:[:,.]? \w+){3}")
_THINKING = re.compile(r"think|thought|reason|analysis", re.IGNORECASE)


def shown(tokenizer: Any, messages: Sequence[Message], prompt: bool) -> str | None:
    """The text of a conversation; None where the template takes no such conversation."""
    try:
        return render(tokenizer, messages, prompt=prompt).text
    except Endless:
        raise
    except UserError:
        return None


def ends(tokenizer: Any) -> tuple[str, ...]:
    """The special tokens that end a turn; none where the template takes no reply or ends it with no such token."""
    try:
        return around(tokenizer, (USER, REPLY))[2]
    except Endless:
        raise
    except UserError:
        return ()


def renderings(tokenizer: Any) -> dict[str, str | None]:
    """The text of each probe conversation. Raises `UserError` where the template cannot take the first one, which is
    one user turn."""
    first, *_ = PROBES.values()
    render(tokenizer, first[0], prompt=first[1])
    return {name: shown(tokenizer, *probe) for name, probe in PROBES.items()}


def differences(one: Mapping[str, str | None], other: Mapping[str, str | None]) -> list[str]:
    """Names of the probe conversations that two templates write differently.

    What one of them alone writes behind the last reply is no difference (Phi-3's writes an end-of-text token there):
    no prompt holds it, and it is not trained.
    """
    return [name for name, (_, prompt) in PROBES.items() if not _same(one[name], other[name], prompt)]


def _same(one: str | None, other: str | None, prompt: bool) -> bool:
    if one is None or other is None or prompt:
        return one == other
    return one.startswith(other) or other.startswith(one)


def remarks(tokenizer: Any, found: Mapping[str, str | None]) -> Iterator[str]:
    """What a template does that a reader would not expect, in phrases."""
    asked, plain = found["one user turn"] or "", shown(tokenizer, (USER,), False)
    opened = asked.removeprefix(plain) if plain is not None and asked.startswith(plain) else ""
    if _THINKING.search(opened):
        yield f"its generation prompt opens with {opened!r}"
    yield from _training(asked, found)
    for name in ("thinking in an earlier reply", "thinking in the reply"):
        if (text := found[name]) is not None and THOUGHT not in text:
            yield f"it drops {name} (<think> blocks)"
    if found["a system message"] is None:
        yield "it takes no system message"
    if _SENTENCE.search(asked.partition(USER.content)[0]):
        yield "it writes a system message of its own where none is given"
    if "strftime_now" in tokenizer.chat_template and str(DATE.year) in asked:
        yield f"it writes today's date, which is held at {DATE.date()}"


def obstacle(tokenizer: Any) -> str:
    """Why no reply can be trained by the template; empty where one can."""
    try:
        encode_example(tokenizer, (USER, REPLY))
    except Endless:
        raise
    except UserError as error:
        return str(error)
    return ""


def _training(asked: str, found: Mapping[str, str | None]) -> Iterator[str]:
    """What is trained before a reply's text, and where a prompt is another once a reply follows."""
    whole = found["a reply"] or ""
    if not whole.startswith(asked):
        return
    lead = whole.removeprefix(asked).partition(REPLY.content)[0]
    if lead.strip():
        yield f"a trained reply begins with {lead!r}"
    both = found["a system message"], found["a reply with a system message"]
    if both[0] is not None and both[1] is not None and not both[1].startswith(both[0]):
        yield "it writes a system message otherwise once a reply follows"
