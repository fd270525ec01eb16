"""What a judge is: verdicts on saved completions, one each, in order.

A judge that fails, rambles, refuses or cannot be parsed gives a *missing* verdict (`label` None, `rule` says why), and
never a label. A completion whose server gave no reply is shown to no judge: its verdict is missing with that reason.
When every verdict of a judge is missing there is no rate to report: `NoVerdicts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.errors import NothingToReport
from alignment_core.pipeline.writers import write_jsonl
from alignment_core.records import Completion, Label, Verdict

if TYPE_CHECKING:
    from alignment_core.judging.settings import JudgeSettings

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


def _no_settings(_: JudgeSettings) -> Any:
    """A judge whose verdicts its code alone decides."""


def _nothing_to_open(_: JudgeSettings) -> None:
    """A judge that needs nothing from outside."""


@dataclass(frozen=True)
class Entry:
    """One judge of the registry, given by its own module; every function takes the judges' settings."""

    about: str
    """What it is, in one line."""
    make: Callable[[JudgeSettings], Judge]
    """The judge; loads no model."""
    identity: Callable[[JudgeSettings], Any] = _no_settings
    """The settings, models and data that decide its verdicts, as JSON for a step's key; its code has a digest of its
    own. Loads no weights, and holds no address or key."""
    check: Callable[[JudgeSettings], None] = _nothing_to_open
    """`UserError` when it could not judge; loads no weights."""
    together: bool = False
    """Whether all processes of a group work on it."""


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
