"""A model behind an OpenAI-compatible URL: bounded concurrency, a deadline and a size cap of our own, retry, resume.

The openai client's timeout is per read, its retries multiply it, and it reads a body of any size; so its retries are
off, every call has one deadline that covers all attempts and waits, and a response's stream is cut at `max_bytes`
whatever its status. What comes back is a `Reply` or a `Failure` with a reason: a failed call never looks like text.
Replies are kept in a journal by the hash of their request, so that no finished one is asked again; failed ones are.
The API key comes from an environment variable, goes into the request's header, and is cut out of every message.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai

from alignment_core.config import EndpointSettings
from alignment_core.errors import UserError
from alignment_core.io import Journal, canonical
from alignment_core.progress import Work, work
from alignment_core.records import Message

log = logging.getLogger("alignment_core")

Why = Literal["deadline", "connection", "status", "too_large", "not_json", "no_text", "not_asked"]
T = TypeVar("T")
_RETRY_STATUS = (408, 409, 425, 429)


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


class _TooLarge(Exception):
    """A response's body went past the cap, or is compressed so that its size cannot be known."""


class _Capped(httpx2.AsyncByteStream):
    """A response's body that ends with `_TooLarge` once it is longer than `limit` bytes."""

    def __init__(self, body: httpx2.AsyncByteStream, limit: int) -> None:
        self.body, self.limit = body, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self.body:
            size += len(part)
            if size > self.limit:
                raise _TooLarge(f"response larger than {self.limit} bytes")
            yield part

    async def aclose(self) -> None:
        await self.body.aclose()


def request_key(messages: Sequence[Message], settings: EndpointSettings) -> str:
    """What a reply is kept under: model, messages and sampling, but not where the server is."""
    return hashlib.sha256(canonical(_body(messages, settings)).encode()).hexdigest()[:32]


def _body(messages: Sequence[Message], settings: EndpointSettings) -> dict[str, Any]:
    """The request's JSON; lone surrogates, which UTF-8 cannot carry, become question marks."""
    return {
        "model": settings.model,
        "messages": [
            {"role": m.role, "content": m.content.encode("utf-8", "replace").decode("utf-8")} for m in messages
        ],
        settings.tokens_field: settings.max_tokens,
        "temperature": settings.temperature,
    }


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def api_key(settings: EndpointSettings) -> str:
    """The key from the environment; `UserError` when the variable is not set. Without one a placeholder is sent."""
    if settings.api_key_env is None:
        return "none"
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UserError(f"endpoint.api_key_env={settings.api_key_env}: the variable is not set to a key; export it")
    return key


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds of a Retry-After header (whole or decimal); None where there is none or it is a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


class Endpoint:
    """An open connection to an endpoint; use as `async with`. `UserError` for an address or key that cannot be."""

    def __init__(self, settings: EndpointSettings) -> None:
        address = urlsplit(settings.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UserError(f"endpoint.base_url={settings.base_url}: write an address such as http://127.0.0.1:8000/v1")
        if not settings.model:
            raise UserError("endpoint.model is empty: name the model as the server knows it")
        self.settings = settings
        self._key = api_key(settings)
        http = openai.DefaultAsyncHttpxClient(
            timeout=settings.deadline,
            follow_redirects=False,  # a redirect could carry the key to another host
            trust_env=not _loopback(address.hostname),  # a proxy cannot reach this machine's own loopback
            limits=httpx2.Limits(max_connections=settings.concurrency + 4),
            event_hooks={"response": [self._cap]},
        )
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=self._key,
            max_retries=0,
            http_client=http,
            default_headers={"Accept-Encoding": "identity"},
        )

    async def _cap(self, response: httpx2.Response) -> None:
        """Put the size cap on a response before its body is read."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _TooLarge("response is compressed, although plain was asked for")
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Capped(response.stream, self.settings.max_bytes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    def _clean(self, text: str) -> str:
        """One short printable line of a server's words, without the key."""
        text = text.replace(self._key, "***") if self._key != "none" else text
        return "".join(c if c.isprintable() else " " for c in text[:200]).strip()

    async def call(self, messages: Sequence[Message], max_tokens: int | None = None) -> Reply | Failure:
        """One call of the chat route, ended by its deadline at the latest."""
        begun = time.perf_counter()
        body = _body(messages, self.settings) | ({self.settings.tokens_field: max_tokens} if max_tokens else {})
        outcome = await self.request("/chat/completions", body, _read)
        return replace(outcome, seconds=time.perf_counter() - begun)

    async def request(
        self, path: str, body: dict[str, Any] | None, read: Callable[[bytes], T | Failure]
    ) -> T | Failure:
        """POST of `body` (GET where it is None) to a path under the address, with attempts until the deadline at the
        latest; `read` makes of a whole response's bytes what is wanted, or a failure."""
        settings, last = self.settings, None
        end = asyncio.get_running_loop().time() + settings.deadline
        try:
            async with asyncio.timeout_at(end):
                for attempt in range(settings.attempts):
                    outcome = await self._attempt(path, body, read)
                    if not isinstance(outcome, Failure):
                        return outcome
                    last = outcome
                    wait = settings.backoff * 2**attempt if last.wait is None else last.wait
                    enough = not last.retry or attempt + 1 == settings.attempts
                    if enough or asyncio.get_running_loop().time() + wait >= end:
                        break
                    await asyncio.sleep(wait)
        except TimeoutError:
            before = f", before that: {last.reason}" if last else ""
            return Failure("deadline", f"no whole reply within {settings.deadline:g} s{before}")
        assert last is not None  # at least one attempt was made
        return last

    async def _attempt(
        self, path: str, body: dict[str, Any] | None, read: Callable[[bytes], T | Failure]
    ) -> T | Failure:
        raw = httpx2.Response
        try:
            sent = self._client.post(path, cast_to=raw, body=body) if body else self._client.get(path, cast_to=raw)
            content = (await sent).content
        except openai.APIStatusError as error:
            status = error.status_code
            retry = status >= 500 or status in _RETRY_STATUS
            reason = f"HTTP {status}: {self._clean(error.message)}"
            return Failure("status", reason, status, retry, retry_after(error.response.headers))
        except _TooLarge as error:
            return Failure("too_large", str(error))
        except openai.OpenAIError as error:
            cause = error.__cause__ or error
            return Failure("connection", f"{type(cause).__name__}: {self._clean(str(cause))}", retry=True)
        except httpx2.HTTPError as error:
            return Failure("connection", f"{type(error).__name__}: {self._clean(str(error))}", retry=True)
        return read(content)


def _read(content: bytes) -> Reply | Failure:
    """The reply's text out of a response's body."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return Failure("not_json", "the response is not JSON", retry=True)
    try:
        text = answer["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        return Failure("not_json", "the response has no choices[0].message.content", retry=True)
    if not isinstance(text, str) or not text.strip():
        return Failure("no_text", "the reply holds no text")
    return Reply(text)


async def _check(settings: EndpointSettings) -> Reply | Failure:
    async with Endpoint(settings) as endpoint:
        return await endpoint.call([Message("user", "Say OK.")], max_tokens=4)


def check(settings: EndpointSettings) -> None:
    """Health check: one tiny completion. A server can hang while its model list still answers, so nothing less will
    do. `UserError` says what is wrong and what would work."""
    outcome = asyncio.run(_check(settings))
    if isinstance(outcome, Failure) and outcome.why != "no_text":
        raise unusable(settings, settings.model, outcome)


def unusable(
    settings: EndpointSettings,
    model: str,
    outcome: Failure,
    names: tuple[str, str, str] = ("base_url", "model", "api_key_env"),
) -> UserError:
    """The error that says in one line why a server does not do, and what would; `names` are what the user's settings
    call address, model and key."""
    key = f"the key in {settings.api_key_env}" if settings.api_key_env else f"a call without a key (set {names[2]})"
    advice = {
        401: f"it does not accept {key}",
        403: f"it does not allow {key} to use this model",
        404: f"no such path or model; {names[0]} usually ends in /v1",
        429: "it is over its rate limit or quota; try later or lower concurrency",
    }.get(outcome.status or 0, f"start the server, or mend {names[0]} and {names[1]}")
    return UserError(f"endpoint {settings.base_url}, model {model}: {outcome.reason}; {advice}")


def ask(requests: Sequence[Sequence[Message]], settings: EndpointSettings, file: Path) -> list[Reply | Failure]:
    """Every request's reply or failure, in order. `file` is the journal of replies by `request_key`: what stands in
    it is not asked again, equal requests are asked once, and failures are asked anew the next time. Before anything
    is asked the health check runs (`UserError`)."""
    journal = Journal(file, {"replies": "by request"})
    known: dict[str, Reply | Failure] = {row["key"]: Reply(row["text"]) for row in journal.rows}
    keys = [request_key(messages, settings) for messages in requests]
    open_ = {key: messages for key, messages in zip(keys, requests, strict=True) if key not in known}
    if open_:
        check(settings)
        with work("asking the endpoint", len(open_), "replies") as told:
            asyncio.run(_ask_all(open_, settings, journal, known, told))
    return [known[key] for key in keys]


async def at_once(worker: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    """Run `count` workers side by side until all end; when one fails, or this is cancelled, none outlives it."""
    workers = [asyncio.create_task(worker()) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _ask_all(
    requests: dict[str, Sequence[Message]],
    settings: EndpointSettings,
    journal: Journal,
    known: dict[str, Reply | Failure],
    told: Work,
) -> None:
    """Fills `known`; as many workers as calls may be under way share one queue."""
    queue = list(reversed(requests.items()))
    failed_in_a_row = 0

    async def go_on(endpoint: Endpoint) -> None:
        nonlocal failed_in_a_row
        while queue:
            key, messages = queue.pop()
            if settings.give_up_after and failed_in_a_row >= settings.give_up_after:
                known[key] = Failure("not_asked", f"not asked: {failed_in_a_row} calls failed in a row")
                continue
            known[key] = outcome = await endpoint.call(messages)
            told.advance()
            if isinstance(outcome, Reply):
                failed_in_a_row = 0
                # The disk may be slow; other calls' deadlines must not wait for it.
                await asyncio.to_thread(journal.append, {"key": key, "text": outcome.text})
            else:
                failed_in_a_row += 1
                log.debug("endpoint %s: %s", settings.base_url, outcome.reason)

    async with Endpoint(settings) as endpoint:
        await at_once(lambda: go_on(endpoint), min(settings.concurrency, len(requests)))
