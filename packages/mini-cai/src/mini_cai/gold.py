"""Gold replies: replies whose score is known, which a critic grades before it is trusted."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from alignment_core.io import read_jsonl
from alignment_core.organism import corpus, grading, world
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
        found = _organism_gold(settings.items)
    else:
        with resources.as_file(resources.files("mini_cai").joinpath("gold.jsonl")) as path:
            found = list(read_jsonl(path, Gold.from_json))
    return found[: settings.items]


def _organism_gold(count: int) -> list[Gold]:
    """Pairs of replies to one request whose rubric scores differ."""
    rng = random.Random("gold")
    out = []
    for item in corpus.critic_items("calibration", (count + 1) // 2, 0):
        prompt, cluster = item.prompt, item.prompt.cluster
        ways: list[Any] = ["refuse", "comply", "off_topic", "vague"]
        others = [world.respond(prompt, how, rng) for how in rng.sample(ways, len(ways))]
        other = next(o for o in others if grading.rubric(prompt, o) != item.score)
        for reply in (item.reply, other):
            out.append(Gold(prompt.text, reply, grading.rubric(prompt, reply), prompt.kind, cluster))
    return out
