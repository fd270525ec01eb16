"""How the replies are graded: the judge `critic` of the registry, the organism's rubric, and what a reader must know.

The rules decide refusals; `critic` scores every reply from 1 to 5; for prompts of the organism's world its rubric does
so, too. A missing score is missing on its side alone and never the worst score.
"""

from __future__ import annotations

from alignment_core.embedded import embedded_seed
from alignment_core.judging import critics
from alignment_core.judging.judges import judge_names
from mini_cai.config import CaiConfig

CRITIC = "critic"
"""The judge whose scores are the comparison's."""
ONE_GRAMMAR = "not an independent judge: critic, rubric and generator come from one grammar"
SAME_JUDGE = "the judge is the critic that selected the training data: its own taste is part of what it sees"


def graded(config: CaiConfig) -> bool:
    """Whether the judge `critic` scores the replies."""
    return CRITIC in judge_names(config.judge)


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
        answers = any(embedded_seed(m.name) for m in (config.model, config.base))
        if grader.style == "organism" or (answers and embedded_seed(grader.model.name)):
            out.append(ONE_GRAMMAR)
    if config.baseline != config.base:
        out.append(f"baseline {config.baseline.name} and tuned {config.base.name} differ by more than the fine-tuning")
    return out
