"""Each part of the method as a step of the run: what decides its key, what it reads, what it writes.

Every model, the critic and the constitution stand in the keys of the steps they touch, so that no finished step is
taken for another model's or another critic's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment_core.judging import critics
from alignment_core.models import load
from alignment_core.pipeline.run import Run, Step
from mini_cai import calibration, compare, constitution, data, training
from mini_cai.config import CaiConfig, Policy


def _critic(config: CaiConfig) -> dict[str, Any]:
    return critics.identity(config.critic, constitution.read(config.constitution))


def data_step(run: Run, config: CaiConfig) -> Step:
    """Training and evaluation prompts."""
    return run.do(
        "data",
        lambda folder: data.build(config.prompts, folder),
        settings=config.prompts,
        identity=data.identity(config.prompts),
    )


def calibrate(run: Run, config: CaiConfig) -> Step:
    """The critic's figures; the thresholds are no part of the key, for they change no figure."""
    asked, safe = config.calibration, config.compare.safe_threshold
    principles = constitution.read(config.constitution)
    return run.do(
        "calibrate",
        lambda folder: calibration.calibrate(asked, config.critic, principles, safe, folder),
        settings=asked.model_dump(mode="json", exclude={"min_exact", "min_rank", "force"}) | {"safe": safe},
        identity=_critic(config) | calibration.identity(asked),
        together=True,
    )


def generate(run: Run, config: CaiConfig, seed: int, prompts: Step) -> Step:
    """N candidates of each training prompt."""
    return run.do(
        "generate",
        lambda folder: training.candidates(config, seed, prompts.folder, folder),
        settings=config.candidates,
        seed=seed,
        reads=[prompts],
        identity=load.identity(config.model),
        together=True,
    )


def criticise(run: Run, config: CaiConfig, seed: int, generated: Step) -> Step:
    """A critique of every candidate."""
    return run.do(
        "critique",
        lambda folder: training.criticise(config, generated.folder, folder),
        seed=seed,
        reads=[generated],
        identity=_critic(config),
        together=True,
    )


def revise(run: Run, config: CaiConfig, seed: int, prompts: Step, generated: Step, criticised: Step) -> Step:
    """Every prompt's first candidate, revised and scored again."""
    return run.do(
        "revise",
        lambda folder: training.revised(config, seed, prompts.folder, generated.folder, criticised.folder, folder),
        settings={"revise": config.revise, "generate": config.candidates},
        seed=seed,
        reads=[prompts, generated, criticised],
        identity={"critic": _critic(config), "generator": load.identity(config.model)},
        together=True,
    )


def select(run: Run, config: CaiConfig, seed: int, policy: Policy, generated: Step, criticised: Step) -> Step:
    """The rows a policy takes by score."""
    return run.do(
        f"select_{policy}",
        lambda folder: training.select(config, policy, generated.folder, criticised.folder, folder),
        settings={"selection": config.selection, "safe": config.compare.safe_threshold},
        seed=seed,
        reads=list(dict.fromkeys((generated, criticised))),
    )


def select_random(run: Run, seed: int, generated: Step, criticised: Step, like: Step) -> Step:
    """The control: matched to what `like` selected."""
    return run.do(
        "select_random",
        lambda folder: training.select_random(like.folder, generated.folder, criticised.folder, seed, folder),
        seed=seed,
        reads=[generated, criticised, like],
    )


def train(run: Run, config: CaiConfig, seed: int, policy: str, selected: Step) -> Step:
    """An adapter on a selection's rows."""
    return run.do(
        f"train_{policy}",
        lambda folder: training.fit(config, seed, selected.folder, folder),
        settings={"train": config.train, "lora": config.lora},
        seed=seed,
        reads=[selected],
        identity=load.identity(config.base),
        together=True,
    )


def answer(run: Run, config: CaiConfig, seed: int, name: str, prompts: Step, trained: Step | None) -> Step:
    """One model's replies to the evaluation prompts."""
    adapter = None if trained is None else trained / "adapter"
    return run.do(
        f"answer_{name}",
        lambda folder: compare.answer(config, name, adapter, seed, prompts.folder, folder),
        settings=config.replies,
        seed=seed,
        reads=[prompts] if trained is None else [prompts, trained],
        identity=load.identity(config.baseline if trained is None else config.base),
        together=True,
    )


def judge(run: Run, config: CaiConfig, seed: int, name: str, prompts: Step, answered: Step) -> Step:
    """Grades and refusal verdicts of one model's replies."""
    return run.do(
        f"judge_{name}",
        lambda folder: compare.judge(config, prompts.folder, answered.folder, folder),
        seed=seed,
        reads=[prompts, answered],
        identity=compare.identity(config),
        together=True,
    )


def pair(
    run: Run, config: CaiConfig, seed: int, policy: str, answers: Mapping[str, Step], judged: Mapping[str, Step]
) -> Step:
    """The original's files: baseline and one tuned model side by side."""
    sides = ("baseline", policy)
    replies, grades = ({s: steps[s].folder for s in sides} for steps in (answers, judged))
    return run.do(
        f"paired_{policy}",
        lambda folder: compare.paired_files(config, replies, grades, policy, folder),
        settings={"safe": config.compare.safe_threshold, "warnings": compare.warnings(config)},
        seed=seed,
        reads=[steps[s] for s in sides for steps in (answers, judged)],
    )
