"""What comes of a call to a server: a reply, or a failure with its reason; and how a response is read.

A failure passes (the connection, the deadline, the key, a busy or broken server: the same call may succeed later), or
the server refused this request for good (a bad or too long request, a content filter, no text).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

Why = Literal[
    "deadline", "connection", "status", "too_large", "not_json", "no_text", "broken_off", "other_model", "not_asked"
]
RETRY_STATUS = (408, 409, 425, 429)
_PASSING_STATUS = (401, 402, 403, 404, 407, *RETRY_STATUS)
"""Statuses under 500 about the key, the account, the address or the moment; the others are about the request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said. `seconds` is how long the call took (0 when it was read from the journal)."""

    text: str
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no reply, in one line."""

    why: Why
    reason: str
    status: int | None = None
    retry: bool = field(default=False, compare=False)
    wait: float | None = field(default=None, compare=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def passing(self) -> bool:
        """Whether the same call may succeed later; otherwise the server refused this request for good."""
        if self.why == "status":
            return not 400 <= (self.status or 0) < 500 or self.status in _PASSING_STATUS
        return self.why not in ("no_text", "too_large")


def error_message(content: bytes) -> str:
    """What an error's body says: its `error.message` or `detail`, else its beginning."""
    try:
        said = json.loads(content)
        found = said.get("error", said)
        found = found.get("message", found.get("detail")) if isinstance(found, dict) else found
    except (ValueError, RecursionError, AttributeError):
        found = None
    return found if isinstance(found, str) else content[:1000].decode("utf-8", "replace")


_VERSION = re.compile(r"[@:].+|(?:[-_.](?:v?\d+|latest|preview|stable))+")
"""What may follow a model's name where a server names the version, revision or tag as well."""


def same_model(asked: str, said: str) -> bool:
    """Whether two names can be one model's: equal but for folders before one, and a version or tag behind one."""
    a, b = (name.casefold().strip("/").split("/") for name in (asked.removesuffix("-latest"), said))
    depth = min(len(a), len(b))
    short, long = sorted(("/".join(a[-depth:]), "/".join(b[-depth:])), key=len)
    return long.startswith(short) and (long == short or _VERSION.fullmatch(long[len(short) :]) is not None)


def other_model(answer: Any, asked: str) -> Failure | None:
    """The failure of a response that names another model than the one asked; None where it names it, or none."""
    said = answer.get("model") if isinstance(answer, dict) else None
    if not isinstance(said, str) or not said or same_model(asked, said):
        return None
    return Failure("other_model", f"another model answered: {said[:80]!r} instead of {asked[:80]!r}")


def read_chat(content: bytes, model: str) -> Reply | Failure:
    """The reply's text out of a chat response's body; `model` is the one asked."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return Failure("not_json", "the response is not JSON", retry=True)
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text, finish = message["content"], choice.get("finish_reason")
        thought = message.get("reasoning_content") or message.get("reasoning")
    except (LookupError, TypeError, AttributeError):
        return Failure("not_json", "the response has no choices[0].message.content", retry=True)
    if failure := other_model(answer, model):
        return failure
    if finish == "content_filter":
        return Failure("no_text", "the server's content filter ended the reply")
    if not isinstance(text, str) or not text.strip():
        more = " beside the model's reasoning; raise max_tokens" if thought else ""
        return Failure("no_text", f"the reply holds no text{more}")
    return Reply(text)
