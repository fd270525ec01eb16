"""Verdicts of every judge on the replies of an answered step, as a step of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alignment_core.evaluation.state import COMPLETIONS, SCORES, VERDICTS, StateFiles, read_places
from alignment_core.io import read_jsonl
from alignment_core.judging.judges import JudgeSettings, check_judges, judge_all, judges_identity
from alignment_core.pipeline.run import Run
from alignment_core.pipeline.step import Step
from alignment_core.pipeline.writers import write_jsonl
from alignment_core.records import Completion

Score = Callable[[Sequence[Completion]], Sequence[Mapping[str, Any]]]
"""Further scores of replies that need no model, for example whether each is on its topic; one mapping a reply."""


def judge(
    run: Run,
    name: str,
    answered: Step,
    judges: str,
    settings: JudgeSettings,
    *,
    seed: int | None,
    score: Score | None = None,
    scored_by: Any = None,
) -> list[StateFiles]:
    """The step `judge_<name>`: verdicts on every state of `answered`, and the states with where their files lie.

    `scored_by` names what decides the scores, for the step's key. Calls that failed in passing leave the step open
    (`Unfinished`), unless the run accepts missing verdicts.
    """
    step = run.do(
        f"judge_{name}",
        partial(_judge, name, answered, judges, settings, score, run.accept_missing),
        settings={"judge": judges, "scores": scored_by},
        seed=seed,
        reads=[answered],
        identity=judges_identity(judges, settings),
        together=True,
        opens=partial(check_judges, judges, settings),
    )
    if run.planning:
        return []
    places = read_places(answered.folder, name)
    return [StateFiles(subject, seed, answered / inside, step / inside, at) for subject, at, inside in places]


def _judge(
    name: str,
    answered: Step,
    judges: str,
    settings: JudgeSettings,
    score: Score | None,
    accept_missing: bool,
    folder: Path,
) -> None:
    done: set[str] = set()
    for _, _, inside in read_places(answered.folder, name):
        if inside in done:
            continue
        done.add(inside)
        replies = list(read_jsonl(answered / inside / COMPLETIONS, Completion.from_json))
        place = folder / inside
        place.mkdir(parents=True, exist_ok=True)
        verdicts = judge_all(judges, replies, place, settings, accept_missing=accept_missing)
        write_jsonl(place / VERDICTS, verdicts)
        if score is not None:
            keys = ({"prompt_id": reply.prompt_id, "candidate": reply.candidate} for reply in replies)
            write_jsonl(place / SCORES, [{**k, **s} for k, s in zip(keys, score(replies), strict=True)])
