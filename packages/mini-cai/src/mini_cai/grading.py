"""How the replies are graded: the judge `critic` of the registry, the organism's rubric, and what a reader must know.

The rules decide refusals; `critic` scores every reply from 1 to 5; for prompts of the organism's world its rubric does
so, too. A missing score is missing on its side alone and never the worst score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignment_core.judging import critics
from alignment_core.judging.judges import judge_names
from alignment_core.organism import weights, world
from alignment_core.records import Completion, Message, Prompt
from mini_cai import data
from mini_cai.config import CaiConfig

CRITIC = "critic"
"""The judge whose scores are the comparison's."""
ONE_GRAMMAR = "not an independent judge: critic, rubric and generator come from one grammar"
SAME_JUDGE = "the judge is the critic that selected the training data: its own taste is part of what it sees"


def graded(config: CaiConfig) -> bool:
    """Whether the judge `critic` scores the replies."""
    return CRITIC in judge_names(config.judge)


def rubrics(replies: Sequence[Completion]) -> list[dict[str, Any]]:
    """The rubric's score of each reply, None where a server gave no reply; no score where the prompts are not all of
    the organism's world."""
    if not data.in_world(replies):
        return [{} for _ in replies]
    return [{"rubric": None if r.failure else world.rubric(_prompt(r), r.text)} for r in replies]


def rubric_identity() -> dict[str, str]:
    """What names the rubric in a step's key."""
    return {"rubric": weights.identity()}


def _prompt(reply: Completion) -> Prompt:
    """The prompt that was replied to, as far as the rubric needs it."""
    return Prompt(reply.prompt_id, (Message("user", reply.prompt),), reply.kind, cluster=reply.cluster)


def condition(config: CaiConfig) -> str:
    """Under which condition the scores are to be read, in a phrase."""
    said = {SAME_JUDGE: "scored by the critic that selected", ONE_GRAMMAR: "critic, rubric and model of one grammar"}
    return ", ".join(said[line] for line in warnings(config) if line in said)


def warnings(config: CaiConfig) -> list[str]:
    """What a reader must know of the judge and the baseline, one line each."""
    out = []
    grader, critic = config.judging.critic, config.critic
    if graded(config):
        if critics.same_critic(grader, critic):
            out.append(SAME_JUDGE)
        organism = [m.name == "organism" for m in (config.model, config.base)] + [grader.style == "organism"]
        if any(organism) and (grader.style == "organism" or grader.model.name == "organism"):
            out.append(ONE_GRAMMAR)
    if config.baseline != config.base:
        out.append(f"baseline {config.baseline.name} and tuned {config.base.name} differ by more than the fine-tuning")
    return out
