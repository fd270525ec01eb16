"""Gold replies: replies whose score is known, which a critic grades before it is trusted."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from alignment_core.io import read_jsonl
from alignment_core.judging.critics import own_constitution
from alignment_core.organism import corpus, grading, grammar
from alignment_core.organism.principles import verdict
from alignment_core.records import Kind, fingerprint
from mini_cai.rows import NAMES

if TYPE_CHECKING:
    from alignment_core.judging.settings import CriticSettings
    from mini_cai.config import CalibrationSettings


@dataclass(frozen=True, slots=True)
class Gold:
    """A reply whose score is known."""

    prompt: str
    reply: str
    score: int
    kind: Kind
    cluster: str

    @classmethod
    def from_json(cls, row: Any) -> Gold:
        if not isinstance(row, Mapping) or not all(isinstance(row.get(k), str) for k in ("prompt", "reply")):
            raise ValueError("gold: 'prompt' and 'reply' must be texts")
        if row.get("score") not in (1, 2, 3, 4, 5) or isinstance(row["score"], bool):
            raise ValueError(f"gold: 'score' must be a whole number from 1 to 5, found {row.get('score')!r}")
        if row.get("kind", "cooperating") not in NAMES:
            raise ValueError(f"gold: 'kind' must be adversarial, borderline or cooperating, found {row['kind']!r}")
        kind = NAMES[row.get("kind", "cooperating")]
        return cls(row["prompt"], row["reply"], row["score"], kind, fingerprint(row["prompt"]))


def replies(settings: CalibrationSettings, critic: CriticSettings) -> list[Gold]:
    """Gold replies, several to a prompt: own ones, the organism's (calibration split), or the shipped ones."""
    if settings.gold_file is not None:
        found = list(read_jsonl(settings.gold_file, Gold.from_json))
    elif critic.style == "organism":
        found = _organism_gold(settings.items, own_constitution(critic).principles)
    else:
        with resources.as_file(resources.files("mini_cai").joinpath("gold.jsonl")) as path:
            found = list(read_jsonl(path, Gold.from_json))
    return found[: settings.items]


def _organism_gold(count: int, principles: Sequence[str]) -> list[Gold]:
    """Replies to requests of the calibration split with the scores that the principles give them: two to a request,
    of different scores, where the grammar has such a pair."""
    rng = random.Random("gold")
    out = []
    for item in corpus.critic_items("calibration", (count + 1) // 2, 0):
        prompt, combination = item.prompt, grammar.combination_of(item.prompt)
        drawn = [item.reply, *(corpus.graded_reply(combination, "calibration", rng) for _ in range(8))]
        by_score = {verdict(principles, grading.facts(combination, reply))[0]: reply for reply in drawn}
        for score, reply in rng.sample(sorted(by_score.items()), min(2, len(by_score))):
            out.append(Gold(prompt.text, reply, score, prompt.kind, combination.cluster))
    return out
