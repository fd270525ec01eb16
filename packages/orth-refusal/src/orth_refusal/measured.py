"""Every figure of a run from its judged trajectories: at the attacks' ends, along their steps, and their summaries."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alignment_core.evaluation.rates import rates
from alignment_core.evaluation.results import Measurement
from alignment_core.stats import intervals
from alignment_core.stats.intervals import Interval
from orth_refusal.metrics import ALONG, HELPFUL, REFUSAL, SHARES, Point, Trajectory, clusters, ids, values
from orth_refusal.summaries import REACHED, STEPS, Arms, base_of, columns, places, summaries

FALL = "fall_of_attack_loss"
"""The place of a refusal rate beside the loss: nats that the held-out attack loss has fallen."""


def measurements(arms: Arms) -> Iterator[Measurement]:
    """Every figure: at the attack's end, along its steps, and the summaries; of each seed and over the seeds.

    Of several seeds each keeps along its steps what the primary summary is read from, refusals and attack loss; the
    rest is placed on steps over the seeds alone (the run folder has every reply).
    """
    for each in arms.values():
        for one in each:
            for rank, verdicts in enumerate(one.last.by_judge.values()):
                found = rates(list(verdicts.values()), by_judge=rank > 0, completions=one.last.completions)
                yield from (m.model_copy(update={"seed": one.seed}) for m in found)
            yield from _at_end(one)
            if one.seed is not None and one.budget:
                yield from _along(one, base_of(arms, one.seed), whole=len(each) == 1)
        yield from _over_seeds(arms, each)
        yield from _against_loss(arms, each)
    yield from _summarised(arms)


def _at_end(one: Trajectory) -> Iterator[Measurement]:
    for metric in (HELPFUL,):
        found = values(metric, one.last, ids(metric, one.last))
        if len(found):
            of = intervals.rate(found, clusters(metric, one.last))
            yield Measurement.of(metric.key, one.subject, of, seed=one.seed, completions=one.last.completions)
    for name in ("attack", "benign"):
        if rows := one.last.losses.get(name):
            yield Measurement.of(f"{name}_loss", one.subject, _loss(rows), seed=one.seed)


def _loss(rows: Mapping[str, tuple[float, str]]) -> Interval:
    return intervals.mean_interval([v for v, _ in rows.values()], [c for _, c in rows.values()])


def _along(one: Trajectory, base: Point, whole: bool) -> Iterator[Measurement]:
    for point in (base, *one.points):
        at = {"step": point.step}
        for metric in ALONG if whole else (REFUSAL,):
            found = values(metric, point, ids(metric, point))
            if len(found):
                of = intervals.rate(found, clusters(metric, point))
                yield Measurement.of(metric.key, one.subject, of, seed=one.seed, at=at, completions=point.completions)
        for name, rows in point.losses.items():
            if whole or name == "attack":
                yield Measurement.of(f"{name}_loss", one.subject, _loss(rows), seed=one.seed, at=at)
        if whole:
            row = one.meter.get(point.step, {"pooled": 0.0})
            yield _plain("cosine_to_refusal", one.subject, float(row["pooled"]), one.seed, at)
    yield _plain("largest_cosine", one.subject, _most(one), one.seed, {})


def _most(one: Trajectory) -> float:
    """Largest |cos(ΔW, R)| of any matrix at any step."""
    return max((float(row["most"]) for row in one.meter.values()), default=math.nan)


def _plain(metric: str, subject: str, value: float, seed: int | None, at: Mapping[str, Any]) -> Measurement:
    return Measurement(metric=metric, subject=subject, seed=seed, at=dict(at), value=value, method="read off", n=1)


def _over_seeds(arms: Arms, each: Sequence[Trajectory]) -> Iterator[Measurement]:
    """Means over the seeds, of each evaluated step and of the end."""
    if len(each) < 2:
        return
    subject = each[0].subject
    if each[0].budget:
        yield _plain("largest_cosine", subject, max(map(_most, each)), None, {})
    starts = [base_of(arms, t.seed) for t in each]
    columns = list(zip(*(t.points for t in each), strict=True))
    if each[0].budget:
        columns = [tuple(starts), *columns]
    for number, points in enumerate(columns):
        places = [{"step": points[0].step}] if each[0].budget else []
        if number == len(columns) - 1:
            places.append({})
        for at in places:
            for metric in ALONG if at else (*SHARES, HELPFUL):
                names = ids(metric, starts[0])
                if names:
                    table = np.stack([values(metric, p, names) for p in points], axis=1)
                    of = intervals.over_seeds(table, clusters(metric, starts[0]))
                    yield Measurement.of(metric.key, subject, of, at=at)
            for name in points[0].losses:
                rows = [list(p.losses[name].values()) for p in points]
                table = np.array([[v for v, _ in column] for column in rows]).T
                of = intervals.over_seeds(table, [c for _, c in rows[0]])
                yield Measurement.of(f"{name}_loss", subject, of, at=at)
            if at and each[0].budget:
                found = [float(t.meter.get(points[0].step, {"pooled": 0.0})["pooled"]) for t in each]
                yield Measurement.of("cosine_to_refusal", subject, intervals.mean_interval(found), at=at)


def _against_loss(arms: Arms, each: Sequence[Trajectory]) -> Iterator[Measurement]:
    """Refusals placed on how far the held-out attack loss has fallen, over the seeds at its mean fall."""
    attacks = [t for t in each if t.budget]
    if not attacks:
        return
    starts = [base_of(arms, t.seed) for t in attacks]
    seed, whole = (None, intervals.over_seeds) if len(attacks) > 1 else (attacks[0].seed, intervals.rate)
    for points in (tuple(starts), *zip(*(t.points for t in attacks), strict=True)):
        fall = [s.loss("attack") - p.loss("attack") for s, p in zip(starts, points, strict=True)]
        names = ids(REFUSAL, starts[0])
        table = np.stack([values(REFUSAL, p, names) for p in points], axis=1)
        of, at = whole(table, clusters(REFUSAL, starts[0])), {FALL: round(float(np.mean(fall)), 5)}
        yield Measurement.of(REFUSAL.key, attacks[0].subject, of, seed=seed, at=at)


def _summarised(arms: Arms) -> Iterator[Measurement]:
    where = places(arms)
    for subject, each in summaries(arms).items():
        seeds = [t.seed for t in arms[subject]]
        for metric, groups in where.items():
            if not groups or not each:
                continue
            table = columns(metric, each)
            for column, seed in enumerate(seeds):
                of = intervals.mean_interval(table[:, column], groups)
                yield Measurement.of(metric, subject, of, seed=seed)
            if len(each) > 1:
                yield Measurement.of(metric, subject, intervals.over_seeds(table, groups))
        for metric, found in ((STEPS, [s.step for s in each]), (REACHED, [float(s.reached) for s in each])):
            for seed, value in zip(seeds, found, strict=True):
                yield _plain(metric, subject, value, seed, {})
            if len(each) > 1:
                yield Measurement.of(metric, subject, intervals.mean_interval(found))
