"""Judges that need no model: the refusal rules, and what other papers' detectors would have said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignment_core.judging import refusal
from alignment_core.judging.detectors import DETECTORS
from alignment_core.judging.verdicts import Judge, verdict
from alignment_core.records import Completion, Verdict


class RulesJudge(Judge):
    """The core's refusal rules."""

    name = "rules"

    def verdicts(self, replies: Sequence[Completion], file: Path, accept_missing: bool) -> list[Verdict]:
        out = []
        for reply in replies:
            ruling = refusal.judge(reply.text, reply.prompt)
            out.append(verdict(reply, self.name, ruling.label, ruling.rule, ruling.evidence))
        return out


class DetectorJudge(Judge):
    """What another paper's instrument would have said: refusal, or (for everything else) compliance."""

    def __init__(self, name: str) -> None:
        self.name = name

    def verdicts(self, replies: Sequence[Completion], file: Path, accept_missing: bool) -> list[Verdict]:
        refused = DETECTORS[self.name]
        return [verdict(r, self.name, "refusal" if refused(r.text) else "compliance") for r in replies]
