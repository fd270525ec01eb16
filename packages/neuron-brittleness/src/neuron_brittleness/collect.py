"""What a run's finished steps hold, read back from their files: replies judged, drift measured, overlaps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment_core.io import read_json, read_jsonl, read_rows
from alignment_core.pipeline.run import Run, Step
from alignment_core.records import Verdict
from neuron_brittleness.config import BrittlenessConfig

Values = dict[str, float]
"""By prompt id; NaN is missing."""


@dataclass(frozen=True)
class Judged:
    """One subject of one seed."""

    subject: str
    seed: int | None
    completions: str
    verdicts: Mapping[str, tuple[Verdict, ...]]
    """By judge; the first judge decides."""
    losses: Values
    """Loss of each benign prompt's reference reply, nats a token."""
    topics: Mapping[str, bool]

    @property
    def deciding(self) -> tuple[Verdict, ...]:
        return next(iter(self.verdicts.values()))

    def refusals(self, kind: str) -> Values:
        """1 where the deciding judge saw a refusal."""
        return {
            v.prompt_id: math.nan if v.missing else float(v.label == "refusal") for v in self.deciding if v.kind == kind
        }

    def helpful(self) -> Values:
        """1 where a benign prompt was complied with, on its topic; empty where topics are not known."""
        return {
            v.prompt_id: math.nan if v.missing else float(v.label == "compliance" and self.topics[v.prompt_id])
            for v in self.deciding
            if v.kind == "benign" and v.prompt_id in self.topics
        }

    @property
    def clusters(self) -> dict[str, str]:
        return {v.prompt_id: v.cluster or v.prompt_id for v in self.deciding}


@dataclass
class Found:
    """Everything the results are made of. Seeds in rising order."""

    group: str
    judged: dict[str, list[Judged]] = field(default_factory=dict)
    drift: dict[str, dict[int, list[dict[str, Any]]]] = field(default_factory=dict)
    """By arm and seed, the measurements in the order of their steps."""
    overlap: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    """By arm and seed: `aggregated`, and per group `layerwise_<group>`."""
    matched: dict[int, dict[str, Any]] = field(default_factory=dict)
    freezes: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    """The base's `summary.json` of half a."""


def collect(run: Run, config: BrittlenessConfig) -> Found:
    """Read every finished step of this run."""
    # The rooms that trained import torch, which the report of a finished run does without.
    from neuron_brittleness import takeover, training
    from neuron_brittleness.probe import measured

    found = Found(config.freeze.group)
    steps = sorted(run.steps.values(), key=lambda s: (s.name, s.seed if s.seed is not None else -1))
    named = {(s.name, s.seed): s for s in steps}
    for step in steps:
        kind, _, rest = step.name.partition("_")
        if kind == "judge":
            _judged(run.folder, named[f"answer_{rest}", step.seed], step, found)
        elif kind == "scores":
            found.scores = read_json(step / "a/summary.json")
        elif step.seed is None:
            continue
        elif kind == "finetune":
            found.drift.setdefault(rest, {})[step.seed] = measured(step.folder)
            if (step / "freeze.json").exists():
                found.freezes.setdefault(rest, {})[step.seed] = read_json(step / "freeze.json")
        elif kind == "overlap":
            parts = {g: read_json(step / f"layerwise_{g}.json") for g in takeover.COMPARED}
            whole = {"aggregated": read_json(step / "aggregated_results.json"), **parts}
            found.overlap.setdefault(rest, {})[step.seed] = whole
    for seed in found.drift.get("free", {}):
        arms = (named["finetune_free", seed], named["finetune_frozen", seed])
        found.matched[seed] = training.matched_step(*arms)
    return found


def _judged(run_folder: Path, answered: Step, judged: Step, found: Found) -> None:
    for subject in read_json(answered / "subjects.json"):
        by_judge: dict[str, list[Verdict]] = {}
        for verdict in read_jsonl(judged / subject / "verdicts.jsonl", Verdict.from_json):
            by_judge.setdefault(verdict.judge, []).append(verdict)
        losses = {r["prompt_id"]: float(r["loss"]) for _, r, _ in read_rows(answered / f"losses_{subject}.jsonl")}
        topics = judged / subject / "topics.jsonl"
        known = {r["prompt_id"]: bool(r["topic"]) for _, r, _ in read_rows(topics)} if topics.exists() else {}
        place = (answered / f"{subject}.jsonl").relative_to(run_folder).as_posix()
        verdicts = {name: tuple(given) for name, given in by_judge.items()}
        found.judged.setdefault(subject, []).append(Judged(subject, judged.seed, place, verdicts, losses, known))
