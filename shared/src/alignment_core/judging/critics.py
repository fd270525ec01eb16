"""The constitution critic: replies scored from 1 to 5, by the digits' probabilities, in writing, or both.

By digits the score is the most probable of 1 to 5 after `SCORE: ` and the expected score stands beside it (Liu et al.
2023, arXiv 2303.16634, weigh scores by their probabilities); the constitution and all else that every question begins
with is computed once. One model is in memory while this runs, and none afterwards.

The embedded model's critic, its rubric and its replies come from one grammar: it is not an independent judge.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.config import GenerateSettings
from alignment_core.errors import UserError
from alignment_core.judging import constitution as constitutions
from alignment_core.judging import critique
from alignment_core.judging.asking import choice_probabilities, special_tokens, written_answers
from alignment_core.judging.asking_server import server_answers
from alignment_core.judging.constitution import Constitution
from alignment_core.judging.critique import Critique
from alignment_core.judging.verdicts import TOO_LONG, NoVerdicts
from alignment_core.organism.principles import DEFAULT, LONGEST
from alignment_core.records import Completion, Message

if TYPE_CHECKING:
    from alignment_core.judging.settings import CriticSettings
    from alignment_core.models.load import Loaded

log = logging.getLogger("alignment_core")

WARN_MISSING = 0.05


def identity(settings: CriticSettings, constitution: Constitution) -> dict[str, Any]:
    """What decides a critic's scores, as JSON for a step's key; where a server is and its key are not in it."""
    asked = {**critique.identity(settings.style, constitution), "max_chars": settings.max_chars}
    if settings.via == "endpoint":
        of = settings.endpoint.model_dump(mode="json", include={"model", "max_tokens", "tokens_field", "temperature"})
        return {**asked, "endpoint": of}
    from alignment_core.models import load

    how = settings.model_dump(mode="json", include={"scoring", "max_new_tokens", "temperature", "batch_size"})
    return {**asked, **how, "model": load.identity(settings.model)}


def same_critic(a: CriticSettings, b: CriticSettings) -> bool:
    """Whether two critics are one model, however each is asked."""
    if a.via != b.via:
        return False
    if a.via == "endpoint":
        return (a.endpoint.base_url, a.endpoint.model) == (b.endpoint.base_url, b.endpoint.model)
    return (a.model.name, a.model.revision) == (b.model.name, b.model.revision)


def own_constitution(settings: CriticSettings) -> Constitution:
    """The constitution that a critic's settings name, for the embedded critic four of its ten principles.
    `UserError` where one lacks, or is longer than the embedded critic can read."""
    if settings.constitution is not None:
        found = constitutions.read(settings.constitution)
        if settings.style == "organism" and len(found.principles) > LONGEST:
            raise UserError(f"{settings.constitution}: the embedded critic reads at most {LONGEST} principles")
        return found
    if settings.style != "organism":
        raise UserError(
            f"critic.style={settings.style} needs critic.constitution: a text file of numbered principles, "
            "for example `1. Do no harm.`"
        )
    return Constitution(DEFAULT)


def criticise(
    completions: Sequence[Completion],
    settings: CriticSettings,
    constitution: Constitution,
    folder: Path,
    *,
    name: str = "critiques",
    loaded: Loaded | None = None,
    accept_missing: bool = False,
) -> list[Critique]:
    """One critique of each completion, in order; files that let a killed call go on stand in `folder` under `name`.

    `loaded` is the critic where the caller holds it already. A completion without a reply is not shown to the critic:
    its score is missing. A share of missing scores over 5% is logged. Raises `NoVerdicts` when all are missing, and
    `Unfinished` when calls to a server failed in passing, unless `accept_missing`.
    """
    replies = [c for c in completions if not c.failure]
    if not replies:
        given = []
    elif settings.via == "endpoint":
        answers = folder / f"{name}.answers.jsonl"
        given = _by_server(replies, settings, constitution, answers, accept_missing)
    elif loaded is not None:
        given = _local(replies, settings, constitution, folder, name, loaded)
    else:
        from alignment_core.models import load

        held = load.load(settings.model)
        given = _local(replies, settings, constitution, folder, name, held)
        del held
        load.free()
    rest = iter(given)
    out = [Critique(c.prompt_id, c.candidate, None, why=c.failure) if c.failure else next(rest) for c in completions]
    _report_missing(out)
    return out


def _report_missing(critiques: Sequence[Critique]) -> None:
    lost = [c for c in critiques if c.score is None]
    if critiques and len(lost) == len(critiques):
        raise NoVerdicts("critic", len(critiques), lost[0].why)
    if len(lost) > WARN_MISSING * len(critiques):
        log.warning("%d of %d scores are missing; the first: %s", len(lost), len(critiques), lost[0].why)


def _local(
    replies: Sequence[Completion],
    settings: CriticSettings,
    constitution: Constitution,
    folder: Path,
    name: str,
    loaded: Loaded,
) -> list[Critique]:
    special = special_tokens(loaded)
    asked = [
        critique.question(settings.style, constitution, r.prompt, r.text, settings.max_chars, special) for r in replies
    ]
    out = [Critique(r.prompt_id, r.candidate, None) for r in replies]
    if settings.scoring != "generate":
        out = _by_digits(out, asked, settings, loaded, folder / f".{name}.digits.journal")
    if settings.scoring != "digits":
        how = GenerateSettings(
            max_new_tokens=settings.max_new_tokens, batch_size=settings.batch_size, temperature=settings.temperature
        )
        written = written_answers(asked, how, loaded, subject="critic", file=folder / f"{name}.jsonl")
        known = len(constitution.principles)
        out = [_with_words(c, texts[0], known, settings) for c, texts in zip(out, written, strict=True)]
    return out


def _by_digits(
    blank: Sequence[Critique],
    asked: Sequence[Sequence[Message]],
    settings: CriticSettings,
    loaded: Loaded,
    journal: Path,
) -> list[Critique]:
    """Most probable and expected digit of each question, from one forward pass; missing where it does not fit."""
    rows = choice_probabilities(asked, critique.PREFIX, critique.DIGITS, loaded, settings.batch_size, journal)
    return [_with_digits(c, row) for c, row in zip(blank, rows, strict=True)]


def _with_digits(one: Critique, row: Sequence[float] | None) -> Critique:
    if row is None:
        return replace(one, why=TOO_LONG)
    score = 1 + max(range(5), key=lambda i: (row[i], -i))
    return replace(one, score=score, expected=sum((i + 1) * p for i, p in enumerate(row)) / sum(row))


def _with_words(one: Critique, text: str | None, principles: int, settings: CriticSettings) -> Critique:
    if text is None:
        return replace(one, why=TOO_LONG)
    said = critique.parse(text, principles)
    score = one.score if settings.scoring == "both" else said.score
    return replace(
        one, score=score, written=said.score, reason=said.reason, principle=said.principle, why=one.why or said.why
    )


def _by_server(
    replies: Sequence[Completion],
    settings: CriticSettings,
    constitution: Constitution,
    file: Path,
    accept_missing: bool,
) -> list[Critique]:
    from alignment_core.models.outcome import Reply

    asked = [critique.question(settings.style, constitution, r.prompt, r.text, settings.max_chars) for r in replies]
    known = len(constitution.principles)
    out = []
    for one, answer in zip(
        replies, server_answers(asked, settings.endpoint, "critic", file, accept_missing), strict=True
    ):
        blank = Critique(one.prompt_id, one.candidate, None)
        if isinstance(answer, Reply):
            out.append(_with_words(blank, answer.text, known, settings))
        else:
            out.append(replace(blank, why=answer.reason))
    return out
