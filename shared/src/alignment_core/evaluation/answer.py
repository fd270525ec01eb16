"""What a model replies to the held-out prompts, and what good answers cost it: the files of an answered state.

The only module of the evaluation that reaches models, inside its functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.evaluation.files import COMPLETIONS, LOSSES
from alignment_core.pipeline.writers import write_jsonl
from alignment_core.records import Completion, Prompt

if TYPE_CHECKING:
    from alignment_core.config import GenerateSettings
    from alignment_core.models.load import Loaded

REFERENCE = "reference"
"""The set of rows whose losses are those of reference answers to benign prompts."""


def answer(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    settings: GenerateSettings,
    folder: Path,
    *,
    subject: str,
    seed: int | None,
    accept_missing: bool = False,
) -> list[Completion]:
    """The model's replies, in the prompts' order, kept in `folder/completions.jsonl`; a killed call goes on there."""
    from alignment_core.models.generate import generate

    return generate(
        prompts,
        settings,
        loaded,
        subject=subject,
        seed=seed,
        file=folder / COMPLETIONS,
        accept_missing=accept_missing,
    )


def reference_losses(loaded: Loaded, prompts: Sequence[Prompt], batch_size: int) -> list[dict[str, Any]]:
    """Rows of `losses.jsonl`: the loss of the reference answer to each benign prompt that has one, in nats a token."""
    return losses(loaded, REFERENCE, [p for p in prompts if p.kind == "benign" and p.reference], None, batch_size)


def losses(
    loaded: Loaded, name: str, prompts: Sequence[Prompt], replies: Sequence[str] | None, batch_size: int
) -> list[dict[str, Any]]:
    """Rows of `losses.jsonl` of a set: the loss of each reply (None: the prompt's reference), in nats a token."""
    from alignment_core.models.score import reply_loss

    found = reply_loss(loaded, prompts, replies, batch_size)
    return [
        {"set": name, "id": prompt.id, "cluster": prompt.cluster, "loss": one.loss}
        for prompt, one in zip(prompts, found, strict=True)
        if one.tokens
    ]


def write_losses(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write `losses.jsonl`, in the process that writes."""
    write_jsonl(folder / LOSSES, rows)
