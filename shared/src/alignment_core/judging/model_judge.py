"""The judge `model`: a model in this process that gives one of four labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.config import GenerateSettings
from alignment_core.judging.asking import choice_probabilities, special_tokens, written_answers
from alignment_core.judging.question import PREFIX, parse_verdict, questions
from alignment_core.judging.verdicts import TOO_LONG, Entry, Judge, answers_name, verdict
from alignment_core.records import LABELS, Completion, Message, Verdict

if TYPE_CHECKING:
    from alignment_core.judging.settings import JudgeSettings
    from alignment_core.models.load import Loaded


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
        asked = questions(replies, self.settings.max_chars, special_tokens(self.loaded))
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


def _make(settings: JudgeSettings) -> Judge:
    def load() -> Loaded:
        from alignment_core.models import load

        return load.load(settings.model)

    return ModelJudge(load, settings)


def _identity(settings: JudgeSettings) -> dict[str, Any]:
    from alignment_core.models.load import identity

    how = settings.model_dump(mode="json", include={"reads", "max_chars", "max_new_tokens"})
    return {"model": identity(settings.model), **how}


def _check(settings: JudgeSettings) -> None:
    from alignment_core.models.load import identity

    identity(settings.model)


ENTRIES = {
    "model": Entry(
        "A local model that gives one of four labels (judging.model).", _make, _identity, _check, together=True
    )
}
