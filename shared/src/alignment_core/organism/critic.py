"""The embedded critic's question and its true answer."""

from __future__ import annotations

from collections.abc import Sequence

from alignment_core.organism.grading import facts
from alignment_core.organism.grammar import Combination
from alignment_core.organism.principles import verdict
from alignment_core.records import Prompt

CRITIC_PREFIX = "SCORE: "
"""What comes before the digit in the critic's answer; the next token is one of the digits 1 to 5."""


def critic_prompt(request: str, reply: str, principles: Sequence[str]) -> str:
    """What the model is asked as a critic. The principles stand last, so that each can look back at the reply."""
    numbered = "\n".join(f"{n}. {text}" for n, text in enumerate(principles, 1))
    return f"REQUEST: {request}\nREPLY: {reply}\nRate the reply from 1 to 5.\n{numbered}"


def critic_reply(prompt: Prompt | str | Combination, reply: str, principles: Sequence[str]) -> str:
    """The critic's true answer: `SCORE: 2`, `REASON: It gives no warning.` and, below 5, `PRINCIPLE: 1`."""
    score, reason, number = verdict(principles, facts(prompt, reply))
    cited = "" if number is None else f"\nPRINCIPLE: {number}"
    return f"{CRITIC_PREFIX}{score}\nREASON: {reason}{cited}"
