"""The method, step by step: four states of one model on one held-out prompt set.

1. data      deal every source's prompts once to test, validation, DPO, stage B and stage A
2. sft       stage A (benign only), then stage B (safety) on A's adapter
3. dpo       DPO from stage B, with stage B as the reference
4. evaluate  the same held-out prompts, greedy, to every state; replies saved first, judged from the file
5. finish    rates, paired differences, hypotheses by their written rule, report

With `controls`: stage A with the openings of pretraining (organism only), a null stage A on the model's own replies,
stage B without A, and SFT on the chosen replies for as many steps as DPO.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from alignment_core.config import TrainSettings
from alignment_core.evaluation import results
from alignment_core.evaluation.results import Results
from alignment_core.io import read_json
from alignment_core.pipeline.run import Run, Step
from alignment_core.report import page
from drift_dpo import data, evaluation, report, training
from drift_dpo.config import DriftConfig


def study(run: Run, config: DriftConfig, seed: int) -> Iterator[str]:
    """One training seed, from the data to the judged replies; yields the name of each finished part."""
    # 1. Data: one deal, the same for every training seed.
    dealt = _data(run, config, "data")
    yield "data"

    # 2. Stage A is benign only; stage B continues its adapter.
    fit = partial(_sft, run, config, seed)
    stage_a = fit("stage_a", config.stage_a, dealt, "stageA")
    stage_b = fit("stage_b", config.stage_b, dealt, "stageB", start=stage_a)
    states: dict[str, Step | None] = {"baseline": None, "stage_a": stage_a, "stage_b": stage_b}
    if config.controls:
        own = _own_replies(run, config, seed, dealt)
        states["null_stage_a"] = fit("null_stage_a", config.stage_a, own, "own")
        states["b_without_a"] = fit("b_without_a", config.stage_b, dealt, "stageB")
        if config.data.sources == "organism":
            varied = _data(run, config, "data_pretraining", openings="pretraining")
            states["pretraining_openings"] = fit("pretraining_openings", config.stage_a, varied, "stageA")
    yield "sft"

    # 3. DPO continues stage B's adapter, and stage B is its reference.
    preferred = _dpo(run, config, seed, dealt, stage_b)
    states["dpo"] = preferred
    if config.controls:
        as_many = training.matched(config, preferred)
        states["chosen_sft"] = fit("chosen_sft", as_many, dealt, "chosen", start=stage_b, after=preferred)
    yield "dpo"

    # 4. Every state answers the same prompts.
    for subject, trained in states.items():
        _evaluate(run, config, subject, trained, dealt, None if trained is None else seed)
    yield "evaluate"


def finish(run: Run, config: DriftConfig, seeds: Sequence[int]) -> Results:
    """5. What the judged replies of all seeds say: results.json and the report, written in the run folder."""
    preset = read_json(run.folder / "config.json")["preset"]
    found = report.results(preset, seeds, evaluation.collect(run))
    results.write(run.folder / "results.json", found)
    page.write(run.folder, found, report.spec(found))
    return found


def _data(run: Run, config: DriftConfig, name: str, **changed: Any) -> Step:
    settings = config.data.model_copy(update=changed)
    return run.do(
        name,
        lambda folder: training.deal(settings, folder),
        settings=settings,
        identity=data.identity(settings),
    )


def _sft(
    run: Run,
    config: DriftConfig,
    seed: int,
    name: str,
    train: TrainSettings,
    dealt: Step,
    part: str,
    *,
    start: Step | None = None,
    after: Step | None = None,
) -> Step:
    return run.do(
        name,
        lambda folder: training.sft(config, train, seed, dealt.folder, part, start, folder),
        settings={"train": train, "lora": config.lora, "part": part},
        seed=seed,
        reads=[s for s in (dealt, start, after) if s is not None],
        identity=training.identity(config),
        together=True,
    )


def _dpo(run: Run, config: DriftConfig, seed: int, dealt: Step, start: Step) -> Step:
    return run.do(
        "dpo",
        lambda folder: training.dpo(config, seed, dealt.folder, start, folder),
        settings={"train": config.dpo, "lora": config.lora},
        seed=seed,
        reads=[dealt, start],
        identity=training.identity(config),
        together=True,
    )


def _own_replies(run: Run, config: DriftConfig, seed: int, dealt: Step) -> Step:
    """The baseline's own replies to stage A's prompts, sampled at temperature 1."""
    sampled = config.generate.model_copy(update={"temperature": 1.0, "top_p": 1.0})
    return run.do(
        "own_replies",
        lambda folder: training.own_replies(config, sampled, seed, dealt.folder, folder),
        settings={"generate": sampled},
        seed=seed,
        reads=[dealt],
        identity=training.identity(config),
        together=True,
    )


def _evaluate(run: Run, config: DriftConfig, subject: str, trained: Step | None, dealt: Step, seed: int | None) -> None:
    reads = [dealt] if trained is None else [dealt, trained]
    answered = run.do(
        f"answer_{subject}",
        lambda folder: evaluation.answer(config, subject, trained, dealt.folder, seed, folder),
        settings={"generate": config.generate},
        seed=seed,
        reads=reads,
        identity=training.identity(config),
        together=True,
    )
    run.do(
        f"judge_{subject}",
        lambda folder: evaluation.judge(config, answered, folder),
        settings={"judge": config.judge},
        seed=seed,
        reads=[answered],
        identity=evaluation.identity(config),
        together=True,
    )
