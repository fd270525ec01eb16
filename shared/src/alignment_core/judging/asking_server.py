"""Questions to a server that judges: one call each, finished answers kept, so that a killed judge goes on there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.errors import UserError
from alignment_core.pipeline.process_group import process_group

if TYPE_CHECKING:
    from alignment_core.config import EndpointSettings
    from alignment_core.models.outcome import Failure, Reply
    from alignment_core.records import Message


def check_endpoint(settings: EndpointSettings, setting: str) -> None:
    """Ask the server that `setting` names for one tiny completion; `UserError` when there is no answer."""
    if not settings.model:
        raise UserError(f"{setting}.model is empty: name the model as the server at {settings.base_url} knows it")
    from alignment_core.models.endpoint import check

    check(settings)


def server_answers(
    asked: Sequence[Sequence[Message]], settings: EndpointSettings, who: str, file: Path, accept_missing: bool
) -> list[Reply | Failure]:
    """A server's answer to each question, or why there is none; `file` keeps them. Raises `Unfinished` after all calls
    when some failed in passing, unless `accept_missing`. Every process of the group gets all."""
    from alignment_core.models.calls import ask, require_finished

    def answers() -> list[Reply | Failure]:
        found = ask(asked, settings, file, accept_missing=accept_missing)
        require_finished(found, f"judge {who}", "verdicts", accept_missing)
        return found

    return process_group().broadcast(answers)
