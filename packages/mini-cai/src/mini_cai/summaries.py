"""Figures of the steps before the comparison: the critic's calibration, candidates, what was selected, revisions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import get_args

from alignment_core.evaluation.analysis import Evidence
from alignment_core.evaluation.metrics import Metric
from alignment_core.evaluation.results import Measurement
from alignment_core.io import read_json
from alignment_core.pipeline.step import Step
from alignment_core.stats.intervals import Interval, mean_interval
from mini_cai import calibration, scored
from mini_cai.config import Policy
from mini_cai.scored import by_prompt

METRICS = (
    Metric("gold_exact", "exact", None, "high", about="Gold scores met exactly."),
    Metric("gold_rank", "rank", None, "high", "value", about="Spearman with the gold scores."),
    Metric("gold_pairs", "pairs", None, "high", about="Gold pairs ordered rightly (ties half)."),
    Metric("ways_rank", "two ways", None, "high", "value", about="Spearman of written and expected score."),
    Metric("self_consistency", "repeats agree", None, "high", about="Pairs of sampled critiques with one score."),
    Metric("parse_rate", "parsed", None, "high", about="Written critiques that hold a score."),
    *(
        Metric(f"{family}_{key}", f"{family}: {label}", unit="value" if key == "shift" else "share")
        for family in calibration.FAMILIES
        for key, label in (("shift", "shift"), ("flip_up", "lifted to safe"), ("flip_down", "dropped from safe"))
    ),
    Metric("training_rows", "rows", unit="count", digits=0),
    Metric("training_tokens", "reply tokens", unit="count", digits=0),
    Metric("first_mean_score", "first reply", None, "high", "score"),
    Metric("revised_mean_score", "revision", None, "high", "score"),
)


def measurements(evidence: Evidence) -> Iterator[Measurement]:
    """Every figure of the steps that the study returned."""
    steps = evidence.steps
    for step in steps.get("calibrate", ()):
        for name, interval in calibration.read(step.folder).items():
            yield Measurement.of(name, "critic", interval)
    for generated, criticised in zip(steps.get("generate", ()), steps.get("critique", ()), strict=True):
        yield from _candidates(generated, criticised)
    for policy in get_args(Policy):
        for step in steps.get(f"select_{policy}", ()):
            yield from _selected(policy, step)
    for step in steps.get("revise", ()):
        yield from _revisions(step)


def _candidates(generated: Step, criticised: Step) -> Iterator[Measurement]:
    """The candidates' mean score, all of them and the best of each prompt, and whether both ways of scoring agree."""
    pool, seed = scored.read(generated.folder, criticised.folder), criticised.seed
    scores = [calibration.number(s.critique.score) for s in pool]
    of = mean_interval(scores, [s.reply.cluster for s in pool])
    yield Measurement.of("mean_score", "candidates", of, seed=seed)
    known = ([s.critique.score for s in group if s.critique.score] for group in by_prompt(pool).values())
    best = mean_interval([max(scores) for scores in known if scores])
    yield Measurement.of("best_of_n_mean_score", "candidates", best, seed=seed)
    written = [calibration.number(s.critique.written) for s in pool]
    expected = [calibration.number(s.critique.expected) for s in pool]
    if any(not math.isnan(w) and not math.isnan(e) for w, e in zip(written, expected, strict=True)):
        yield Measurement.of("ways_rank", "candidates", calibration.spearman(written, expected), seed=seed)


def _selected(policy: str, step: Step) -> Iterator[Measurement]:
    """How many rows an arm was trained on, with how many reply tokens."""
    rows = read_json(step / "train_rows.json")
    tokens = sum(row["tokens"] for row in rows)
    for key, value in (("training_rows", len(rows)), ("training_tokens", tokens)):
        plain = Interval(float(value), math.nan, math.nan, len(rows), "count")
        yield Measurement.of(key, policy, plain, seed=step.seed)


def _revisions(step: Step) -> Iterator[Measurement]:
    """Mean scores of the first replies and of their last revisions."""
    rows = scored.revisions(step.folder)
    last = max((row["round"] for row in rows), default=0)
    for key, place in (("first_mean_score", 0), ("revised_mean_score", last)):
        scores = [calibration.number(row["score"]) for row in rows if row["round"] == place]
        yield Measurement.of(key, "revisions", mean_interval(scores), seed=step.seed)
