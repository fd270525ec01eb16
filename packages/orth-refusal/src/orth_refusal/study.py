"""The method, step by step: can an attack be kept out of a direction?

1. data      every question dealt once, within its topic: refusal adapter, attacks, test
2. refusal   a LoRA adapter on the blue side (refusals)
3. direction the refusal change in parameter space: per factor tensor, per matrix in ΔW, rank-k left subspace of ΔW;
             and random ones of the same shapes
4. attack    LoRA attacks on the red side, one for each projection, on exactly equal budgets
5. evaluate  every evaluated step of every attack asked the same held-out prompts, on one base
6. finish    refusal at matched attack loss, areas, projection minus its random control, hypotheses, report

With `controls`: a benign task's and the attack's own subspace, vanilla with shrunk steps and at lower learning rates,
the original's penalty, safety replay, and a KL penalty to the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from alignment_core.evaluation import results
from alignment_core.evaluation.results import Results
from alignment_core.io import read_json
from alignment_core.models import load
from alignment_core.pipeline.run import Run, Step
from alignment_core.report import page
from orth_refusal import attack, data, evaluation, report
from orth_refusal.arms import Arm, chosen
from orth_refusal.config import OrthConfig
from orth_refusal.evaluation import Bench

Steps = dict[str, Step]


def study(run: Run, config: OrthConfig, seed: int) -> Iterator[str]:
    """One training seed, from the data to the judged replies; yields the name of each finished part."""
    # 1. Data: one deal, the same for every training seed.
    told, named = config.data, data.identity(config.data)
    dealt = run.do("data", lambda folder: data.told(told, folder), settings=told, identity=named)
    yield "data"

    # 2. What refusing changes: the refusal adapter; with the controls a benign one, and the red side of its questions.
    parts = ("refusal", "benign", "red") if config.controls else ("refusal",)
    steps: Steps = {part: _tune(run, config, seed, part, dealt) for part in parts}
    if config.setup == "merged":
        refusal, named = steps["refusal"], load.identity(config.model)
        merge = partial(attack.merge, config, refusal)
        steps["merged"] = run.do("merged", merge, seed=seed, reads=[refusal], identity=named)
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
        steps[arm.name] = _attack(run, config, seed, arm, dealt, steps)
    yield "attack"

    # 5. Base, refusal adapter and every attack answer the same prompts.
    _evaluate_all(run, config, seed, dealt, steps)
    yield "evaluate"


def finish(run: Run, config: OrthConfig, seeds: Sequence[int]) -> Results:
    """6. What the judged trajectories of all seeds say: results.json and the report, written in the run folder."""
    preset = read_json(run.folder / "config.json")["preset"]
    equal = config.projected_epochs is None
    found = report.results(preset, seeds, evaluation.collect(run), equal)
    results.write(run.folder / "results.json", found)
    page.write(run.folder, found, report.spec(found))
    return found


def _tune(run: Run, config: OrthConfig, seed: int, part: str, dealt: Step) -> Step:
    return run.do(
        f"tune_{part}",
        lambda folder: attack.tune(config, seed, dealt.folder, part, folder),
        settings={"train": config.refusal, "lora": config.lora, "part": part},
        seed=seed,
        reads=[dealt],
        identity=load.identity(config.model),
        together=True,
    )


def _direction(run: Run, config: OrthConfig, seed: int, source: str, steps: Steps) -> Step:
    needed = {"refusal": ["refusal"], "benign": ["benign"], "contrast": ["refusal", "red"], "oracle": ["vanilla"]}
    return run.do(
        "direction" if source == "refusal" else f"direction_{source}",
        lambda folder: attack.read_directions(config, seed, source, steps, folder),
        settings=config.direction,
        seed=seed,
        reads=[steps[name] for name in needed[source]],
    )


def _attack(run: Run, config: OrthConfig, seed: int, arm: Arm, dealt: Step, steps: Steps) -> Step:
    return run.do(
        f"attack_{arm.name}",
        lambda folder: attack.attack(config, arm, seed, dealt.folder, steps, folder),
        settings=attack.slice_of(config, arm),
        seed=seed,
        reads=attack.read_by(arm, dealt, steps),
        identity=load.identity(attack.start_model(config, steps)),
        together=True,
    )


def _evaluate_all(run: Run, config: OrthConfig, seed: int, dealt: Step, steps: Steps) -> None:
    """Base and attacks on one loaded base, the refusal adapter on its own; then the original's file of the ends."""
    bench = Bench(attack.start_model(config, steps), steps["vanilla"] / "adapter")
    tuned = Bench(config.model, steps["refusal"] / "adapter")
    asked = {"baseline": None, "refusal_lora": steps["refusal"]} | {
        a.name: steps[a.name] for a in chosen(config.controls)
    }
    judged: dict[str, tuple[Step, Step]] = {}
    for subject, trained in asked.items():
        own = None if trained is None and config.setup == "base" else seed  # the bare base is the same for every seed
        on = tuned if subject == "refusal_lora" else bench
        reads = [s for s in (dealt, trained, steps.get("merged")) if s is not None]
        judged[subject] = _evaluate(run, config, subject, trained, own, on, reads)
    reads = [s for both in judged.values() for s in both]
    run.do("local_test", lambda f: evaluation.local_refusal_test(config, judged, f), seed=seed, reads=reads)


def _evaluate(
    run: Run, config: OrthConfig, subject: str, trained: Step | None, seed: int | None, bench: Bench, reads: list[Step]
) -> tuple[Step, Step]:
    """Replies and losses of one subject at its evaluated steps, and their verdicts; `reads` opens with the data."""
    answered = run.do(
        f"answer_{subject}",
        lambda folder: evaluation.answer(config, bench, subject, trained, reads[0].folder, seed, folder),
        settings={"generate": evaluation.how(config)},
        seed=seed,
        reads=reads,
        identity=load.identity(bench.model),
        together=True,
    )
    judged = run.do(
        f"judge_{subject}",
        lambda folder: evaluation.judge(config, answered, folder),
        settings={"judge": config.judge},
        seed=seed,
        reads=[answered],
        identity=evaluation.identity(config),
        together=True,
    )
    return answered, judged
