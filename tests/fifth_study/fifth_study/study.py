"""The method: 1. data; 2. SFT on refusals alone; 3. the base and the tuned model answer the same prompts."""

from collections.abc import Generator
from functools import partial

from alignment_core.evaluation.analysis import SeedOutput
from alignment_core.evaluation.judge import judge
from alignment_core.evaluation.state import StateFiles
from alignment_core.models import load
from alignment_core.pipeline.run import Run
from fifth_study import answering, data, training
from fifth_study.config import FifthConfig


def study(run: Run, config: FifthConfig, seed: int) -> Generator[str, None, SeedOutput]:
    """One training seed; yields the name of each finished part."""
    about, model = config.train.describe(config.rows), load.identity(config.model)
    sizes, trains = {"rows": config.rows, "prompts": config.prompts}, {"train": config.train, "lora": config.lora}
    split = run.do("data", partial(data.build, config), settings=sizes, identity=model)
    yield "data"
    tune = partial(training.tune, config, seed, split)
    tuned = run.do(
        "tune", tune, settings=trains, seed=seed, reads=[split], identity=model, trains=True, together=True, about=about
    )
    yield "tune"
    states: list[StateFiles] = []
    for name, trained in (("baseline", None), ("tuned", tuned)):
        own = seed if trained else None
        ask = partial(answering.reply, config, name, own, split, trained, run.accept_missing)
        reads, how = [split, trained] if trained else [split], config.generate
        answered = run.do(f"answer_{name}", ask, settings=how, seed=own, reads=reads, identity=model, together=True)
        judges = (config.judge, config.judging)
        states += judge(run, name, answered, *judges, seed=own, score=answering.words)
    yield "evaluate"
    return SeedOutput(states)
