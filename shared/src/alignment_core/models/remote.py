"""Replies from a server instead of the model in memory: vLLM, or anything that speaks OpenAI's protocol.

The prompts' own tokens go to `/completions` where the server takes them (vLLM does), so that template and tokens are
the same as here; a server that does not gets the messages at `/chat/completions` and puts its own template on them,
which the log and the report say. The state that is asked is the one in memory, with the adapter that is on
it (`serving.py`); where the server gives log-probabilities, those of some first tokens are compared with this model's
before anything else is asked, so that no other model answers in silence.

Each reply is kept as it comes. Calls that failed in passing leave the plan unfinished, and the same call asks for the
rest; with `accept_missing` they are missing. A prompt that the server refuses for good is missing with its reason. A
missing reply is a row with `failure`, which no judge sees. A server's arithmetic is not this machine's, so its greedy
text may differ; the journal, the plan and a step's key all say that a server made it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignment_core import progress
from alignment_core.config import EndpointSettings, GenerateSettings
from alignment_core.errors import UserError
from alignment_core.io import Journal, recover_jsonl, write_json
from alignment_core.models.calls import at_once, require_finished
from alignment_core.models.endpoint import Endpoint, Unusable, run_calls
from alignment_core.models.outcome import Failure
from alignment_core.models.server_reply import Asked, ask_one, reply_row
from alignment_core.models.server_route import find_route, nats_apart
from alignment_core.models.serving import base_model, state

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded
    from alignment_core.progress import Work


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
    accept_missing: bool = False,
) -> list[dict[str, Any]]:
    """Text, tokens, finish (and failure) of every reply in order; `<file>.served.json` says who made them.

    `header` names the plan. `UserError` when the server, its base model or the adapter cannot be used; `Unfinished`
    when calls failed in passing and that is not accepted: what came stands in a journal beside `file`.
    """
    if not asked:
        return []
    calls = _replies(asked, settings, loaded, subject, file, header, accept_missing)
    return run_calls(calls, str(settings.endpoint))


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


class _Served(NamedTuple):
    """What stands in a plan's journal: how the server was asked, rows by number, and failed calls by number."""

    about: dict[str, Any]
    rows: dict[int, dict[str, Any]]
    failed: dict[int, Failure]


async def _replies(
    asked: Sequence[Asked],
    settings: GenerateSettings,
    loaded: Loaded,
    subject: str,
    file: Path,
    header: dict[str, Any],
    accept_missing: bool,
) -> list[dict[str, Any]]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        served = await _ask_server(asked, settings, loaded, subject, file, header)
    except Unusable as error:
        kept = _kept(asked, file, header, str(error)) if accept_missing else None
        if kept is None:
            raise
        served = kept
    outcomes = [served.rows.get(n) or served.failed[n] for n in range(len(asked))]
    require_finished(outcomes, f"{subject} at {settings.endpoint}", "replies", accept_missing)
    rows = [reply_row(one, loaded) if isinstance(one, Failure) else one for one in outcomes]
    if all("failure" in row for row in rows):
        raise UserError(f"{subject}: {settings.endpoint} gave no reply to any prompt; the first: {rows[0]['failure']}")
    _require_sampling(asked, rows, settings)
    write_json(served_file(file), served.about)
    return rows


async def _ask_server(
    asked: Sequence[Asked],
    settings: GenerateSettings,
    loaded: Loaded,
    subject: str,
    file: Path,
    header: dict[str, Any],
) -> _Served:
    """Ask for every reply that the journal lacks. `Unusable` and other `UserError` before the first is asked."""
    async with Endpoint(_where(settings)) as server:
        base = await base_model(server, settings)
        async with state(server, base, loaded, file, subject) as model:
            route = await find_route(server, model, asked, settings, loaded)
            adapter = None if model == base else model.rsplit("-", 1)[0]  # without its place, which decides nothing
            about: dict[str, Any] = {"route": route, "base": base, "adapter": adapter}
            apart = await nats_apart(server, model, route, asked[:: settings.candidates], settings, loaded)
            journal = Journal(journal_file(file), header | {"served": about})
            rows = _rows(journal.rows)

            async def ask(number: int) -> Failure | None:
                outcome = await ask_one(server, model, route, asked[number], settings, loaded)
                if isinstance(outcome, Failure) and outcome.passing:
                    return outcome
                rows[number] = reply_row(outcome, loaded)
                # The disk may be slow; other calls' deadlines must not wait for it.
                await asyncio.to_thread(journal.append, {"n": number, "reply": rows[number]})
                return None

            open_ = [n for n in range(len(asked)) if n not in rows]
            with progress.work(f"replies of {subject} from the server", len(asked), "replies", len(rows)) as shown:
                failed = await _each(open_, ask, settings.batch_size, shown)
    return _Served(about | {"first_token_nats_apart": apart}, rows, failed)


def _rows(journal: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """A journal's rows by number; what a server refused counts once it has given a reply to something."""
    rows = {row["n"]: row["reply"] for row in journal}
    return rows if any("failure" not in row for row in rows.values()) else {}


def _kept(asked: Sequence[Asked], file: Path, header: dict[str, Any], why: str) -> _Served | None:
    """What an earlier start kept, everything else not asked; None where it kept no reply of this plan."""
    first, *journal = recover_jsonl(journal_file(file)) or [{}]
    about = first.get("journal", {}).get("served")
    if about is None or first["journal"] != header | {"served": about} or not (rows := _rows(journal)):
        return None
    failure = Failure("not_asked", f"not asked: {why}")
    failed = {n: failure for n in range(len(asked)) if n not in rows}
    return _Served(about | {"first_token_nats_apart": None}, rows, failed)


Ask = Callable[[int], Awaitable[Failure | None]]
"""Asks for the reply of that number and keeps it, or says how the call failed in passing."""


async def _each(numbers: Sequence[int], ask: Ask, together: int, shown: Work) -> dict[int, Failure]:
    """Ask for every reply, `together` at once; the failures by number. Gives up once more calls in a row failed
    than may be under way: a dead server is not asked for each of thousands of prompts."""
    queue, failed, in_a_row = list(reversed(numbers)), {}, 0

    async def work() -> None:
        nonlocal in_a_row
        while queue:
            number = queue.pop()
            if in_a_row > together:
                failed[number] = Failure("not_asked", f"not asked: {in_a_row} calls failed in a row")
            elif failure := await ask(number):
                in_a_row += 1
                failed[number] = failure
            else:
                in_a_row = 0
                shown.advance()

    await at_once(work, min(together, len(numbers)))
    return failed


def _require_sampling(asked: Sequence[Asked], rows: Sequence[dict[str, Any]], settings: GenerateSettings) -> None:
    """`UserError` when every prompt's sampled candidates are one text: some servers take a temperature in silence."""
    texts: dict[tuple[int, ...], list[str]] = {}
    for one, row in zip(asked, rows, strict=True):
        if "failure" not in row:
            texts.setdefault(tuple(one.tokens), []).append(row["text"])
    repeated = [set(given) for given in texts.values() if len(given) > 1]
    if settings.temperature > 0 and len(repeated) > 1 and all(len(given) == 1 for given in repeated):
        raise UserError(
            f"{settings.endpoint} gave every prompt {settings.candidates} times the same reply at temperature "
            f"{settings.temperature:g}: it does not sample; ask another server, or unset the endpoint"
        )
