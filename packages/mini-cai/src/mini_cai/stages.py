"""Each part of the method as a step of the run: what decides its key, what it reads, what it does.

Every model, the critic and the constitution stand in the keys of the steps they touch, so that no finished step is
taken for another model's or another critic's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from alignment_core.evaluation import judge as judging
from alignment_core.evaluation.state import StateFiles
from alignment_core.judging import critics
from alignment_core.judging.judges import check_judges
from alignment_core.judging.settings import JudgeSettings
from alignment_core.models import load
from alignment_core.pipeline.run import Run
from alignment_core.pipeline.step import Step
from mini_cai import (
    answering,
    calibration,
    criticising,
    generation,
    grading,
    revision,
    rubric,
    selecting,
    training,
)
from mini_cai import data as prompt_data
from mini_cai.config import CaiConfig, Policy


def _critic(config: CaiConfig) -> dict[str, Any]:
    return critics.identity(config.critic, critics.own_constitution(config.critic))


def _open_critic(config: CaiConfig) -> Callable[[], None]:
    """Opens the selecting critic, before the first step of a run."""
    return partial(check_judges, grading.CRITIC, JudgeSettings(critic=config.critic))


def data(run: Run, config: CaiConfig) -> Step:
    """Training and evaluation prompts."""
    asked, held_out = prompt_data.sizes(config.prompts)
    return run.do(
        "data",
        partial(prompt_data.build, config.prompts),
        settings=config.prompts,
        identity=prompt_data.identity(config.prompts),
        about=f"up to {asked:,} training prompts and {held_out:,} held-out prompts",
    )


def calibrate(run: Run, config: CaiConfig) -> Step:
    """The critic's figures; the thresholds are no part of the key, for they change no figure."""
    asked, safe = config.calibration, config.compare.safe_threshold
    return run.do(
        "calibrate",
        partial(calibration.calibrate, asked, config.critic, safe, run.accept_missing),
        settings=asked.model_dump(mode="json", exclude={"min_exact", "min_rank", "force"}) | {"safe": safe},
        identity=_critic(config) | calibration.identity(asked),
        together=True,
        about=f"up to {asked.items} gold replies, {asked.attacks} planted lines of each family",
        opens=_open_critic(config),
    )


def require_calibrated(run: Run, config: CaiConfig, calibrated: Step) -> None:
    """Stop a run whose critic falls short of the thresholds of today's settings, whenever it was calibrated."""
    if not run.planning:
        calibration.require(calibrated.folder, config.calibration)


def generate(run: Run, config: CaiConfig, seed: int, prompts: Step) -> Step:
    """N candidates of each training prompt."""
    return run.do(
        "generate",
        partial(generation.candidates, config, seed, prompts.folder, run.accept_missing),
        settings=config.candidates,
        seed=seed,
        reads=[prompts],
        identity=load.identity(config.model),
        together=True,
        about=config.candidates.describe(prompt_data.sizes(config.prompts)[0]),
    )


def criticise(run: Run, config: CaiConfig, seed: int, generated: Step) -> Step:
    """A critique of every candidate."""
    ways = "writing" if config.critic.scoring == "generate" else config.critic.scoring
    return run.do(
        "critique",
        partial(criticising.criticise, config, generated.folder, run.accept_missing),
        seed=seed,
        reads=[generated],
        identity=_critic(config),
        together=True,
        about=f"{config.critic.style} style, by {ways}",
        opens=_open_critic(config),
    )


def revise(run: Run, config: CaiConfig, seed: int, prompts: Step, generated: Step, criticised: Step) -> Step:
    """Every prompt's first candidate, revised and scored again."""
    places = (prompts.folder, generated.folder, criticised.folder)
    return run.do(
        "revise",
        partial(revision.revised, config, seed, *places, run.accept_missing),
        settings={"revise": config.revise, "generate": config.candidates},
        seed=seed,
        reads=[prompts, generated, criticised],
        identity={"critic": _critic(config), "generator": load.identity(config.model)},
        together=True,
        about=f"rounds: {config.revise.rounds}",
        opens=_open_critic(config),
    )


def select(run: Run, config: CaiConfig, seed: int, policy: Policy, generated: Step, criticised: Step) -> Step:
    """The rows a policy takes by score."""
    return run.do(
        f"select_{policy}",
        partial(selecting.select, config, policy, generated.folder, criticised.folder),
        settings={"selection": config.selection, "safe": config.compare.safe_threshold},
        seed=seed,
        reads=list(dict.fromkeys((generated, criticised))),
        about=f"rows of score {config.selection.min_score} or more",
    )


def select_random(run: Run, seed: int, generated: Step, criticised: Step, like: Step) -> Step:
    """The control: matched to what `like` selected."""
    return run.do(
        "select_random",
        partial(selecting.select_random, like.folder, generated.folder, criticised.folder, seed),
        seed=seed,
        reads=[generated, criticised, like],
        about=f"the prompts, rows and tokens of {like.name}",
    )


def train(run: Run, config: CaiConfig, seed: int, policy: str, selected: Step) -> Step:
    """An adapter on a selection's rows."""
    return run.do(
        f"train_{policy}",
        partial(training.fit, config, config.base, seed, selected.folder),
        settings={"train": config.train, "lora": config.lora},
        seed=seed,
        reads=[selected],
        identity=load.identity(config.base),
        trains=True,
        together=True,
        about=config.train.describe(0, "rows"),
    )


def answer(run: Run, config: CaiConfig, seed: int, name: str, prompts: Step, trained: Step | None) -> Step:
    """One model's replies to the evaluation prompts."""
    model = config.baseline if trained is None else config.base
    return run.do(
        f"answer_{name}",
        partial(answering.answer, config, model, name, trained, prompts.folder, seed, run.accept_missing),
        settings=config.replies,
        seed=seed,
        reads=[prompts] if trained is None else [prompts, trained],
        identity=load.identity(model),
        together=True,
        about=config.replies.describe(prompt_data.sizes(config.prompts)[1]),
    )


def judge(run: Run, config: CaiConfig, seed: int, name: str, answered: Step) -> list[StateFiles]:
    """Verdicts and scores of one model's replies."""
    return judging.judge(
        run,
        name,
        answered,
        config.judge,
        config.judging,
        seed=seed,
        score=rubric.rubrics,
    )
