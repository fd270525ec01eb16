"""Many requests to one endpoint: side by side, each answer kept as it comes, so that no finished one is asked again.

The journal holds replies, and what the server refused for good, by the hash of their request. A call that failed in
passing is in no journal: the next start asks it again. A journal in which no reply stands speaks for a server that
refuses everything, which is a setting to mend; its refusals are asked again, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.errors import Unfinished
from alignment_core.io import Journal, canonical
from alignment_core.models.endpoint import Endpoint, Unusable, check, request_body, run_calls
from alignment_core.models.outcome import Failure, Reply
from alignment_core.progress import Work, work
from alignment_core.records import Message

if TYPE_CHECKING:
    from alignment_core.config import EndpointSettings

log = logging.getLogger("alignment_core")

_THINKING = {
    True: "thinking is switched off (enable_thinking=false)",
    False: "the server takes no enable_thinking; a model that thinks needs max_tokens for it, and no thought is parsed",
}


def request_key(messages: Sequence[Message], settings: EndpointSettings) -> str:
    """What an answer is kept under: model, messages and sampling, but not where the server is."""
    return hashlib.sha256(canonical(request_body(messages, settings)).encode()).hexdigest()[:32]


def ask(
    requests: Sequence[Sequence[Message]], settings: EndpointSettings, file: Path, *, accept_missing: bool = False
) -> list[Reply | Failure]:
    """Every request's reply or failure, in order. `file` is the journal by `request_key`: what stands in it is not
    asked again, and equal requests are asked once. Before anything is asked the health check runs (`Unusable`); with
    `accept_missing` and replies of an earlier start, a server that fails it fails every request that is left."""
    journal = Journal(file, {"replies": "by request"})
    known = _known(journal.rows)
    keys = [request_key(messages, settings) for messages in requests]
    open_ = {key: messages for key, messages in zip(keys, requests, strict=True) if key not in known}
    if open_:
        try:
            more = check(settings)
        except Unusable as error:
            if not (accept_missing and known):
                raise
            return [known.get(key) or Failure("not_asked", f"not asked: {error}") for key in keys]
        log.info("%s at %s: %s", settings.model, settings.base_url, _THINKING[bool(more)])
        with work("asking the endpoint", len(open_), "replies") as shown:
            run_calls(_ask_all(open_, settings, more, journal, known, shown), settings.base_url)
    return [known[key] for key in keys]


def _known(rows: Iterable[dict[str, Any]]) -> dict[str, Reply | Failure]:
    """What a journal holds by request."""
    rows = list(rows)
    if not any("text" in row for row in rows):
        return {}
    return {
        row["key"]: Reply(row["text"]) if "text" in row else Failure(row["why"], row["reason"], row["status"])
        for row in rows
    }


def _kept(key: str, outcome: Reply | Failure) -> dict[str, Any]:
    """The journal's row."""
    if isinstance(outcome, Reply):
        return {"key": key, "text": outcome.text}
    return {"key": key, "why": outcome.why, "reason": outcome.reason, "status": outcome.status}


def require_finished(outcomes: Sequence[object], who: str, things: str, accept_missing: bool) -> None:
    """`Unfinished` when some of the outcomes are failures that pass and that is not accepted."""
    lost = [one for one in outcomes if isinstance(one, Failure) and one.passing]
    if lost and not accept_missing:
        raise Unfinished(who, len(lost), len(outcomes), things, lost[0].reason)


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
    more: dict[str, Any],
    journal: Journal,
    known: dict[str, Reply | Failure],
    shown: Work,
) -> None:
    """Fills `known`; as many workers as calls may be under way share one queue."""
    queue = list(reversed(requests.items()))
    failed_in_a_row = 0

    async def ask_on(endpoint: Endpoint) -> None:
        nonlocal failed_in_a_row
        while queue:
            key, messages = queue.pop()
            if settings.give_up_after and failed_in_a_row >= settings.give_up_after:
                known[key] = Failure("not_asked", f"not asked: {failed_in_a_row} calls failed in a row")
                continue
            known[key] = outcome = await endpoint.call(messages)
            shown.advance()
            if isinstance(outcome, Failure):
                log.debug("endpoint %s: %s", settings.base_url, outcome.reason)
                if outcome.passing:
                    failed_in_a_row += 1
                    continue
            failed_in_a_row = 0
            # The disk may be slow; other calls' deadlines must not wait for it.
            await asyncio.to_thread(journal.append, _kept(key, outcome))

    async with Endpoint(settings, more) as endpoint:
        await at_once(lambda: ask_on(endpoint), min(settings.concurrency, len(requests)))
