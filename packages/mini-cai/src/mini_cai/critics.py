"""Asking the critic: by the digits' probabilities in one pass, by written critiques, or both; here or behind a URL.

By digits the score is the most probable of 1 to 5 after `SCORE: ` and the expected score stands beside it (Liu et al.
2023, arXiv 2303.16634, weigh scores by their probabilities); the constitution and all else that every question begins
with is computed once. Finished answers are kept at the edge of a slice of the full plan, so that a killed critic goes
on where it was. One model is in memory while this runs, and none afterwards.
"""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.config import GenerateSettings
from alignment_core.io import Journal, canonical
from alignment_core.judging.judges import NO_ROOM, NoVerdicts
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Completion, Message, Prompt
from mini_cai import critique
from mini_cai.config import CriticSettings
from mini_cai.constitution import Constitution
from mini_cai.critique import Critique

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded

log = logging.getLogger(__name__)

SLICE = 16
"""Batches between two rows of the digits' journal."""
WARN_MISSING = 0.05


def free() -> None:
    """Give a model's memory back once nothing holds it."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def identity(settings: CriticSettings, constitution: Constitution) -> dict[str, Any]:
    """What decides a critic's words, as JSON for a step's key; where a server is and its key are not in it."""
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


def criticise(
    candidates: Sequence[Completion],
    settings: CriticSettings,
    constitution: Constitution,
    folder: Path,
    *,
    name: str = "critiques",
    loaded: Loaded | None = None,
) -> list[Critique]:
    """One critique of each candidate, in order; files that let a killed call go on stand in `folder` under `name`.

    `loaded` is the critic where the caller holds it already. A share of missing scores over 5% is logged; raises
    `NoVerdicts` when all are missing.
    """
    if settings.via == "endpoint":
        out = _endpoint(candidates, settings, constitution, folder / f"{name}.answers.jsonl")
    elif loaded is not None:
        out = _local(candidates, settings, constitution, folder, name, loaded)
    else:
        from alignment_core.models import load

        held = load.load(settings.model)
        out = _local(candidates, settings, constitution, folder, name, held)
        del held
        free()
    _report_missing(out)
    return out


def _report_missing(critiques: Sequence[Critique]) -> None:
    lost = [c for c in critiques if c.score is None]
    if critiques and len(lost) == len(critiques):
        raise NoVerdicts("critic", len(critiques), lost[0].why)
    if len(lost) > WARN_MISSING * len(critiques):
        log.warning("%d of %d scores are missing; the first: %s", len(lost), len(critiques), lost[0].why)


def special_tokens(loaded: Loaded) -> list[str]:
    """Texts that mean something to the critic's tokenizer, which a candidate must not be able to write."""
    return [*loaded.tokenizer.all_special_tokens, *loaded.tokenizer.get_added_vocab()]


def _local(
    candidates: Sequence[Completion],
    settings: CriticSettings,
    constitution: Constitution,
    folder: Path,
    name: str,
    loaded: Loaded,
) -> list[Critique]:
    special = special_tokens(loaded)
    asked = [
        critique.question(settings.style, constitution, c.prompt, c.text, settings.max_chars, special)
        for c in candidates
    ]
    out = [Critique(c.prompt_id, c.candidate, None) for c in candidates]
    if settings.scoring != "generate":
        out = by_digits(out, asked, settings, loaded, folder / f".{name}.digits.journal")
    if settings.scoring != "digits":
        written = by_writing(asked, settings, loaded, folder / f"{name}.jsonl", seed=0)
        known = len(critique.principles(settings.style, constitution))
        out = [_with_words(c, texts[0], known, settings) for c, texts in zip(out, written, strict=True)]
    return out


def by_digits(
    blank: Sequence[Critique],
    asked: Sequence[Sequence[Message]],
    settings: CriticSettings,
    loaded: Loaded,
    journal_file: Path,
) -> list[Critique]:
    """Most probable and expected digit of each question, from one forward pass; missing where it does not fit."""
    from alignment_core.models.score import choice_logprobs

    plan = hashlib.sha256(canonical([[m.content for m in q] for q in asked]).encode()).hexdigest()
    share, header = process_group(), {"questions": plan, "batch_size": settings.batch_size}
    journal = Journal(journal_file, header) if share.is_main else None
    known = share.broadcast(lambda: list(journal.rows) if journal else [])
    size = settings.batch_size * SLICE
    rows: list[list[float] | None] = []
    for number, start in enumerate(range(0, len(asked), size)):
        if number < len(known):
            rows += known[number]["p"]
            continue
        part = asked[start : start + size]
        found = choice_logprobs(loaded, part, critique.PREFIX, critique.DIGITS, settings.batch_size)
        made = [None if row is None else row.double().exp().tolist() for row in found]
        if journal is not None:
            journal.append({"p": made})
        rows += made
    return [_with_digits(c, row) for c, row in zip(blank, rows, strict=True)]


def _with_digits(one: Critique, row: Sequence[float] | None) -> Critique:
    if row is None:
        return replace(one, why=NO_ROOM)
    score = 1 + max(range(5), key=lambda i: (row[i], -i))
    return replace(one, score=score, expected=sum((i + 1) * p for i, p in enumerate(row)) / sum(row))


def by_writing(
    asked: Sequence[Sequence[Message]],
    settings: CriticSettings,
    loaded: Loaded,
    file: Path,
    *,
    seed: int,
    repeats: int = 1,
    temperature: float | None = None,
) -> list[list[str | None]]:
    """`repeats` critiques of each question: new tokens only; None where the question leaves no room for one."""
    from alignment_core.models.generate import context_length, generate
    from alignment_core.models.template import encode_prompt

    context = context_length(loaded.model) or 1 << 30
    room = [len(encode_prompt(loaded.tokenizer, q)) + settings.max_new_tokens <= context for q in asked]
    prompts = [Prompt(str(i), tuple(q), "benign") for i, q in enumerate(asked) if room[i]]
    how = GenerateSettings(
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        temperature=settings.temperature if temperature is None else temperature,
        candidates=repeats,
    )
    said: dict[tuple[str, int], str] = {}
    if prompts:
        answers = generate(prompts, how, loaded, subject="critic", seed=seed, file=file)
        said = {(a.prompt_id, a.candidate): a.text for a in answers}
    return [[said.get((str(i), k)) for k in range(repeats)] for i in range(len(asked))]


def _with_words(one: Critique, text: str | None, principles: int, settings: CriticSettings) -> Critique:
    if text is None:
        return replace(one, why=NO_ROOM)
    said = critique.parse(text, principles)
    score = one.score if settings.scoring == "both" else said.score
    return replace(
        one, score=score, written=said.score, reason=said.reason, principle=said.principle, why=one.why or said.why
    )


def _endpoint(
    candidates: Sequence[Completion], settings: CriticSettings, constitution: Constitution, file: Path
) -> list[Critique]:
    from alignment_core.models.calls import ask
    from alignment_core.models.outcome import Reply

    asked = [critique.question(settings.style, constitution, c.prompt, c.text, settings.max_chars) for c in candidates]
    known = len(critique.principles(settings.style, constitution))
    out = []
    answers = process_group().broadcast(lambda: ask(asked, settings.endpoint, file))
    for one, answer in zip(candidates, answers, strict=True):
        blank = Critique(one.prompt_id, one.candidate, None)
        if isinstance(answer, Reply):
            out.append(_with_words(blank, answer.text, known, settings))
        else:
            out.append(replace(blank, why=answer.reason))
    return out
