"""The work of a step that judges: every judge's verdicts on the saved replies, and their further scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.evaluation.files import COMPLETIONS, SCORES, VERDICTS, read_places
from alignment_core.io import read_jsonl
from alignment_core.judging.judges import judge_all
from alignment_core.pipeline.writers import write_jsonl
from alignment_core.records import Completion

if TYPE_CHECKING:
    from alignment_core.judging.settings import JudgeSettings
    from alignment_core.pipeline.step import Step

Score = Callable[[Sequence[Completion]], Sequence[Mapping[str, Any]]]
"""Further scores of replies that need no model, for example whether each is on its topic; one mapping a reply."""


def judge_replies(
    name: str,
    answered: Step,
    judges: str,
    settings: JudgeSettings,
    score: Score | None,
    accept_missing: bool,
    folder: Path,
) -> None:
    """Verdicts of every judge on each state of `answered` in verdicts.jsonl, and the scores that `score` gives its
    replies in scores.jsonl, in the same folders inside `folder`."""
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
