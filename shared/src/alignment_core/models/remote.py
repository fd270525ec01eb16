"""Replies from a server instead of the model in memory: vLLM, or anything that speaks OpenAI's protocol.

The prompts' own tokens go to `/completions` where the server takes them (vLLM does), so that template and tokens are
the same as here; a server that does not gets the messages at `/chat/completions` and puts its own template on them,
which is said in the log and in the report. The state that is asked is the one in memory, with the adapter that is on
it (`serving.py`); where the server tells log-probabilities, those of some first tokens are compared with this model's
before anything else is asked, so that no other model answers in silence.

Each reply is kept as it comes. A call that fails for good is missing, never an empty reply, and a plan with missing
replies ends in an error: the same call asks again for those alone. A server's arithmetic is not this machine's, so
its greedy text may differ; the journal, the plan and a step's key all say that a server made it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignment_core import progress
from alignment_core.config import EndpointSettings, GenerateSettings
from alignment_core.errors import UserError
from alignment_core.io import Journal, write_json
from alignment_core.models.endpoint import Endpoint, Failure, at_once, unusable
from alignment_core.models.serving import ADAPTER, NAMES, base_model, state
from alignment_core.progress import Work
from alignment_core.records import Prompt

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded

log = logging.getLogger("alignment_core")

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
_NO_TOKENS = (400, 404, 405, 415, 422, 500, 501)
"""What servers answer that do not take a prompt as tokens."""
_SEED = (1 << 31) - 1
"""Some servers hold a seed in 32 bits with a sign."""
COMPARED = 8
"""Prompts whose first token's log-probability is compared with this model's."""
SAME = 1.0
"""Most nats between the two on average; another precision makes a tenth of that, another model several times it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One reply to be made: the prompt, its tokens up to where the reply starts, and the key of its sampling noise."""

    prompt: Prompt
    tokens: Sequence[int]
    key: int


@dataclass(frozen=True, slots=True)
class Said:
    """One reply as the server gave it; `ids` are its tokens where the server tells them."""

    text: str
    ids: tuple[int, ...] | None
    tokens: int
    finish: Finish
    prompt_tokens: int | None


def served_file(file: Path) -> Path:
    """Where it is written which server's model made `file`, and how it was asked."""
    return file.with_name(f"{file.stem}.served.json")


def replies(
    asked: Sequence[Asked],
    settings: GenerateSettings,
    loaded: Loaded,
    *,
    subject: str,
    file: Path,
    header: dict[str, Any],
) -> list[dict[str, Any]]:
    """Text, tokens and finish of every reply in order; `<file>.served.json` says who made them.

    `header` names the plan. `UserError` when the server, its base model or the adapter cannot be used, and when
    replies are missing at the end: those that came stand in a journal beside `file`, and the same call goes on.
    """
    return asyncio.run(_replies(asked, settings, loaded, subject, file, header))


def journal_file(file: Path) -> Path:
    """The journal of the replies that came so far; it may go once they stand in `file`."""
    return file.with_name(f".{file.name}.served.journal")


def _where(settings: GenerateSettings) -> EndpointSettings:
    """The client's settings: a call has a minute, and a second more for each token of the longest reply."""
    assert settings.endpoint is not None
    return EndpointSettings(
        base_url=settings.endpoint,
        model=settings.endpoint_model or "(the only one)",
        api_key_env=settings.endpoint_key_env,
        deadline=60.0 + settings.max_new_tokens,
        concurrency=settings.batch_size,
    )


async def _replies(
    asked: Sequence[Asked],
    settings: GenerateSettings,
    loaded: Loaded,
    subject: str,
    file: Path,
    header: dict[str, Any],
) -> list[dict[str, Any]]:
    if not asked:
        return []
    file.parent.mkdir(parents=True, exist_ok=True)
    async with Endpoint(_where(settings)) as server:
        base = await base_model(server, settings)
        async with state(server, base, loaded, file, subject) as model:
            route = await _route(server, model, asked[0], settings, loaded)
            adapter = None if model == base else model.rsplit("-", 1)[0]  # without its place, which decides nothing
            about: dict[str, Any] = {"route": route, "base": base, "adapter": adapter}
            apart = await _apart(server, model, route, asked[:: settings.candidates], settings, loaded)
            journal = Journal(journal_file(file), header | {"served": about})
            known: dict[int, dict[str, Any]] = {row["n"]: row["reply"] for row in journal.rows}

            async def ask(number: int) -> Failure | None:
                said = await _ask(server, model, route, asked[number], settings, loaded)
                if isinstance(said, Failure):
                    return said
                known[number] = _row(said, loaded)
                # The disk may be slow; other calls' deadlines must not wait for it.
                await asyncio.to_thread(journal.append, {"n": number, "reply": known[number]})
                return None

            open_ = [n for n in range(len(asked)) if n not in known]
            with progress.work(f"replies of {subject} from the server", len(asked), "replies", len(known)) as told:
                failed = await _each(open_, ask, settings.batch_size, told)
    if failed is not None:
        raise UserError(
            f"{subject}: {len(asked) - len(known)} of {len(asked)} replies from {settings.endpoint} are missing "
            f"({failed.reason}); the {len(known)} that came are kept: see to the server, then run the same command"
        )
    _require_sampling(asked, known, settings)
    write_json(served_file(file), about | {"first_token_nats_apart": apart})
    return [known[n] for n in range(len(asked))]


Ask = Callable[[int], Awaitable[Failure | None]]
"""Asks for the reply of that number and keeps it, or says why there is none."""


async def _each(numbers: Sequence[int], ask: Ask, together: int, told: Work) -> Failure | None:
    """Ask for every reply, `together` at once; the first failure, or None. Gives up once more calls in a row failed
    than may be under way: a dead server is not asked for each of thousands of prompts."""
    queue, first, in_a_row = list(reversed(numbers)), None, 0

    async def work() -> None:
        nonlocal first, in_a_row
        while queue and in_a_row <= together:
            failure = await ask(queue.pop())
            in_a_row = in_a_row + 1 if failure else 0
            first = first or failure
            told.advance(0 if failure else 1)

    await at_once(work, min(together, len(numbers)))
    return first


# One reply


def _body(model: str, route: Route, asked: Asked, settings: GenerateSettings, ends: Sequence[int]) -> dict[str, Any]:
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


async def _ask(
    server: Endpoint, model: str, route: Route, asked: Asked, settings: GenerateSettings, loaded: Loaded
) -> Said | Failure:
    path = "/completions" if route == "tokens" else "/chat/completions"
    body = _body(model, route, asked, settings, loaded.stop_ids)
    return await server.request(path, body, lambda content: _read(content, route, model))


def _read(content: bytes, route: Route, model: str) -> Said | Failure:
    """The reply in a response's body; one that the server broke off or filtered is none, and so is one that another
    model than the adapter gave."""
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        text = choice["text"] if route == "tokens" else choice["message"]["content"]
        usage = answer.get("usage") or {}
        finish, ids = choice.get("finish_reason"), choice.get("token_ids")
        tokens, prompt = usage.get("completion_tokens"), usage.get("prompt_tokens")
        by = answer.get("model")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return Failure("not_json", "the response is not the JSON of a reply", retry=True)
    if model.startswith(ADAPTER) and by not in (None, model):
        return Failure("no_text", f"{str(by)[:60]!r} answered instead of the adapter")
    if finish not in _FINISH:
        return Failure("no_text", f"the server ended the reply with {str(finish)[:40]!r}")
    known = tuple(ids) if isinstance(ids, list) and all(type(i) is int for i in ids) else None
    count = len(known) if known else tokens if type(tokens) is int else 0
    if not isinstance(text, str) or (not text and not count):
        return Failure("no_text", "the reply holds no text")
    return Said(text, known or None, count, _FINISH[finish], prompt if type(prompt) is int else None)


def _row(said: Said, loaded: Loaded) -> dict[str, Any]:
    """The reply as generation here writes it; tokens are decoded here where the server tells them."""
    text = said.text
    if said.ids is not None:
        text = loaded.tokenizer.decode(list(said.ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return {"text": text, "tokens": said.tokens, "finish": said.finish}


def _require_sampling(asked: Sequence[Asked], rows: dict[int, dict[str, Any]], settings: GenerateSettings) -> None:
    """`UserError` when every prompt's sampled candidates are one text: some servers take a temperature in silence."""
    texts: dict[tuple[int, ...], set[str]] = {}
    for number, one in enumerate(asked):
        texts.setdefault(tuple(one.tokens), set()).add(rows[number]["text"])
    if settings.temperature > 0 and settings.candidates > 1 and 1 < len(texts) == sum(map(len, texts.values())):
        raise UserError(
            f"{settings.endpoint} gave every prompt {settings.candidates} times the same reply at temperature "
            f"{settings.temperature:g}: it does not sample; ask another server, or unset the endpoint"
        )


# How the server is asked


async def _route(server: Endpoint, model: str, asked: Asked, settings: GenerateSettings, loaded: Loaded) -> Route:
    """How the server is asked, found out by a reply of one token, which also shows that it works at all."""
    short = settings.model_copy(update={"max_new_tokens": 1})
    said = await _ask(server, model, "tokens", asked, short, loaded)
    if isinstance(said, Said) and said.prompt_tokens in (None, len(asked.tokens)):
        return "tokens"
    if isinstance(said, Failure) and said.why == "no_text":
        return "tokens"
    if isinstance(said, Failure) and (said.why, said.status in _NO_TOKENS) not in (
        ("status", True),
        ("not_json", False),
    ):
        raise unusable(server.settings, model, said, NAMES)
    by_chat = await _ask(server, model, "chat", asked, short, loaded)
    if isinstance(by_chat, Failure) and by_chat.why != "no_text":
        raise unusable(server.settings, model, by_chat, NAMES)
    why = said.reason if isinstance(said, Failure) else f"it read {said.prompt_tokens} tokens of {len(asked.tokens)}"
    log.warning(
        "%s takes no prompts as tokens (%s): messages are sent, and the chat template is the server's own",
        settings.endpoint,
        why,
    )
    return "chat"


async def _apart(
    server: Endpoint, model: str, route: Route, asked: Sequence[Asked], settings: GenerateSettings, loaded: Loaded
) -> float | None:
    """Largest difference, in nats, between the server's log-probability of the first token it gives greedily and this
    model's, over some prompts; None where the server does not tell. `UserError` when it is another model."""
    if route == "chat":
        return None
    from alignment_core.models.score import first_token_logprobs

    short = settings.model_copy(update={"max_new_tokens": 1, "temperature": 0.0})
    found: list[tuple[Prompt, int, float]] = []
    for one in asked[:COMPARED]:
        body = _body(model, "tokens", one, short, loaded.stop_ids) | {"logprobs": 1}
        first = await server.request("/completions", body, _first_token)
        if isinstance(first, Failure):
            log.debug("%s tells no log-probabilities: %s", settings.endpoint, first.reason)
            return None
        found.append((one.prompt, *first))
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


def _first_token(content: bytes) -> tuple[int, float] | Failure:
    """Token and log-probability of a reply of one token."""
    try:
        choice = json.loads(content)["choices"][0]
        return int(choice["token_ids"][0]), float(choice["logprobs"]["token_logprobs"][0])
    except (ValueError, RecursionError, LookupError, TypeError):
        return Failure("not_json", "the response has no token and log-probability")
