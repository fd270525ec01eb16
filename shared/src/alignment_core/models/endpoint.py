"""A model behind an OpenAI-compatible URL: one call at a time, with a deadline, a size cap and retries of our own.

The openai client's timeout is per read, its retries multiply it, and it reads a body of any size; so its retries are
off, every call has one deadline that covers all attempts and waits, and a response's stream is cut at `max_bytes`
whatever its status. A connection serves one call: bytes that a server sends after a response can then never be read as
the next call's. What comes back is a `Reply` or a `Failure` with a reason: a failed call never looks like text.

The API key comes from an environment variable and goes into the request's header. Every byte a server sends is
redacted (`redaction.py`) before anything parses, keeps or logs it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai

from alignment_core.errors import UserError
from alignment_core.models.outcome import RETRY_STATUS, Failure, Reply, error_message, read_chat
from alignment_core.models.redaction import redact, redact_bytes
from alignment_core.records import Message

if TYPE_CHECKING:
    from alignment_core.config import EndpointSettings

T = TypeVar("T")
NO_KEY = "none"
"""What is sent where no key is set: the client cannot send none."""
SHORTEST_KEY = 8
"""A shorter key occurs in text by chance, so that it cannot be cut out of replies."""


NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}
"""What switches a model's thinking off where the server renders the chat template (vLLM, SGLang, llama.cpp)."""


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


def request_body(messages: Sequence[Message], settings: EndpointSettings) -> dict[str, Any]:
    """The chat request's JSON; lone surrogates, which UTF-8 cannot carry, become question marks."""
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
    """The key from the environment; `UserError` when the variable holds none. Without one a placeholder is sent."""
    if settings.api_key_env is None:
        return NO_KEY
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UserError(f"endpoint.api_key_env={settings.api_key_env}: the variable is not set to a key; export it")
    if len(key) < SHORTEST_KEY:
        raise UserError(
            f"endpoint.api_key_env={settings.api_key_env}: a key of fewer than {SHORTEST_KEY} characters occurs in "
            "text by chance and cannot be kept out of files; set a longer one, or none where the server needs none"
        )
    return key


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds of a Retry-After header (whole or decimal); None where there is none or it is a date."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


class Unusable(UserError):
    """A server that does not answer, or not with this key, model or route."""


class Endpoint:
    """An open client of an endpoint; use as `async with`. `UserError` for an address or key that cannot be.

    `more` is put into the body of every call of the chat route.
    """

    def __init__(self, settings: EndpointSettings, more: Mapping[str, Any] | None = None) -> None:
        if not settings.model:
            raise UserError("endpoint.model is empty: name the model as the server knows it")
        self.settings, self.more = settings, dict(more or {})
        self._key = api_key(settings)
        try:
            http = openai.DefaultAsyncHttpxClient(
                timeout=settings.deadline,
                follow_redirects=False,  # a redirect could carry the key to another host
                trust_env=not _loopback(urlsplit(settings.base_url).hostname or ""),  # a proxy cannot reach loopback
                limits=httpx2.Limits(max_connections=settings.concurrency + 4, max_keepalive_connections=0),
                event_hooks={"response": [self._cap]},
            )
            self._client = openai.AsyncOpenAI(
                base_url=settings.base_url,
                api_key=self._key,
                max_retries=0,
                http_client=http,
                default_headers={"Accept-Encoding": "identity"},
            )
        except httpx2.InvalidURL as error:
            raise UserError(f"the endpoint's address cannot be: {error}; write http://127.0.0.1:8000/v1") from error

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

    def _line(self, text: str) -> str:
        """One short printable line of a server's words, without the key."""
        text = text if self._key == NO_KEY else redact(text, self._key)
        return "".join(c if c.isprintable() else " " for c in text[:200]).strip()

    def _content(self, response: httpx2.Response) -> bytes:
        """A response's body without the key."""
        return response.content if self._key == NO_KEY else redact_bytes(response.content, self._key)

    async def call(self, messages: Sequence[Message], max_tokens: int | None = None) -> Reply | Failure:
        """One call of the chat route, ended by its deadline at the latest."""
        begun = time.perf_counter()
        body = request_body(messages, self.settings) | self.more
        if max_tokens:
            body[self.settings.tokens_field] = max_tokens
        outcome = await self.request("/chat/completions", body, partial(read_chat, model=self.settings.model))
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
            content = self._content(await sent)
        except openai.APIStatusError as error:
            status = error.status_code
            reason = f"HTTP {status}: {self._line(error_message(self._content(error.response)))}"
            retry = status >= 500 or status in RETRY_STATUS
            return Failure("status", reason, status, retry, retry_after(error.response.headers))
        except _TooLarge as error:
            return Failure("too_large", str(error))
        except openai.OpenAIError as error:
            cause = error.__cause__ or error
            return Failure("connection", f"{type(cause).__name__}: {self._line(str(cause))}", retry=True)
        except httpx2.HTTPError as error:
            return Failure("connection", f"{type(error).__name__}: {self._line(str(error))}", retry=True)
        return read(content)


def run_calls(calls: Coroutine[Any, Any, T], where: str) -> T:
    """What `calls` returns; `UserError` where this machine's own limits (files, memory, threads) stop them."""
    try:
        return asyncio.run(calls)
    except (OSError, MemoryError) as error:
        why = getattr(error, "strerror", None) or str(error) or "out of memory"
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        why = str(error)
    raise UserError(f"calls to {where} cannot be made or kept: {why}; raise this machine's limits or free space")


async def _check(settings: EndpointSettings, more: Mapping[str, Any]) -> Reply | Failure:
    async with Endpoint(settings, more) as endpoint:
        return await endpoint.call([Message("user", "Say OK.")], max_tokens=4)


def check(settings: EndpointSettings) -> dict[str, Any]:
    """Health check: one tiny completion. A server can hang while its model list still answers, so nothing less will
    do. Returns what to put into every body: `NO_THINKING`, or nothing where the server takes no such key. `Unusable`
    says what is wrong and what would work."""
    more: dict[str, Any] = NO_THINKING
    outcome = run_calls(_check(settings, more), settings.base_url)
    if isinstance(outcome, Failure) and outcome.status in (400, 422):
        more = {}
        outcome = run_calls(_check(settings, more), settings.base_url)
    if isinstance(outcome, Failure) and outcome.why != "no_text":
        raise unusable(settings, settings.model, outcome)
    return more


def unusable(
    settings: EndpointSettings,
    model: str,
    outcome: Failure,
    names: tuple[str, str, str] = ("base_url", "model", "api_key_env"),
) -> Unusable:
    """The error that says in one line why a server does not do, and what would; `names` are what the user's settings
    call address, model and key."""
    key = f"the key in {settings.api_key_env}" if settings.api_key_env else f"a call without a key (set {names[2]})"
    advice = {
        401: f"it does not accept {key}",
        403: f"it does not allow {key} to use this model",
        404: f"no such path or model; {names[0]} usually ends in /v1",
        429: "it is over its rate limit or quota; try later or lower concurrency",
    }.get(outcome.status or 0, f"start the server, or mend {names[0]} and {names[1]}")
    return Unusable(f"endpoint {settings.base_url}, model {model}: {outcome.reason}; {advice}")
