"""The step that judges the replies of an answered step (its work is `judging.py`), and the states that it makes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from alignment_core.evaluation.files import read_places
from alignment_core.evaluation.judging import judge_replies
from alignment_core.evaluation.state import StateFiles
from alignment_core.judging.judges import check_judges, judge_code, judges_identity
from alignment_core.pipeline.provenance import module_of

if TYPE_CHECKING:
    from alignment_core.evaluation.judging import Score
    from alignment_core.judging.settings import JudgeSettings
    from alignment_core.pipeline.run import Run
    from alignment_core.pipeline.step import Step


def judge(
    run: Run,
    name: str,
    answered: Step,
    judges: str,
    settings: JudgeSettings,
    *,
    seed: int | None,
    score: Score | None = None,
) -> list[StateFiles]:
    """The step `judge_<name>`: verdicts on every state of `answered`, and the states with where their files lie.

    Calls that failed in passing leave the step open (`Unfinished`), unless the run accepts missing verdicts.
    """
    step = run.do(
        f"judge_{name}",
        partial(judge_replies, name, answered, judges, settings, score, run.accept_missing),
        settings={"judge": judges, "scores": None if score is None else f"{score.__module__}.{score.__qualname__}"},
        seed=seed,
        reads=[answered],
        identity=judges_identity(judges, settings),
        code=[*judge_code(judges), *([] if score is None else [module_of(score)])],
        together=True,
        opens=partial(check_judges, judges, settings),
    )
    if run.planning:
        return []
    places = read_places(answered.folder, name)
    return [StateFiles(subject, seed, answered / inside, step / inside, at) for subject, at, inside in places]
