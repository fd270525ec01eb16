"""The judge `endpoint`: a model behind an OpenAI-compatible URL that gives one of four labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.judging.asking_server import check_endpoint, server_answers
from alignment_core.judging.question import parse_verdict, questions
from alignment_core.judging.verdicts import Entry, Judge, answers_name, verdict
from alignment_core.records import Completion, Verdict

if TYPE_CHECKING:
    from alignment_core.judging.settings import JudgeSettings


class EndpointJudge(Judge):
    """A model behind an OpenAI-compatible URL answers the judging question. Finished answers are never asked again."""

    name = "endpoint"

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings

    def verdicts(self, replies: Sequence[Completion], file: Path, accept_missing: bool) -> list[Verdict]:
        from alignment_core.models.outcome import Reply

        answers = file.with_name(f"{answers_name(file)}.jsonl")
        asked = questions(replies, self.settings.max_chars)
        out = []
        for reply, answer in zip(
            replies, server_answers(asked, self.settings.endpoint, self.name, answers, accept_missing), strict=True
        ):
            label, why = parse_verdict(answer.text) if isinstance(answer, Reply) else (None, answer.reason)
            out.append(verdict(reply, self.name, label, why))
        return out


def _identity(settings: JudgeSettings) -> dict[str, Any]:
    of = settings.endpoint.model_dump(mode="json", include={"model", "max_tokens", "tokens_field", "temperature"})
    return {"model": of, "max_chars": settings.max_chars}


ENTRIES = {
    "endpoint": Entry(
        "A model behind an OpenAI-compatible URL that gives one of four labels (judging.endpoint).",
        EndpointJudge,
        _identity,
        lambda settings: check_endpoint(settings.endpoint, "judging.endpoint"),
    )
}
