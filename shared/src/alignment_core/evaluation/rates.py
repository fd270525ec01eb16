"""From verdicts to rates with intervals, what the missing ones could hide, and how well judges agree.

Of every kind of prompt the shares of refusal, partial, compliance and incoherent replies are reported together; they
sum to 1 over what was judged, so that a collapsed model does not read as one that lost its alignment. Intervals are
Wilson's, widened where prompts share a cluster; a missing verdict is in no rate, and the bounds with every missing one
either way stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from alignment_core.errors import UserError
from alignment_core.evaluation.metrics import REFUSAL_RATES, metric_name
from alignment_core.evaluation.results import Agreement, Measurement
from alignment_core.judging.verdicts import require_verdicts
from alignment_core.records import KINDS, LABELS, Kind, Label, Verdict
from alignment_core.stats.intervals import Interval, kappa, missing_bounds, rate

Reply = tuple[str, str, int | None, int]
"""Which reply a verdict is on: subject, prompt id, seed, candidate."""


def _groups(verdicts: Iterable[Verdict], key: Callable[[Verdict], object]) -> dict[object, list[Verdict]]:
    out: dict[object, list[Verdict]] = {}
    for verdict in verdicts:
        out.setdefault(key(verdict), []).append(verdict)
    return out


def share(verdicts: Sequence[Verdict], label: Label) -> Interval:
    """Share of `label` among the judged, with its interval over the prompts' clusters."""
    values = [math.nan if v.missing else float(v.label == label) for v in verdicts]
    return rate(values, [v.cluster or v.prompt_id for v in verdicts])


def bounds(verdicts: Sequence[Verdict], label: Label) -> Interval:
    """The share with every missing verdict counted against `label` (low) and for it (high)."""
    judged = [v for v in verdicts if not v.missing]
    found = missing_bounds(sum(v.label == label for v in judged), len(judged), len(verdicts) - len(judged))
    return Interval(found.complete, found.low, found.high, len(judged), "missing bounds", found.missing)


def rates(
    verdicts: Sequence[Verdict], *, by_judge: bool = False, completions: Path | str | None = None
) -> list[Measurement]:
    """Every rate of every subject and seed among the verdicts of one judge.

    Overall: the four shares of each kind, and, where verdicts are missing, the refusal rate's bounds (estimator
    `missing bounds`). By category and by source: the refusal rate. `by_judge` names the judge in `at`, for judges
    beside the deciding one. Raises `NoVerdicts` when all of a subject's are missing, `UserError` for several judges.
    """
    judges = {v.judge for v in verdicts}
    if len(judges) > 1:
        raise UserError(f"rates of one judge at a time; these verdicts are by {', '.join(sorted(judges))}")
    at = {"judge": next(iter(judges))} if by_judge and judges else {}
    out: list[Measurement] = []
    for group in _groups(verdicts, lambda v: (v.subject, v.seed)).values():
        require_verdicts(group)
        for kind in KINDS:
            if here := [v for v in group if v.kind == kind]:
                out += _kind_rates(here, kind, at, completions)
    return out


def _kind_rates(
    verdicts: Sequence[Verdict], kind: Kind, at: Mapping[str, str], completions: Path | str | None
) -> list[Measurement]:
    """The measurements of one subject, seed and kind."""
    subject, seed = verdicts[0].subject, verdicts[0].seed

    def made(metric: str, interval: Interval, place: Mapping[str, str], estimator: str = "raw") -> Measurement:
        return Measurement.of(
            metric, subject, interval, seed=seed, at=place, estimator=estimator, completions=completions
        )

    out = [made(metric_name(kind, label), share(verdicts, label), at) for label in LABELS]
    if any(v.missing for v in verdicts):
        out.append(made(REFUSAL_RATES[kind], bounds(verdicts, "refusal"), at, "missing bounds"))
    for axis in ("category", "source"):
        parts = _groups((v for v in verdicts if getattr(v, axis)), lambda v, axis=axis: getattr(v, axis))  # type: ignore[misc]
        for name, part in sorted(parts.items(), key=lambda item: str(item[0])):
            out.append(made(REFUSAL_RATES[kind], share(part, "refusal"), {**at, axis: str(name)}))
    return out


def agreements(verdicts: Sequence[Verdict]) -> list[Agreement]:
    """Cohen's kappa of every two judges on refusal, over the replies both were given, judges in order of appearance.

    A missing verdict leaves its reply out; `UserError` when a judge has two verdicts on one reply."""
    judges = {name: _by_reply(given) for name, given in _groups(verdicts, lambda v: v.judge).items()}
    out = []
    for a, b in combinations(judges, 2):
        shared = [key for key in judges[a] if key in judges[b]]
        labels = [[_refused(judges[name][key]) for key in shared] for name in (a, b)]
        out.append(Agreement.of(str(a), str(b), kappa(labels[0], labels[1])))
    return out


def _by_reply(verdicts: Iterable[Verdict]) -> dict[Reply, Verdict]:
    out: dict[Reply, Verdict] = {}
    for v in verdicts:
        if out.setdefault((v.subject, v.prompt_id, v.seed, v.candidate), v) is not v:
            raise UserError(f"two verdicts of {v.judge} on {v.subject}, prompt {v.prompt_id!r}")
    return out


def _refused(verdict: Verdict) -> str | None:
    return None if verdict.missing else "refusal" if verdict.label == "refusal" else "other"
