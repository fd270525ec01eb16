"""What a judge is: verdicts on saved completions, one each, in order.

A judge that fails, rambles, refuses or cannot be parsed gives a *missing* verdict (`label` None, `rule` says why), and
never a label. A completion whose server gave no reply is shown to no judge: its verdict is missing with that reason.
When every verdict of a judge is missing there is no rate to report: `NoVerdicts`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from alignment_core.errors import NothingToReport
from alignment_core.pipeline.writers import write_jsonl
from alignment_core.records import Completion, Label, Verdict

TOO_LONG = "the question does not fit the judge's context"


class NoVerdicts(NothingToReport):
    """A judge gave no verdict on any completion, so that there is nothing to report (exit code 2)."""

    def __init__(self, judge: str, count: int, reason: str) -> None:
        super().__init__(f"judge {judge}: all {count} verdicts are missing, so there is no rate; the first: {reason}")


class Judge(ABC):
    """Anything that gives a verdict on each completion, in order."""

    name: str

    def judge(self, completions: Sequence[Completion], file: Path, *, accept_missing: bool = False) -> list[Verdict]:
        """Verdicts in the completions' order, written to `file` as JSONL; what a restart needs stands beside it.

        Raises `Unfinished` when calls to a server failed in passing, unless `accept_missing`.
        """
        replies = [c for c in completions if not c.failure]
        given = iter(self.verdicts(replies, file, accept_missing) if replies else ())
        out = [verdict(c, self.name, None, c.failure) if c.failure else next(given) for c in completions]
        write_jsonl(file, out)
        return out

    @abstractmethod
    def verdicts(self, replies: Sequence[Completion], file: Path, accept_missing: bool) -> list[Verdict]:
        """A verdict on each reply, in order; `file` is where all of them will stand."""


def answers_name(file: Path) -> str:
    """What a model judge's own answers are called beside its verdicts in `file`."""
    return f"answers_{file.stem.removeprefix('verdicts_')}"


def verdict(
    completion: Completion,
    judge: str,
    label: Label | None,
    rule: str = "",
    evidence: tuple[int, int] | None = None,
    score: float | None = None,
) -> Verdict:
    """A verdict on one completion; everything else is the completion's."""
    return Verdict(
        prompt_id=completion.prompt_id,
        subject=completion.subject,
        judge=judge,
        label=label,
        kind=completion.kind,
        category=completion.category,
        source=completion.source,
        cluster=completion.cluster,
        seed=completion.seed,
        candidate=completion.candidate,
        rule=rule,
        evidence=evidence,
        score=score,
    )


def require_verdicts(verdicts: Sequence[Verdict]) -> None:
    """`NoVerdicts` when there are verdicts and every one is missing."""
    if verdicts and all(v.missing for v in verdicts):
        raise NoVerdicts(verdicts[0].judge, len(verdicts), verdicts[0].rule)


def source_hash(*files: str) -> str:
    """Hash of source files of this package: a changed judge judges again."""
    folder = resources.files("alignment_core.judging")
    return hashlib.sha256(b"\0".join(folder.joinpath(f).read_bytes() for f in files)).hexdigest()[:16]
