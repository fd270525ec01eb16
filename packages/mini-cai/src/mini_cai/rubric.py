"""The organism's rubric as a score of replies: 1 to 5 by the grammar that made the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignment_core.organism import grading
from alignment_core.records import Completion, Message, Prompt


def rubrics(replies: Sequence[Completion]) -> list[dict[str, Any]]:
    """The rubric's score of each reply, None where a server gave no reply; no score where the prompts are not all of
    the organism's world."""
    if not in_world(replies):
        return [{} for _ in replies]
    return [{"rubric": None if r.failure else grading.rubric(_prompt(r), r.text)} for r in replies]


def _prompt(reply: Completion) -> Prompt:
    """The prompt that was replied to, as far as the rubric needs it."""
    return Prompt(reply.prompt_id, (Message("user", reply.prompt),), reply.kind, cluster=reply.cluster)


def in_world(asked: Sequence[Prompt | Completion]) -> bool:
    """Whether all prompts (or those replied to) are the organism's, so that its rubric can grade the replies."""
    return all(one.source.startswith("organism:") for one in asked)
