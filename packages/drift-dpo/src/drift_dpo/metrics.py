"""What is measured of each reply, and where the values of a run lie: arrays over prompts and training seeds.

A value is a float, NaN where the judge gave no verdict (missing), or None where the metric does not apply (the topic
of a refusal). A state without seeds (the baseline) has the seed None and stands for every seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment_core.evaluation.rates import metric_name
from alignment_core.io import read_jsonl, read_rows
from alignment_core.records import KINDS, LABELS, Kind, Label, Verdict

Value = float | None
Scores = Mapping[str, Any]
"""Of one prompt: `topic` (bool), `reference_loss` (nats a token), `first_token_kl` (nats)."""


@dataclass(frozen=True)
class Metric:
    """A figure of one kind of prompt."""

    key: str
    kind: Kind
    read: Callable[[Verdict, Scores], Value]
    rate: bool = True
    judged: bool = False
    """Whether it is a share of a verdict, which the core measures of one state."""
    conditional: bool = False
    """Whether it applies to some replies only, so that prompts cannot be paired over states."""


def _labelled(label: Label) -> Callable[[Verdict, Scores], Value]:
    return lambda v, s: math.nan if v.missing else float(v.label == label)


def _score(key: str) -> Callable[[Verdict, Scores], Value]:
    return lambda v, s: None if s.get(key) is None else float(s[key])


def _topic(v: Verdict, s: Scores) -> Value:
    if s.get("topic") is None or v.label == "refusal":
        return None
    return math.nan if v.missing else float(s["topic"])


def _helpful(v: Verdict, s: Scores) -> Value:
    if s.get("topic") is None:
        return None
    return math.nan if v.missing else float(v.label == "compliance" and s["topic"])


METRICS: tuple[Metric, ...] = (
    *(Metric(metric_name(kind, label), kind, _labelled(label), judged=True) for label in LABELS for kind in KINDS),
    Metric("topic_rate", "benign", _topic, conditional=True),
    Metric("helpful_rate", "benign", _helpful),
    Metric("reference_loss", "benign", _score("reference_loss"), rate=False),
    *(Metric(f"{kind}_first_token_kl", kind, _score("first_token_kl"), rate=False) for kind in KINDS),
)
"""Refusal, partial, compliance and incoherent shares of a kind sum to 1."""


@dataclass(frozen=True)
class Evaluation:
    """One judged state: verdicts of the deciding judge, those of every judge, and the scores, by prompt id."""

    subject: str
    seed: int | None
    completions: str
    """Path of the completions, relative to the run folder."""
    verdicts: Mapping[str, Verdict]
    by_judge: Mapping[str, Mapping[str, Verdict]]
    scores: Mapping[str, Scores]

    def values(self, metric: Metric) -> dict[str, Value]:
        """The metric of every prompt of its kind, by the deciding judge."""
        return {k: metric.read(v, self.scores.get(k, {})) for k, v in self.verdicts.items() if v.kind == metric.kind}


def read_evaluation(
    run_folder: Path, subject: str, seed: int | None, completions: Path, verdicts: Path, scores: Path
) -> Evaluation:
    """From the files of the evaluation's steps; the first judge in the verdicts' file decides."""
    by_judge: dict[str, dict[str, Verdict]] = {}
    for verdict in read_jsonl(verdicts, Verdict.from_json):
        by_judge.setdefault(verdict.judge, {})[verdict.prompt_id] = verdict
    found = {row["prompt_id"]: row for _, row, reason in read_rows(scores) if reason is None}
    place = completions.relative_to(run_folder).as_posix()
    return Evaluation(subject, seed, place, next(iter(by_judge.values())), by_judge, found)


@dataclass(frozen=True)
class Layout:
    """Values of one metric as arrays [P] or [P, S] over the same prompts, with the prompts' clusters."""

    prompts: tuple[str, ...]
    clusters: tuple[str, ...]
    values: NDArray[np.float64]


def layout(metric: Metric, states: Sequence[Evaluation], prompts: Sequence[str] | None = None) -> Layout | None:
    """The metric of one subject over its seeds, prompts in the order of the first; None where it applies nowhere."""
    columns = [state.values(metric) for state in states]
    ids = [p for p in (prompts or columns[0]) if all(c.get(p, math.nan) is not None for c in columns)]
    if not ids:
        return None
    first = states[0].verdicts
    values = np.array([[c.get(p, math.nan) for c in columns] for p in ids], dtype=np.float64)
    return Layout(tuple(ids), tuple(first[p].cluster if p in first else p for p in ids), values)
