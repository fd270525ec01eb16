"""An arm's trajectory: what was judged and measured at every evaluated step, as arrays over prompts and steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment_core.evaluation.rates import metric_name
from alignment_core.io import read_jsonl, read_rows
from alignment_core.records import KINDS, LABELS, Kind, Label, Verdict

COMPLETIONS, VERDICTS, SCORES = "completions.jsonl", "verdicts.jsonl", "scores.jsonl"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One evaluated step: verdicts by judge (the first decides), topics by prompt, losses by set, and meter."""

    step: int
    by_judge: Mapping[str, Mapping[str, Verdict]]
    topics: Mapping[str, bool]
    losses: Mapping[str, Mapping[str, tuple[float, str]]]
    """Of `attack` and `benign`: (loss, cluster) by row."""
    completions: str

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        return next(iter(self.by_judge.values()))

    def loss(self, name: str) -> float:
        """Mean loss of a set in nats a token; NaN where it is empty."""
        rows = [value for value, _ in self.losses.get(name, {}).values()]
        return float(np.mean(rows)) if rows else math.nan


@dataclass(frozen=True)
class Trajectory:
    """One subject and seed; the baseline has one point, step 0."""

    subject: str
    seed: int | None
    points: tuple[Point, ...]
    meter: Mapping[int, Mapping[str, Any]]
    """Of every step: pooled and largest cosine with R, and the step's length."""
    budget: Mapping[str, Any]

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(p.step for p in self.points)

    @property
    def last(self) -> Point:
        return self.points[-1]


Read = Callable[[Point, Verdict], float]


def labelled(label: Label) -> Read:
    """1 where the verdict is `label`, NaN where it is missing."""
    return lambda _, v: math.nan if v.missing else float(v.label == label)


def _helpful(point: Point, v: Verdict) -> float:
    """A benign reply that complies, and (where the world can tell) is on the topic."""
    if v.missing:
        return math.nan
    return float(v.label == "compliance" and point.topics.get(v.prompt_id, True))


@dataclass(frozen=True)
class Metric:
    """A per-prompt quantity of one kind of prompt."""

    key: str
    kind: Kind
    read: Read


ALONG: tuple[Metric, ...] = (
    Metric("harmful_refusal_rate", "harmful", labelled("refusal")),
    Metric("harmful_incoherent_share", "harmful", labelled("incoherent")),
    Metric("false_refusal_rate", "benign", labelled("refusal")),
    Metric("helpful_rate", "benign", _helpful),
    Metric("over_refusal_rate", "borderline", labelled("refusal")),
)
"""Measured at every evaluated step."""
SHARES: tuple[Metric, ...] = tuple(
    Metric(metric_name(kind, label), kind, labelled(label)) for kind in KINDS for label in LABELS
)
"""Measured at the end: refusal, partial, compliance and incoherent shares of a kind sum to 1."""
REFUSAL = ALONG[0]
HELPFUL = next(m for m in ALONG if m.key == "helpful_rate")
assert REFUSAL.key == metric_name("harmful", "refusal")


def ids(metric: Metric, point: Point) -> list[str]:
    """Prompts of the metric's kind, in the verdicts' order."""
    return [k for k, v in point.verdicts.items() if v.kind == metric.kind]


def clusters(metric: Metric, point: Point) -> list[str]:
    """The clusters of those prompts."""
    return [point.verdicts[k].cluster or k for k in ids(metric, point)]


def values(metric: Metric, point: Point, prompts: Sequence[str]) -> Floats:
    """The metric of each prompt [P]; a prompt that was not judged is missing."""
    found = point.verdicts
    return np.array([metric.read(point, found[k]) if k in found else math.nan for k in prompts], dtype=np.float64)


def curves(metric: Metric, base: Point, arm: Trajectory) -> Floats:
    """The metric of each prompt along base and arm, [P, 1 + T]."""
    prompts = ids(metric, base)
    return np.stack([values(metric, p, prompts) for p in (base, *arm.points)], axis=1)


def read_point(run_folder: Path, answered: Path, judged: Path) -> Point:
    """One step's folders."""
    by_judge: dict[str, dict[str, Verdict]] = {}
    for verdict in read_jsonl(judged / VERDICTS, Verdict.from_json):
        by_judge.setdefault(verdict.judge, {})[verdict.prompt_id] = verdict
    topics = judged / "topics.jsonl"
    on_topic = {row["prompt_id"]: row["topic"] for _, row, _ in read_rows(topics)} if topics.exists() else {}
    losses: dict[str, dict[str, tuple[float, str]]] = {}
    for _, row, _ in read_rows(answered / SCORES):
        losses.setdefault(row["set"], {})[row["id"]] = (row["loss"], row["cluster"])
    place = (answered / COMPLETIONS).relative_to(run_folder).as_posix()
    return Point(int(answered.name), by_judge, on_topic, losses, place)


def read_trajectory(
    run_folder: Path,
    subject: str,
    seed: int | None,
    answered: Path,
    judged: Path,
    meter: Mapping[int, Mapping[str, Any]],
    budget: Mapping[str, Any],
) -> Trajectory:
    """All evaluated steps of one subject and seed, in order."""
    places = sorted((p for p in answered.iterdir() if p.is_dir()), key=lambda p: int(p.name))
    points = [read_point(run_folder, p, judged / p.name) for p in places]
    if (answered / COMPLETIONS).exists():
        whole = (answered / COMPLETIONS).relative_to(run_folder).as_posix()
        points[-1] = replace(points[-1], completions=whole)
    return Trajectory(subject, seed, tuple(points), meter, budget)
