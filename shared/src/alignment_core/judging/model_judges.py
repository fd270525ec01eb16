"""Judges that are a model: in this process, or behind an OpenAI-compatible URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.config import GenerateSettings
from alignment_core.judging.asking import choice_probabilities, server_answers, special_tokens, written_answers
from alignment_core.judging.question import PREFIX, parse_verdict, question
from alignment_core.judging.settings import JudgeSettings
from alignment_core.judging.verdicts import TOO_LONG, Judge, answers_name, verdict
from alignment_core.records import LABELS, Completion, Message, Verdict

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded


def _questions(
    replies: Sequence[Completion], settings: JudgeSettings, special: Sequence[str] = ()
) -> list[tuple[Message, ...]]:
    """The question about each reply."""
    return [(Message("user", question(r.prompt, r.text, settings.max_chars, special)),) for r in replies]


class ModelJudge(Judge):
    """A model in this process answers the judging question; `load` is called once, at the first verdict.

    By probabilities the verdict is the most probable label after `VERDICT:`, and its score is that probability among
    the four. In writing it is the label in the greedy answer.
    """

    def __init__(self, load: Callable[[], Loaded], settings: JudgeSettings, name: str = "model") -> None:
        self.name, self.settings, self._load = name, settings, load
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def verdicts(self, replies: Sequence[Completion], file: Path, accept_missing: bool) -> list[Verdict]:
        asked = _questions(replies, self.settings, special_tokens(self.loaded))
        by = self._by_probabilities if self.settings.reads == "probabilities" else self._in_writing
        return by(replies, asked, file)

    def _by_probabilities(
        self, replies: Sequence[Completion], asked: Sequence[Sequence[Message]], file: Path
    ) -> list[Verdict]:
        journal = file.with_name(f".{answers_name(file)}.journal")
        choices = [f" {label}" for label in LABELS]
        rows = choice_probabilities(asked, PREFIX, choices, self.loaded, self.settings.batch_size, journal)
        out = []
        for reply, row in zip(replies, rows, strict=True):
            if row is None:
                out.append(verdict(reply, self.name, None, TOO_LONG))
            else:
                best = max(range(len(LABELS)), key=lambda i: (row[i], -i))
                out.append(verdict(reply, self.name, LABELS[best], score=row[best]))
        return out

    def _in_writing(
        self, replies: Sequence[Completion], asked: Sequence[Sequence[Message]], file: Path
    ) -> list[Verdict]:
        how = GenerateSettings(max_new_tokens=self.settings.max_new_tokens, batch_size=self.settings.batch_size)
        answers = file.with_name(f"{answers_name(file)}.jsonl")
        out = []
        for reply, (text,) in zip(
            replies, written_answers(asked, how, self.loaded, subject=self.name, file=answers), strict=True
        ):
            label, why = (None, TOO_LONG) if text is None else parse_verdict(text)
            out.append(verdict(reply, self.name, label, why))
        return out


class EndpointJudge(Judge):
    """A model behind an OpenAI-compatible URL answers the judging question. Finished answers are never asked again."""

    name = "endpoint"

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings

    def verdicts(self, replies: Sequence[Completion], file: Path, accept_missing: bool) -> list[Verdict]:
        from alignment_core.models.outcome import Reply

        answers = file.with_name(f"{answers_name(file)}.jsonl")
        asked = _questions(replies, self.settings)
        out = []
        for reply, answer in zip(
            replies, server_answers(asked, self.settings.endpoint, self.name, answers, accept_missing), strict=True
        ):
            label, why = parse_verdict(answer.text) if isinstance(answer, Reply) else (None, answer.reason)
            out.append(verdict(reply, self.name, label, why))
        return out
