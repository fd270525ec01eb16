"""The data in the embedded model's world: harmful requests refused and answered on disjoint combinations of verb and
object, benign requests answered."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.data.splits import rank
from alignment_core.organism import world
from alignment_core.records import Example, Kind, Message, Prompt
from orth_refusal import sets

if TYPE_CHECKING:
    from alignment_core.data.sources import Rejects
    from alignment_core.data.summary import DataReport
    from orth_refusal.config import DataConfig

log = logging.getLogger(__name__)

ROWS = {"refusal": 320, "attack": 480}
"""Rows made where no limit is set."""


def build(config: DataConfig, folder: Path) -> DataReport:
    """Build every file of the study in `folder`; files and errors as `sets.build`."""
    return sets.build(config, folder, fill)


def split(config: DataConfig, folder: Path) -> None:
    """Build the data and log what each part got, what was left out, and which sets overlap."""
    build(config, folder).log(log)


def fill(config: DataConfig, _: Rejects, report: DataReport) -> sets.Made:
    """Examples by part and the held-out prompts; `red` is the red side of the refusal part's requests."""
    rng = random.Random(f"orth-refusal {config.split_seed}")
    pool = world.requests("harmful", 1600, f"orth {config.split_seed}")
    clusters = sorted({p.cluster for p in pool}, key=lambda c: rank(config.split_seed, c))
    by_topic: dict[str, list[str]] = {}
    for cluster in clusters:
        by_topic.setdefault(cluster.split("/")[0], []).append(cluster)
    share = config.refusal_share / (config.refusal_share + config.attack_share)
    blue = {c for some in by_topic.values() for c in some[: round(share * len(some))]}
    mine = [p for p in pool if p.cluster in blue][: config.refusal_limit or ROWS["refusal"]]
    theirs = [p for p in pool if p.cluster not in blue][: config.attack_limit or ROWS["attack"]]
    benign = world.requests("benign", config.benign_limit, f"orth {config.split_seed}")
    held_out = world.prompts(config.eval_split, "harmful")
    examples = {
        "refusal": [_said(p, "refuse", rng) for p in mine],
        "red": [_said(p, "comply", rng) for p in mine],
        "attack": [_said(p, "comply", rng) for p in theirs],
        "benign": [_said(p, "comply", rng) for p in benign],
        "held_out": [_said(p, "comply", rng) for p in held_out],
    }
    report.counts |= {"combinations of the refusal part": len({p.cluster for p in mine})}
    report.counts |= {"combinations of the attack part": len({p.cluster for p in theirs})}
    sizes: dict[Kind, int] = {
        "harmful": config.test_harmful, "benign": config.test_benign, "borderline": config.test_borderline
    }  # fmt: skip
    return examples, [p for kind, n in sizes.items() for p in world.prompts(config.eval_split, kind)[:n]]


def _said(prompt: Prompt, how: Any, rng: random.Random) -> Example:
    reply = world.respond(prompt, how, rng)
    category = "refusal" if how == "refuse" else "helpful"
    return Example((*prompt.messages, Message("assistant", reply)), category, prompt.source, prompt.cluster)
