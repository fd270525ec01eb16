"""What the step that criticises does: the critic's word on every candidate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.io import read_jsonl
from alignment_core.judging import critics
from alignment_core.pipeline.writers import write_json, write_jsonl
from alignment_core.records import Completion
from mini_cai.rows import CANDIDATES
from mini_cai.scored import SCORES, Scored, by_prompt

if TYPE_CHECKING:
    from mini_cai.config import CaiConfig

GENERATIONS = "generations.json"


def criticise(config: CaiConfig, generated: Path, accept_missing: bool, folder: Path) -> None:
    """The critic's word on every candidate, also in the original's shape (generations with critiques)."""
    replies = list(read_jsonl(generated / CANDIDATES, Completion.from_json))
    rules = critics.own_constitution(config.critic)
    said = critics.criticise(replies, config.critic, rules, folder, accept_missing=accept_missing)
    write_jsonl(folder / SCORES, said)
    scored = [Scored(r, c) for r, c in zip(replies, said, strict=True)]
    write_json(folder / GENERATIONS, generations(scored))


def generations(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """The original's file of generations with critiques: {id, prompt, scored: [{candidate, score, reason}]}."""
    return [
        {
            "id": ident,
            "prompt": group[0].reply.prompt,
            "scored": [
                {
                    "candidate": s.reply.text,
                    "score": s.critique.score,
                    "reason": s.critique.reason,
                    "principle": s.critique.principle,
                    "expected": s.critique.expected,
                    "missing": s.critique.why if s.critique.score is None else "",
                }
                for s in group
            ],
        }
        for ident, group in by_prompt(scored).items()
    ]
