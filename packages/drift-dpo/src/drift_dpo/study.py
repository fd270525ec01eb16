"""The method, step by step: four states of one model on one held-out prompt set.

1. data      every source's prompts split once over test, validation, DPO, stage B and stage A
2. sft       stage A (benign only), then stage B (safety) on A's adapter
3. dpo       DPO from stage B, with stage B as the reference
4. evaluate  every state answers the same held-out prompts greedily; the saved replies are judged from the file

With `controls`: stage A with the openings of pretraining (embedded model only), a null stage A on the model's own
replies, stage B without A, and SFT on the chosen replies for as many steps as DPO.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

from alignment_core.config import TrainSettings
from alignment_core.evaluation.analysis import SeedOutput
from alignment_core.evaluation.judge import judge
from alignment_core.evaluation.state import StateFiles
from alignment_core.models import load
from alignment_core.organism import grading
from alignment_core.pipeline.run import Run
from alignment_core.pipeline.step import Step
from drift_dpo import answering, data, dpo_training, own_replies, training
from drift_dpo.config import DriftConfig


def study(run: Run, config: DriftConfig, seed: int) -> Generator[str, None, SeedOutput]:
    """One training seed, from the data to the judged states; yields the name of each finished part."""
    # 1. Data: one split, the same for every training seed.
    split = _data(run, config, "data")
    yield "data"

    # 2. Stage A is benign only; stage B continues its adapter.
    fit = partial(_sft, run, config, seed)
    stage_a = fit("stage_a", config.stage_a, split, "stageA")
    stage_b = fit("stage_b", config.stage_b, split, "stageB", start=stage_a)
    trained: dict[str, Step | None] = {"baseline": None, "stage_a": stage_a, "stage_b": stage_b}
    if config.controls:
        own = _own_replies(run, config, seed, split)
        trained["null_stage_a"] = fit("null_stage_a", config.stage_a, own, "own")
        trained["b_without_a"] = fit("b_without_a", config.stage_b, split, "stageB")
        if config.data.sources == "organism":
            varied = _data(run, config, "data_pretraining", openings="pretraining")
            trained["pretraining_openings"] = fit("pretraining_openings", config.stage_a, varied, "stageA")
    yield "sft"

    # 3. DPO continues stage B's adapter, and stage B is its reference.
    trained["dpo"] = preferred = _dpo(run, config, seed, split, stage_b)
    if config.controls:
        trained["chosen_sft"] = fit("chosen_sft", config.stage_b, split, "chosen", start=stage_b, steps_of=preferred)
    yield "dpo"

    # 4. Every state answers the same prompts.
    states = [s for subject, step in trained.items() for s in _evaluate(run, config, seed, subject, step, split)]
    yield "evaluate"
    return SeedOutput(states)


def _data(run: Run, config: DriftConfig, name: str, **changed: Any) -> Step:
    settings = config.data.model_copy(update=changed)
    return run.do(
        name,
        partial(data.work(settings), settings),
        settings=settings,
        identity=data.identity(settings),
        about=f"{data.held_out(settings)} held-out prompts",
    )


def _sft(
    run: Run,
    config: DriftConfig,
    seed: int,
    name: str,
    train: TrainSettings,
    split: Step,
    part: str,
    *,
    start: Step | None = None,
    steps_of: Step | None = None,
) -> Step:
    """SFT on a part of the split, from `start`'s adapter; with `steps_of` for as many steps as that training."""
    return run.do(
        name,
        partial(training.sft, config, train, seed, split.folder, part, start, steps_of),
        settings={"train": train, "lora": config.lora, "part": part},
        seed=seed,
        reads=[s for s in (split, start, steps_of) if s is not None],
        identity=load.identity(config.model),
        trains=True,
        together=True,
        about="as many steps as DPO" if steps_of else train.describe(data.size(config.data, part)),
    )


def _dpo(run: Run, config: DriftConfig, seed: int, split: Step, start: Step) -> Step:
    return run.do(
        "dpo",
        partial(dpo_training.dpo, config, seed, split.folder, start),
        settings={"train": config.dpo, "lora": config.lora},
        seed=seed,
        reads=[split, start],
        identity=load.identity(config.model),
        trains=True,
        together=True,
        about=config.dpo.describe(data.size(config.data, "dpo"), "pairs"),
    )


def _own_replies(run: Run, config: DriftConfig, seed: int, split: Step) -> Step:
    """The baseline's own replies to stage A's prompts, sampled at temperature 1."""
    sampled = config.generate.model_copy(update={"temperature": 1.0, "top_p": 1.0})
    return run.do(
        "own_replies",
        partial(own_replies.own_replies, config, sampled, seed, split.folder, run.accept_missing),
        settings={"generate": sampled},
        seed=seed,
        reads=[split],
        identity=load.identity(config.model),
        together=True,
        about=sampled.describe(data.size(config.data, "stageA")),
    )


def _evaluate(
    run: Run, config: DriftConfig, seed: int, subject: str, trained: Step | None, split: Step
) -> list[StateFiles]:
    """One state's replies and losses, and its verdicts; the baseline is the same for every training seed."""
    own = None if trained is None else seed
    answered = run.do(
        f"answer_{subject}",
        partial(answering.answer, config, subject, trained, split.folder, own, run.accept_missing),
        settings={"generate": config.generate},
        seed=own,
        reads=[split] if trained is None else [split, trained],
        identity=load.identity(config.model),
        together=True,
        about=config.generate.describe(data.held_out(config.data)),
    )
    topics = grading.topics if config.data.sources == "organism" and config.data.eval_file is None else None
    return judge(run, subject, answered, config.judge, config.judging, seed=own, score=topics)
