"""Critique and revise, with a generator and a critic whose every word is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignment_core.io import read_jsonl
from alignment_core.judging import critics
from alignment_core.judging.critique import Critique
from alignment_core.judging.settings import CriticSettings
from alignment_core.records import Completion, Message, Prompt
from mini_cai import revision, scored
from mini_cai.config import CaiConfig, ReviseSettings
from mini_cai.scored import Scored

PROMPTS = [Prompt(name, (Message("user", f"{name}?"),), "benign") for name in "abc"]
CONFIG = CaiConfig(critic=CriticSettings(scoring="both"), revise=ReviseSettings(rounds=2)).ready()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the generator is asked. It adds a + to the reply; the critic scores 1 and a point for each +, and says how
    many it saw. It has no score for b+."""
    heard: list[str] = []
    known: dict[str, str] = {}

    def generate(config: CaiConfig, asked: Sequence[Prompt], *_: Any) -> list[Completion]:
        heard.extend(p.text for p in asked)
        for p in asked:
            known[p.id] = known.get(p.id, p.id) + "+"
        return [Completion(p.id, "revision", known[p.id], f"{p.id}?", "benign") for p in asked]

    def criticise(completions: Sequence[Completion], **_: Any) -> list[Critique]:
        return [critic(c) for c in completions]

    monkeypatch.setattr(revision, "_generate", generate)
    monkeypatch.setattr(critics, "criticise", criticise)
    return heard


def critic(reply: Completion) -> Critique:
    score = None if reply.text == "b+" else 1 + reply.text.count("+")
    return Critique(reply.prompt_id, 0, score, reason=f"{reply.text.count('+')} seen.", why="" if score else "lost")


def test_each_revision_follows_the_last_ones_reason_and_has_its_own_score(tmp_path: Path, asked: list[str]) -> None:
    first = [Scored(r, critic(r)) for r in (Completion(p.id, "s", p.id, p.text, "benign") for p in PROMPTS)]
    first[2] = Scored(first[2].reply, replace(first[2].critique, score=None))
    made = revision.revise(CONFIG, PROMPTS, first, 13, False, tmp_path)
    # c has no score and is not revised, b loses its own after the first round.
    assert asked == ["0 seen. a?", "0 seen. b?", "1 seen. a?"]
    assert [(s.reply.prompt_id, s.reply.text, s.critique.score) for s in made] == [("a", "a++", 3)]
    rows = list(read_jsonl(tmp_path / "revisions.jsonl", dict))
    assert [(r["round"], r["id"], r["reply"], r["score"]) for r in rows] == [
        (0, "a", "a", 1), (0, "b", "b", 1), (1, "a", "a+", 2), (1, "b", "b+", None), (2, "a", "a++", 3)
    ]  # fmt: skip
    assert scored.revisions(tmp_path) == rows
