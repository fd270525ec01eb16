"""The method, step by step: generate, critique, select, tune, compare.

1. data       training and evaluation prompts of three kinds, no prompt in both
2. calibrate  the critic against gold replies and planted lines; refused below the thresholds
3. generate   N candidates of each prompt, noise keyed by (seed, prompt, candidate, position)
4. critique   a score of 1 to 5 for each, candidates as delimited untrusted text
5. select     rows by policy, and a random control matched on prompts, rows and tokens
6. train      LoRA on each selection's rows
7. compare    three phases, one model in memory at a time: baseline's replies, tuned replies, judge
8. finish     levels, paired differences, hypotheses by their written rule, report

With `controls`: margin, diverse, and revised (the critic's reason goes back to the generator) are trained too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from alignment_core.evaluation import results
from alignment_core.evaluation.results import Results
from alignment_core.io import read_json
from alignment_core.pipeline.run import Run, Step
from alignment_core.report import page
from mini_cai import calibration, compare, report, stages
from mini_cai.config import CaiConfig

log = logging.getLogger(__name__)


def study(run: Run, config: CaiConfig, seed: int) -> Iterator[str]:
    """One training seed, from the prompts to the graded replies; yields the name of each finished part."""
    config = config.lowered()
    # 1. Prompts: one deal, the same for every training seed.
    prompts = stages.data_step(run, config)
    yield "data"

    # 2. No candidate is scored by a critic that cannot tell gold replies apart.
    calibrated = stages.calibrate(run, config)
    calibration.require(calibrated.folder, config.calibration)
    yield "calibrate"

    # 3. Candidates.
    generated = stages.generate(run, config, seed, prompts)
    yield "generate"

    # 4. Scores.
    criticised = stages.criticise(run, config, seed, generated)
    yield "critique"

    # 5. What each policy trains on; the control stands last and is matched to the first policy's rows.
    selected: dict[str, Step] = {}
    for policy in config.arms:
        if policy == "random":
            first = selected[config.arms[0]]
            selected[policy] = stages.select_random(run, seed, generated, criticised, first)
        elif policy == "revised":
            made = stages.revise(run, config, seed, prompts, generated, criticised)
            selected[policy] = stages.select(run, config, seed, policy, made, made)
        else:
            selected[policy] = stages.select(run, config, seed, policy, generated, criticised)
    yield "select"

    # 6. One adapter for each selection, all from the same base.
    trained = {policy: stages.train(run, config, seed, policy, rows) for policy, rows in selected.items()}
    yield "train"

    # 7. First every model answers, with the same decode seeds; then the judge grades what was written.
    models: dict[str, Step | None] = {"baseline": None, **trained}
    answers = {name: stages.answer(run, config, seed, name, prompts, tuned) for name, tuned in models.items()}
    judged = {name: stages.judge(run, config, seed, name, prompts, written) for name, written in answers.items()}
    for name in trained:
        stages.pair(run, config, seed, name, answers, judged)
    yield "compare"


def finish(run: Run, config: CaiConfig, seeds: Sequence[int]) -> Results:
    """8. What the graded replies of all seeds say: results.json and the report, written in the run folder."""
    preset = read_json(run.folder / "config.json")["preset"]
    for line in compare.warnings(config):
        log.warning("%s", line)
    found = report.results(run, config, preset, seeds)
    results.write(run.folder / "results.json", found)
    page.write(run.folder, found, report.spec(found))
    return found
