"""What a state is asked: its replies, the losses of the reference answers, and how far its first token has moved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.evaluation.answer import answer as answer_prompts
from alignment_core.evaluation.answer import reference_losses, write_losses
from alignment_core.evaluation.files import SCORES
from alignment_core.models import load
from alignment_core.pipeline.writers import write_jsonl
from drift_dpo import rows as read
from drift_dpo.drift import first_token_kl

if TYPE_CHECKING:
    from alignment_core.pipeline.step import Step
    from drift_dpo.config import DriftConfig


def answer(
    config: DriftConfig,
    subject: str,
    trained: Step | None,
    rows: Path,
    seed: int | None,
    accept_missing: bool,
    folder: Path,
) -> None:
    """Greedy replies of one state, the losses of the reference answers, and each first token's KL to the baseline."""
    prompts = read.prompts(rows)
    loaded = load.load(config.model, None if trained is None else trained / "adapter")
    answer_prompts(loaded, prompts, config.generate, folder, subject=subject, seed=seed, accept_missing=accept_missing)
    write_losses(folder, reference_losses(loaded, prompts, config.generate.batch_size))
    kl = first_token_kl(loaded, prompts, config.generate.batch_size).tolist()
    write_jsonl(
        folder / SCORES,
        [{"prompt_id": p.id, "first_token_kl": value} for p, value in zip(prompts, kl, strict=True)],
    )
