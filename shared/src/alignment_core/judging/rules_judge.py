"""The judge `rules`: the core's refusal rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignment_core.judging import refusal
from alignment_core.judging.verdicts import Entry, Judge, verdict
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


ENTRIES = {
    "rules": Entry("The core's refusal rules: how a reply opens, and what it goes on to do.", lambda _: RulesJudge())
}
