"""The method, step by step: can an attack be kept out of a direction?

1. data      every question in one part, within its topic: refusal adapter, attacks, test
2. refusal   a LoRA adapter on the blue side (refusals)
3. direction the refusal change per factor tensor, per matrix in ΔW, rank-k left subspace of ΔW; random ones like them
4. attack    LoRA attacks on the red side, one for each projection, on exactly equal budgets
5. evaluate  every evaluated step of every attack asked the same held-out prompts, on one base

With `controls`: a benign task's and the attack's own subspace, vanilla with shrunk steps and at lower learning rates,
the original's penalty, safety replay, and a KL penalty to the base.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial

from alignment_core.evaluation.analysis import SeedOutput
from alignment_core.evaluation.judge import judge
from alignment_core.evaluation.state import StateFiles
from alignment_core.models import load
from alignment_core.organism import grading
from alignment_core.pipeline.run import Run
from alignment_core.pipeline.step import Step
from orth_refusal import answering, attack, data, plans, reading, start, tuning
from orth_refusal.answering import Bench
from orth_refusal.arms import Arm, chosen
from orth_refusal.config import OrthConfig

Steps = dict[str, Step]


def study(run: Run, config: OrthConfig, seed: int) -> Generator[str, None, SeedOutput]:
    """One training seed, from the data to the judged states; yields the name of each finished part."""
    # 1. Data: one split, the same for every training seed.
    split = run.do(
        "data",
        partial(data.work(config.data), config.data),
        settings=config.data,
        identity=data.identity(config.data),
        about=f"{data.held_out(config.data)} held-out prompts",
    )
    yield "data"

    # 2. What refusing changes: the refusal adapter; with the controls a benign one, and the red side of its questions.
    parts = ["refusal", *(("benign", "red") if config.controls else ())]
    steps: Steps = {part: _tune(run, config, seed, part, split) for part in parts}
    if config.setup == "merged":
        merge, named = partial(start.merge, config, steps["refusal"]), load.identity(config.model)
        steps["merged"] = run.do("merged", merge, seed=seed, reads=[steps["refusal"]], identity=named)
    yield "refusal"

    # 3. Directions, from the change of those adapters.
    steps["direction"] = _direction(run, config, seed, "refusal", steps)
    if config.controls:
        steps["direction_benign"] = _direction(run, config, seed, "benign", steps)
        steps["direction_contrast"] = _direction(run, config, seed, "contrast", steps)
    yield "direction"

    # 4. The attacks, vanilla first: every other arm's budget is checked against its own.
    for arm in chosen(config.controls):
        if arm.source == "oracle":
            steps["direction_oracle"] = _direction(run, config, seed, "oracle", steps)
        steps[arm.name] = _attack(run, config, seed, arm, split, steps)
    yield "attack"

    # 5. Base, refusal adapter and every attack answer the same prompts.
    states = _evaluate_all(run, config, seed, split, steps)
    yield "evaluate"
    return SeedOutput(states, {f"attack_{arm.name}": steps[arm.name] for arm in chosen(config.controls)})


def _tune(run: Run, config: OrthConfig, seed: int, part: str, split: Step) -> Step:
    return run.do(
        f"tune_{part}",
        partial(tuning.tune, config, seed, split.folder, part),
        settings={"train": config.refusal, "lora": config.lora, "part": part},
        seed=seed,
        reads=[split],
        identity=load.identity(config.model),
        trains=True,
        together=True,
        about=config.refusal.describe(data.size(config.data, part)),
    )


def _direction(run: Run, config: OrthConfig, seed: int, source: str, steps: Steps) -> Step:
    needed = {"refusal": ["refusal"], "benign": ["benign"], "contrast": ["refusal", "red"], "oracle": ["vanilla"]}
    return run.do(
        "direction" if source == "refusal" else f"direction_{source}",
        partial(reading.read_directions, config, seed, source, dict(steps)),
        settings=config.direction,
        seed=seed,
        reads=[steps[name] for name in needed[source]],
    )


def _attack(run: Run, config: OrthConfig, seed: int, arm: Arm, split: Step, steps: Steps) -> Step:
    """One arm; a merged start is among the steps it reads, so that the model's own identity is enough."""
    return run.do(
        f"attack_{arm.name}",
        partial(attack.attack, config, arm, seed, split.folder, dict(steps)),
        settings=plans.slice_of(config, arm),
        seed=seed,
        reads=plans.read_by(arm, split, steps),
        identity=load.identity(config.model),
        trains=True,
        together=True,
        about=plans.about(config, arm),
    )


def _evaluate_all(run: Run, config: OrthConfig, seed: int, split: Step, steps: Steps) -> list[StateFiles]:
    """Base and attacks on one loaded base, the refusal adapter on its own; step 0 of every attack is the base."""
    merged, bare = ([steps["merged"]], seed) if "merged" in steps else ([], None)  # the bare base has no seed
    bench = Bench(config, start.start_model(config, steps), steps["vanilla"] / "adapter", run.accept_missing)
    tuned = Bench(config, config.model, steps["refusal"] / "adapter", run.accept_missing)
    base = _evaluate(run, bench, "baseline", bare, partial(answering.at_base, bench), [split, *merged])
    end = partial(answering.at_end, tuned, steps["refusal"])
    states = base + _evaluate(run, tuned, "refusal_lora", seed, end, [split, steps["refusal"], *merged])
    for name in (a.name for a in chosen(config.controls)):
        states += [replace(one, subject=name, seed=seed, at={"step": 0}) for one in base]
        along, times = partial(answering.along, bench, steps[name]), f", at up to {config.points} steps"
        states += _evaluate(run, bench, name, seed, along, [split, steps[name], *merged], times)
    return states


def _evaluate(
    run: Run,
    bench: Bench,
    subject: str,
    seed: int | None,
    work: Callable[..., None],
    reads: list[Step],
    times: str = "",
) -> list[StateFiles]:
    """The replies and losses that `work` makes of one subject, and their verdicts; `reads` opens with the data."""
    config, split = bench.config, reads[0]
    how = answering.how(config)
    answered = run.do(
        f"answer_{subject}",
        partial(work, subject, seed, split.folder),
        settings={"generate": how},
        seed=seed,
        reads=reads,
        identity=load.identity(config.model),
        together=True,
        about=how.describe(data.held_out(config.data)) + times,
    )
    known = grading.topics if config.data.sources == "organism" else None
    return judge(run, subject, answered, config.judge, config.judging, seed=seed, score=known)
