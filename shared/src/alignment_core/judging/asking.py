"""Questions to a model in this process that judges: by the probabilities of its possible answers, or in writing.

Finished answers are kept (at the edge of a slice of the full plan, or of a batch), so that a killed judge goes on
where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.io import Journal, canonical
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Message, Prompt

if TYPE_CHECKING:
    from alignment_core.config import GenerateSettings
    from alignment_core.models.load import Loaded

Question = Sequence[Message]
SLICE = 16
"""Batches between two rows of the journal of probabilities."""


def special_tokens(loaded: Loaded) -> list[str]:
    """Texts that mean something to the judge's tokenizer, which a judged text must not be able to write."""
    return [*loaded.tokenizer.all_special_tokens, *loaded.tokenizer.get_added_vocab()]


def choice_probabilities(
    asked: Sequence[Question],
    prefix: str,
    choices: Sequence[str],
    loaded: Loaded,
    batch_size: int,
    journal_file: Path,
) -> list[list[float] | None]:
    """How probable each of `choices` is after `prefix`, among them, for each question; one forward pass each.

    None where the question does not fit the model's context. Every process of the group gets all rows.
    """
    from alignment_core.models.score import choice_logprobs

    plan = hashlib.sha256(canonical([[m.content for m in q] for q in asked]).encode()).hexdigest()
    share, header = process_group(), {"questions": plan, "batch_size": batch_size}
    journal = Journal(journal_file, header) if share.is_main else None
    known = share.broadcast(lambda: list(journal.rows) if journal else [])
    size = batch_size * SLICE
    rows: list[list[float] | None] = []
    for number, start in enumerate(range(0, len(asked), size)):
        if number < len(known):
            rows += known[number]["p"]
            continue
        found = choice_logprobs(loaded, asked[start : start + size], prefix, choices, batch_size)
        made = [None if row is None else row.double().exp().tolist() for row in found]
        if journal is not None:
            journal.append({"p": made})
        rows += made
    return rows


def written_answers(
    asked: Sequence[Question], settings: GenerateSettings, loaded: Loaded, *, subject: str, file: Path, seed: int = 0
) -> list[list[str | None]]:
    """`settings.candidates` answers to each question: new tokens only; None where the context does not hold
    one."""
    from alignment_core.models.generate import context_length, generate
    from alignment_core.models.template import encode_prompt

    context = context_length(loaded.model) or 1 << 30
    fits = [len(encode_prompt(loaded.tokenizer, q)) + settings.max_new_tokens <= context for q in asked]
    prompts = [Prompt(str(i), tuple(q), "benign") for i, q in enumerate(asked) if fits[i]]
    given: dict[tuple[str, int], str] = {}
    if prompts:
        answers = generate(prompts, settings, loaded, subject=subject, seed=seed, file=file)
        given = {(a.prompt_id, a.candidate): a.text for a in answers}
    return [[given.get((str(i), k)) for k in range(settings.candidates)] for i in range(len(asked))]
