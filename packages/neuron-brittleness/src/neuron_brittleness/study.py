"""The method, step by step: which weights refusals hang on, how far they drift, whether others take over.

1. data      safety and utility examples in two halves, fine-tuning data, held-out prompts
2. scores    the base's groups on each half: top safety, set difference, top utility, random, matched random
3. finetune  the same benign fine-tuning free, frozen on the group, frozen on its matched random group; drift on the way
4. rescore   each tuned model's groups on the second half; overlap against null and ceiling
5. evaluate  refusals and reference losses: base with groups zeroed, tuned models, ablations and rewinds on them, as
             they are and (with `controls`) at equal topic loss
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alignment_core.evaluation.analysis import SeedOutput
from alignment_core.evaluation.judge import judge
from alignment_core.evaluation.state import StateFiles
from alignment_core.models import load
from alignment_core.organism import grading
from alignment_core.pipeline.run import Run
from alignment_core.pipeline.step import Step
from neuron_brittleness import answers, conditions, data, levels, overlap_files, rows, scoring, scoring_memory, training
from neuron_brittleness.arms import ARMS
from neuron_brittleness.conditions import Condition, Made, Pair
from neuron_brittleness.config import BrittlenessConfig


def study(run: Run, config: BrittlenessConfig, seed: int) -> Generator[str, None, SeedOutput]:
    """One training seed, from the data to the judged states; what does not depend on it is made once for all seeds.
    Yields the name of each finished part."""
    # 1. Data: one split for every seed.
    split = run.do(
        "data",
        partial(data.build, config, accept_missing=run.accept_missing),
        settings={"data": config.data, "generate": config.generate},
        identity=data.identity(config),
        together=True,
        about=f"{data.held_out(config.data)} held-out prompts",
    )
    yield "data"

    # 2. The base, scored on both halves.
    scored = _score(run, config, "scores", split)
    yield "scores"

    # 3. Three arms that differ in nothing but what they hold; drift is measured while they train.
    arms = {arm: _fine_tune(run, config, arm, seed, split, scored) for arm in ARMS}
    yield "finetune"

    # 4. The tuned models, scored on the half that the old groups did not see.
    rescored = {arm: _score(run, config, f"rescore_{arm}", split, trained) for arm, trained in arms.items()}
    overlaps = {arm: _overlap(run, config, arm, seed, scored, step) for arm, step in rescored.items()}
    yield "rescore"

    # 5. The causal check on the base, then the tuned models and what is done to them.
    asked, pairs = conditions.base_conditions(config), conditions.base_pairs(config)
    states = _evaluate(run, config, "base", asked, pairs, Made(split, scored))
    asked, pairs = conditions.tuned_conditions(config), conditions.tuned_pairs(config)
    states += _evaluate(run, config, "tuned", asked, pairs, Made(split, scored, arms, rescored["frozen"]))
    yield "evaluate"
    measured = {f"finetune_{arm}": step for arm, step in arms.items()}
    return SeedOutput(states, measured | {f"overlap_{arm}": step for arm, step in overlaps.items()})


def _score(run: Run, config: BrittlenessConfig, name: str, split: Step, trained: Step | None = None) -> Step:
    """The groups of the base on both halves, or of a tuned model on the second."""
    halves = rows.HALVES if trained is None else rows.HALVES[1:]
    return run.do(
        name,
        partial(scoring.score, config, split, trained, halves),
        settings={"score": config.score, "seed": config.data.split_seed},
        seed=None if trained is None else trained.seed,
        reads=[split] if trained is None else [split, trained],
        identity=load.identity(config.model),
        together=True,
        about=f"{'two halves' if trained is None else 'the second half'}: {scoring_memory.describe(config)}",
    )


def _fine_tune(run: Run, config: BrittlenessConfig, arm: str, seed: int, split: Step, scored: Step) -> Step:
    """One arm's training, and its drift every `drift_every` steps."""
    measuring = {"drift_every": config.drift_every, "loss_examples": config.loss_examples}
    holding = {} if arm == "free" else {"freeze": config.freeze}
    held = training.held(config, arm)
    return run.do(
        f"finetune_{arm}",
        partial(training.fine_tune, config, arm, seed, split.folder, scored.folder),
        settings={"train": config.train, "lora": config.lora, **holding, **measuring},
        seed=seed,
        reads=[split, scored],
        identity=load.identity(config.model),
        trains=True,
        together=True,
        about=f"{config.train.describe(config.data.tune_size)}; drift every {config.drift_every} steps"
        + (f"; {config.freeze.kind} of {held} frozen" if held else ""),
    )


def _overlap(run: Run, config: BrittlenessConfig, arm: str, seed: int, scored: Step, rescored: Step) -> Step:
    """What the arm's groups share with the base's."""
    draws, base = config.draws, config.data.split_seed
    return run.do(
        f"overlap_{arm}",
        partial(overlap_files.compare, scored.folder, rescored.folder, draws, base),
        settings={"draws": draws, "seed": base},
        seed=seed,
        reads=[scored, rescored],
        about=f"null of {draws:,} permutations",
    )


def _evaluate(
    run: Run, config: BrittlenessConfig, name: str, asked: Sequence[Condition], pairs: Sequence[Pair], made: Made
) -> list[StateFiles]:
    """Replies, losses and verdicts of every condition and, with `controls`, of every pair at equal topic loss."""
    ask = partial(_answer, run, config, made)
    work: Any = partial(answers.answer, config, asked, made)
    parts = {name: ask(name, work, f"{len(asked)} conditions", conditions=[vars(c) for c in asked])}
    if config.controls:
        work, about = partial(levels.answer, config, pairs, made, parts[name]), f"{2 * len(pairs)} at equal topic loss"
        settings = {"pairs": [vars(p) for p in pairs], "tolerance": levels.TOLERANCE}
        parts[f"{name}_equal"] = ask(f"{name}_equal", work, about, parts[name], **settings)
    topics = grading.topics if config.data.sources == "organism" else None
    return [
        state
        for part, step in parts.items()
        for state in judge(run, part, step, config.judge, config.judging, seed=made.seed, score=topics)
    ]


def _answer(
    run: Run, config: BrittlenessConfig, made: Made, part: str, work: Callable[[Path], None], about: str, *more: Step,
    **settings: Any,
) -> Step:  # fmt: skip
    replies = config.generate.here()
    return run.do(
        f"answer_{part}",
        work,
        settings={"generate": replies, **settings},
        seed=made.seed,
        reads=[*made.steps, *more],
        identity=load.identity(config.model),
        together=True,
        about=f"{about}, {replies.describe(data.held_out(config.data))}",
    )
