"""The method, step by step: which weights refusals hang on, how far they drift, whether others take over.

1. data      safety and utility examples in two halves, fine-tuning data, held-out prompts
2. scores    the base's groups on each half: top safety, set difference, top utility, random, matched random
3. finetune  the same benign fine-tuning free, frozen on the group, frozen on its matched random group; drift on the way
4. rescore   each tuned model's groups on the second half; overlap against null and ceiling
5. evaluate  refusals and topic loss: base with groups zeroed, tuned models, ablations and rewinds on them, as they
             are and at equal topic loss
6. finish    drift, overlap and causal verdicts by their written rules, report
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment_core.evaluation import results
from alignment_core.evaluation.results import Results
from alignment_core.io import read_json
from alignment_core.models import load
from alignment_core.pipeline.run import Run, Step
from alignment_core.report import page
from neuron_brittleness import collect, data, evaluation, figures, levels, original, report, scoring, takeover, training
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.evaluation import Condition


def study(run: Run, config: BrittlenessConfig, seed: int) -> Iterator[str]:
    """One training seed; what does not depend on it is made once for all seeds. Yields each finished part's name."""
    # 1. Data: one deal for every seed.
    dealt = run.do(
        "data",
        lambda folder: data.build(config, folder),
        settings={"data": config.data, "generate": config.generate},
        identity=data.identity(config),
        together=True,
    )
    yield "data"

    # 2. The base, scored on both halves.
    scored = _score(run, config, "scores", None, dealt, None, data.HALVES)
    yield "scores"

    # 3. Three arms that differ in nothing but what they hold; drift is measured while they train.
    arms = {arm: _fine_tune(run, config, arm, seed, dealt, scored) for arm in training.ARMS}
    yield "finetune"

    # 4. The tuned models, scored on the half that the old groups did not see.
    rescored = {arm: _score(run, config, f"rescore_{arm}", arms[arm], dealt, seed, ("b",)) for arm in training.ARMS}
    for arm, step in rescored.items():
        _overlap(run, config, f"overlap_{arm}", seed, scored, step)
    yield "rescore"

    # 5. The causal check on the base, then the tuned models and what is done to them.
    _evaluate(run, config, "base", evaluation.base_conditions(config), levels.base_pairs(config), [dealt, scored])
    at = training.matched_step(arms["free"], arms["frozen"])
    conditions, pairs = evaluation.tuned_conditions(config, at), levels.tuned_pairs(config)
    _evaluate(run, config, "tuned", conditions, pairs, [dealt, scored], arms, rescored["frozen"], seed)
    yield "evaluate"


def finish(run: Run, config: BrittlenessConfig, seeds: Sequence[int]) -> Results:
    """6. What all seeds say: results.json, the original's files, the figures and the report."""
    preset = read_json(run.folder / "config.json")["preset"]
    found = collect.collect(run, config)
    made = report.results(preset, seeds, config, found)
    results.write(run.folder / "results.json", made)
    original.write(run.folder, config, found)
    page.write(run.folder, made, report.spec(made))
    figures.write(run.folder / "figures", found)
    return made


def _score(run: Run, config: BrittlenessConfig, name: str, arm: Step | None, dealt: Step, seed: int | None,
           halves: Sequence[str]) -> Step:  # fmt: skip
    def work(folder: Path) -> None:
        loaded = training.model_of(config, None if arm is None else arm.folder)
        for half in halves:
            safety, utility = (data.examples(dealt.folder, f"{kind}_{half}") for kind in ("safety", "utility"))
            scoring.score_half(config, loaded, safety, utility, folder / half, controls=arm is None)

    reads = [dealt] if arm is None else [dealt, arm]
    settings = {"score": config.score, "seed": config.data.split_seed}
    return run.do(name, work, settings=settings, seed=seed, reads=reads, identity=load.identity(config.model),
                  together=True)  # fmt: skip


def _fine_tune(run: Run, config: BrittlenessConfig, arm: str, seed: int, dealt: Step, scored: Step) -> Step:
    measuring = {"drift_every": config.drift_every, "loss_examples": config.loss_examples}
    holding = {} if arm == "free" else {"freeze": config.freeze}
    return run.do(
        f"finetune_{arm}",
        lambda folder: training.fine_tune(config, arm, seed, dealt.folder, scored.folder, folder),
        settings={"train": config.train, "lora": config.lora, **holding, **measuring},
        seed=seed,
        reads=[dealt, scored],
        identity=load.identity(config.model),
        together=True,
    )


def _overlap(run: Run, config: BrittlenessConfig, name: str, seed: int, scored: Step, rescored: Step) -> Step:
    draws, base = config.draws, config.data.split_seed
    return run.do(
        name,
        lambda folder: takeover.compare(scored.folder, rescored.folder, draws, base, folder),
        settings={"draws": draws, "seed": base},
        seed=seed,
        reads=[scored, rescored],
    )


def _evaluate(
    run: Run,
    config: BrittlenessConfig,
    name: str,
    conditions: Sequence[Condition],
    pairs: Sequence[levels.Pair],
    made: Sequence[Step],
    arms: dict[str, Step] | None = None,
    rescored: Step | None = None,
    seed: int | None = None,
) -> None:
    dealt, scored = (step.folder for step in made)
    folders = {arm: step.folder for arm, step in (arms or {}).items()}
    reads = [*made, *(arms or {}).values(), *([] if rescored is None else [rescored])]
    held, base, how = config.freeze.group, config.data.split_seed, config.generate.here()

    def do(step: str, ask: Callable[..., None], asked: Sequence[Any], settings: dict[str, Any], *old: Step) -> Step:
        def work(folder: Path) -> None:
            new = {} if rescored is None else evaluation.new_groups(scored, rescored.folder, held, base)
            ask(config, asked, dealt, scored, folders, new, seed, folder, *(o.folder for o in old))

        answered = run.do(f"answer_{step}", work, settings={"generate": how, **settings}, seed=seed,
                          reads=[*reads, *old], identity=load.identity(config.model), together=True)  # fmt: skip
        subjects = read_json(answered / "subjects.json")
        run.do(
            f"judge_{step}",
            lambda folder: evaluation.judge(config, answered.folder, subjects, folder),
            settings={"judge": config.judge, "judging": config.judging, "subjects": subjects},
            seed=seed,
            reads=[answered],
            identity=evaluation.identity(config),
            together=True,
        )
        return answered

    answered = do(name, evaluation.answer, conditions, {"conditions": [vars(c) for c in conditions]})
    if config.controls:
        settings = {"pairs": [vars(p) for p in pairs], "tolerance": levels.TOLERANCE}
        do(f"{name}_equal", levels.answer, pairs, settings, answered)
