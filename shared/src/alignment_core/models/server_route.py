"""How a server is asked, found out before the first prompt: by tokens or by messages, and whether it holds this model.

A reply of one token shows that the server works and which route it takes. Where it gives log-probabilities, those of
some first tokens are compared with this model's.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignment_core.errors import UserError
from alignment_core.models.endpoint import Endpoint, unusable
from alignment_core.models.outcome import Failure, other_model
from alignment_core.models.server_reply import Asked, Route, Said, ask_one, reply_body
from alignment_core.models.serving import NAMES
from alignment_core.records import Prompt

if TYPE_CHECKING:
    from alignment_core.config import GenerateSettings
    from alignment_core.models.load import Loaded

log = logging.getLogger("alignment_core")

_NO_ROUTE = (404, 405, 415, 501)
"""What servers answer that do not take a prompt as tokens."""
_PERHAPS_THE_PROMPT = (400, 422, 500)
"""What they answer to that, too, or to one prompt that they refuse."""
COMPARED = 8
"""Prompts whose first token's log-probability is compared with this model's."""
SAME = 1.0
"""Most nats between the two on average; another precision makes a tenth of that, another model several times it."""


async def find_route(
    server: Endpoint, model: str, asked: Sequence[Asked], settings: GenerateSettings, loaded: Loaded
) -> Route:
    """How the server is asked, found out by replies of one token, which also show that it works at all.

    A server may refuse any one prompt for good, so that up to three are tried, the shortest first. `Unusable` when the
    server fails or takes none of them.
    """
    short = settings.model_copy(update={"max_new_tokens": 1})
    tried = (asked[-1], asked[len(asked) // 2], asked[0])
    why = ""
    for one in tried:
        said = await ask_one(server, model, "tokens", one, short, loaded)
        if isinstance(said, Said) and said.prompt_tokens in (None, len(one.tokens)):
            return "tokens"
        if isinstance(said, Said):
            why = f"it read {said.prompt_tokens} tokens of {len(one.tokens)}"
            break
        if said.why == "no_text":
            return "tokens"
        if said.why != "not_json" and said.status not in (*_NO_ROUTE, *_PERHAPS_THE_PROMPT):
            raise unusable(server.settings, model, said, NAMES)
        why = said.reason
        if said.status not in _PERHAPS_THE_PROMPT:
            break
    failure = None
    for one in tried:
        by_chat = await ask_one(server, model, "chat", one, short, loaded)
        if isinstance(by_chat, Said) or by_chat.why == "no_text":
            log.warning(
                "%s takes no prompts as tokens (%s): messages are sent, and the chat template is the server's own",
                settings.endpoint,
                why,
            )
            return "chat"
        failure = by_chat
        if failure.passing:
            break
    assert failure is not None  # at least one prompt was tried
    raise unusable(server.settings, model, failure, NAMES)


async def nats_apart(
    server: Endpoint, model: str, route: Route, asked: Sequence[Asked], settings: GenerateSettings, loaded: Loaded
) -> float | None:
    """Largest difference, in nats, between the server's log-probability of the first token it gives greedily and this
    model's, over some prompts; None where the server does not say. `UserError` when it is another model."""
    if route == "chat":
        return None
    from alignment_core.models.score import first_token_logprobs

    short = settings.model_copy(update={"max_new_tokens": 1, "temperature": 0.0})
    found: list[tuple[Prompt, int, float]] = []
    for one in asked[:COMPARED]:
        body = reply_body(model, "tokens", one, short, loaded.stop_ids) | {"logprobs": 1}
        first = await server.request("/completions", body, lambda content: _first_token(content, model))
        if not isinstance(first, Failure):
            found.append((one.prompt, *first))
        elif first.passing:
            log.debug("%s gives no log-probabilities: %s", settings.endpoint, first.reason)
            return None
    if not found:
        return None
    here = first_token_logprobs(loaded, [prompt for prompt, _, _ in found], settings.batch_size)
    apart = [
        abs(there - float(row[token])) if token < len(row) else math.inf
        for (_, token, there), row in zip(found, here, strict=True)
    ]
    if sum(apart) > SAME * len(apart):
        raise UserError(
            f"the model {model} at {settings.endpoint} is not the one here: log-probabilities of first tokens differ "
            f"by {sum(apart) / len(apart):.1f} nats on average; serve the same base model, or unset the endpoint"
        )
    return round(max(apart), 4)


def _first_token(content: bytes, model: str) -> tuple[int, float] | Failure:
    """Token and log-probability of a reply of one token."""
    try:
        answer = json.loads(content)
        if failure := other_model(answer, model):
            return failure
        choice = answer["choices"][0]
        return int(choice["token_ids"][0]), float(choice["logprobs"]["token_logprobs"][0])
    except (ValueError, RecursionError, LookupError, TypeError):
        return Failure("not_json", "the response has no token and log-probability")
