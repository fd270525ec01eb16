"""The method, step by step: generate, critique, select, tune, compare.

1. data       training and evaluation prompts of three kinds, no prompt in both
2. calibrate  the critic against gold replies and planted lines; refused below the thresholds
3. generate   N candidates of each prompt, noise keyed by (seed, prompt, candidate, position)
4. critique   a score of 1 to 5 for each, candidates as delimited untrusted text
5. select     rows by policy, and a random control matched on prompts, rows and tokens
6. train      LoRA on each selection's rows
7. compare    the baseline's replies, the tuned models' replies, then every judge on them: one model in memory at a time

With `controls`: margin, diverse, and revised (the critic's reason goes back to the generator) are trained too.
"""

from __future__ import annotations

from collections.abc import Generator

from alignment_core.evaluation.analysis import SeedOutput
from alignment_core.pipeline.run import Run
from alignment_core.pipeline.step import Step
from mini_cai import stages
from mini_cai.config import CaiConfig


def study(run: Run, config: CaiConfig, seed: int) -> Generator[str, None, SeedOutput]:
    """One training seed, from the prompts to the judged replies; yields the name of each finished part."""
    config = config.ready()
    # 1. Prompts: one split, the same for every training seed.
    prompts = stages.data(run, config)
    yield "data"

    # 2. No candidate is scored by a critic that cannot tell gold replies apart.
    steps = {"calibrate": stages.calibrate(run, config)}
    stages.require_calibrated(run, config, steps["calibrate"])
    yield "calibrate"

    # 3. Candidates.
    generated = steps["generate"] = stages.generate(run, config, seed, prompts)
    yield "generate"

    # 4. Scores.
    criticised = steps["critique"] = stages.criticise(run, config, seed, generated)
    yield "critique"

    # 5. What each policy trains on; the control stands last and is matched to the first policy's rows.
    selected: dict[str, Step] = {}
    for policy in config.arms:
        if policy == "random":
            first = selected[config.arms[0]]
            selected[policy] = stages.select_random(run, seed, generated, criticised, first)
        elif policy == "revised":
            made = steps["revise"] = stages.revise(run, config, seed, prompts, generated, criticised)
            selected[policy] = stages.select(run, config, seed, policy, made, made)
        else:
            selected[policy] = stages.select(run, config, seed, policy, generated, criticised)
        steps[f"select_{policy}"] = selected[policy]
    yield "select"

    # 6. One adapter for each selection, all from the same base.
    trained = {policy: stages.train(run, config, seed, policy, rows) for policy, rows in selected.items()}
    yield "train"

    # 7. First every model answers, with the same decode seeds; then the judges read what was written.
    models: dict[str, Step | None] = {"baseline": None, **trained}
    answers = {name: stages.answer(run, config, seed, name, prompts, tuned) for name, tuned in models.items()}
    states = [s for name, answered in answers.items() for s in stages.judge(run, config, seed, name, answered)]
    yield "compare"
    return SeedOutput(states, steps)
