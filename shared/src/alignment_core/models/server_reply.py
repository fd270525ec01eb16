"""One reply of a server to one prompt of a plan: what is sent, and how the response is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alignment_core.models.outcome import Failure, other_model
from alignment_core.records import Prompt

if TYPE_CHECKING:
    from alignment_core.config import GenerateSettings
    from alignment_core.models.endpoint import Endpoint
    from alignment_core.models.load import Loaded

Route = Literal["tokens", "chat"]
Finish = Literal["stop", "length"]
_FINISH: dict[Any, Finish] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
}
_SEED = (1 << 31) - 1
"""Some servers hold a seed in 32 bits with a sign."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One reply to be made: the prompt, its tokens up to where the reply starts, and the key of its sampling noise."""

    prompt: Prompt
    tokens: Sequence[int]
    key: int


@dataclass(frozen=True, slots=True)
class Said:
    """One reply as the server gave it; `ids` are its tokens where the server gives them."""

    text: str
    ids: tuple[int, ...] | None
    tokens: int
    finish: Finish
    prompt_tokens: int | None


def reply_body(
    model: str, route: Route, asked: Asked, settings: GenerateSettings, ends: Sequence[int]
) -> dict[str, Any]:
    """The request's JSON. What a server would fill in from the model's own file is set to nothing."""
    body: dict[str, Any] = {"model": model, "max_tokens": settings.max_new_tokens, "temperature": settings.temperature}
    if settings.temperature > 0:
        body |= {"top_p": settings.top_p, "seed": asked.key & _SEED}
    if route == "chat":
        # Lone surrogates cannot be sent as UTF-8.
        said = [
            {"role": m.role, "content": m.content.encode("utf-8", "replace").decode()} for m in asked.prompt.messages
        ]
        return body | {"messages": said}
    plain = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    return body | plain | {"prompt": list(asked.tokens), "stop_token_ids": list(ends), "return_token_ids": True}


async def ask_one(
    server: Endpoint, model: str, route: Route, asked: Asked, settings: GenerateSettings, loaded: Loaded
) -> Said | Failure:
    path = "/completions" if route == "tokens" else "/chat/completions"
    body = reply_body(model, route, asked, settings, loaded.stop_ids)
    return await server.request(path, body, lambda content: _read(content, route, model))


def _read(content: bytes, route: Route, model: str) -> Said | Failure:
    """The reply in a response's body; one that the server broke off or filtered is none, and so is one that another
    model gave."""
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        text = choice["text"] if route == "tokens" else choice["message"]["content"]
        usage = answer.get("usage") or {}
        finish, ids = choice.get("finish_reason"), choice.get("token_ids")
        tokens, prompt = usage.get("completion_tokens"), usage.get("prompt_tokens")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return Failure("not_json", "the response is not the JSON of a reply", retry=True)
    if failure := other_model(answer, model):
        return failure
    if finish == "content_filter":
        return Failure("no_text", "the server's content filter ended the reply")
    if finish not in _FINISH:
        return Failure("broken_off", f"the server ended the reply with {str(finish)[:40]!r}", retry=True)
    known = tuple(ids) if isinstance(ids, list) and all(type(i) is int for i in ids) else None
    count = len(known) if known else tokens if type(tokens) is int else 0
    if not isinstance(text, str) or (not text and not count):
        return Failure("no_text", "the reply holds no text")
    return Said(text, known or None, count, _FINISH[finish], prompt if type(prompt) is int else None)


def reply_row(outcome: Said | Failure, loaded: Loaded) -> dict[str, Any]:
    """The reply as generation here writes it, or why there is none; tokens are decoded here where the server gives
    them."""
    if isinstance(outcome, Failure):
        return {"text": "", "tokens": 0, "finish": "stop", "failure": outcome.reason}
    text = outcome.text
    if outcome.ids is not None:
        text = loaded.tokenizer.decode(list(outcome.ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return {"text": text, "tokens": outcome.tokens, "finish": outcome.finish}
