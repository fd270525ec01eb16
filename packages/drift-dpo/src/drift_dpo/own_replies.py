"""What the null stage A is trained on: the baseline's own replies to stage A's prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.models import load
from alignment_core.pipeline.writers import write_jsonl
from alignment_core.records import Completion, Example, Message, Prompt
from drift_dpo import rows as read

if TYPE_CHECKING:
    from alignment_core.config import GenerateSettings
    from drift_dpo.config import DriftConfig


def own_replies(
    config: DriftConfig, sampled: GenerateSettings, seed: int, rows: Path, accept_missing: bool, folder: Path
) -> None:
    """The baseline's replies to stage A's prompts, as training examples in `own_train.jsonl`."""
    from alignment_core.models.generate import generate

    asked = read.examples(rows, "stageA_train")
    prompts = [
        Prompt(f"stageA/{i}", e.messages[:-1], "benign", e.source, cluster=e.cluster) for i, e in enumerate(asked)
    ]
    loaded, file = load.load(config.model), folder / "completions.jsonl"
    replies = generate(
        prompts, sampled, loaded, subject="baseline", seed=seed, file=file, accept_missing=accept_missing
    )
    made = [_as_example(e, c) for e, c in zip(asked, replies, strict=True) if c.text.strip()]
    write_jsonl(folder / "own_train.jsonl", made)


def _as_example(asked: Example, reply: Completion) -> Example:
    said = (*asked.messages[:-1], Message("assistant", reply.text))
    return Example(said, asked.category, asked.source, asked.cluster)
