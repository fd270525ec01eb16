"""Baseline against tuned in three phases: the baseline's replies, the tuned models' replies, the judge.

One model is in memory at a time. Every model answers the same prompts with the same decode seeds. Grades are the
judge's score, and for prompts of the organism's world its rubric; verdicts of the refusal rules show refusals of
harmless prompts beside them. A missing score is missing on its side alone and never the worst score.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignment_core.io import read_jsonl, write_json, write_jsonl
from alignment_core.judging import critics
from alignment_core.judging.judges import judge_all, judges_identity
from alignment_core.models import load
from alignment_core.organism import world
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Completion
from mini_cai import constitution as constitutions
from mini_cai import data
from mini_cai.config import CaiConfig

log = logging.getLogger(__name__)

COMPLETIONS, VERDICTS, GRADES = "completions.jsonl", "verdicts.jsonl", "grades.jsonl"
ONE_GRAMMAR = "not an independent judge: critic, rubric and generator come from one grammar"
SAME_JUDGE = "the judge is the critic that selected the training data: its own taste is part of what it sees"


@dataclass(frozen=True, slots=True)
class Grade:
    """What one reply got: the judge's score, its expected score, and the rubric's."""

    prompt_id: str
    candidate: int
    score: int | None
    expected: float | None
    why: str
    rubric: int | None


def warnings(config: CaiConfig) -> list[str]:
    """What a reader must know of the judge, one line each."""
    out = []
    judge, critic = config.judge, config.critic
    if critics.same_critic(judge, critic):
        out.append(SAME_JUDGE)
    organism = [m.name == "organism" for m in (config.model, config.base)] + [judge.style == "organism"]
    if any(organism) and (judge.style == "organism" or judge.model.name == "organism"):
        out.append(ONE_GRAMMAR)
    if config.baseline != config.base:
        out.append(f"baseline {config.baseline.name} and tuned {config.base.name} differ by more than the fine-tuning")
    return out


def answer(config: CaiConfig, subject: str, adapter: Path | None, seed: int, prompts: Path, folder: Path) -> None:
    """One model's replies to the evaluation prompts; the decode seed is the same for every model of a run's seed."""
    from alignment_core.models.generate import generate

    loaded = load.load(config.baseline if adapter is None else config.base, adapter)
    asked = data.load(prompts, data.EVAL_PROMPTS)
    generate(asked, config.replies, loaded, subject=subject, seed=seed, file=folder / COMPLETIONS)
    del loaded
    load.free()


def identity(config: CaiConfig) -> dict[str, Any]:
    """What names judge, rules and rubric in a step's key."""
    judge = critics.identity(config.judge, constitutions.read(config.constitution))
    return {"judge": judge, "rules": judges_identity("rules"), "world": _world_identity()}


def _world_identity() -> str:
    from alignment_core.organism import weights

    return weights.identity()


def judge(config: CaiConfig, prompts: Path, answered: Path, folder: Path) -> None:
    """Grades and refusal verdicts of one model's replies."""
    replies = list(read_jsonl(answered / COMPLETIONS, Completion.from_json))
    verdicts = judge_all("rules", replies, folder)
    said = critics.criticise(replies, config.judge, constitutions.read(config.constitution), folder)
    asked = {p.id: p for p in data.load(prompts, data.EVAL_PROMPTS)}
    known = data.in_world(list(asked.values()))
    grades = [
        Grade(
            prompt_id=reply.prompt_id,
            candidate=reply.candidate,
            score=one.score,
            expected=one.expected,
            why=one.why if one.score is None else "",
            rubric=world.rubric(asked[reply.prompt_id], reply.text) if known else None,
        )
        for reply, one in zip(replies, said, strict=True)
    ]
    if process_group().is_main:
        write_jsonl(folder / VERDICTS, verdicts)
        write_jsonl(folder / GRADES, [asdict(g) for g in grades])


def read_grades(judged: Path) -> list[Grade]:
    """The grades of a judge step."""
    return list(read_jsonl(judged / GRADES, lambda row: Grade(**row)))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def side(grades: Sequence[Grade], safe: int) -> dict[str, Any]:
    """The original's figures of one model: every reply counts (nothing is selected), missing ones are counted apart.

    `std_dev` is the population's, as the original's. The best-of-n mean stands beside the unselected one.
    """
    scores = [g.score for g in grades if g.score is not None]
    best = [max(s) for s in by_prompt(grades).values() if s]
    return {
        "mean_score": _mean(scores),
        "std_dev": float(np.std(scores)) if scores else None,
        "safe_rate": _mean([float(s >= safe) for s in scores]),
        "num_samples": len(scores),
        "num_missing": len(grades) - len(scores),
        "best_of_n_mean_score": _mean(best),
    }


def by_prompt(grades: Sequence[Grade]) -> dict[str, list[int]]:
    """Scores of each prompt's replies, missing ones left out; prompts in order."""
    out: dict[str, list[int]] = {}
    for g in grades:
        scores = out.setdefault(g.prompt_id, [])
        if g.score is not None:
            scores.append(g.score)
    return out


def _delta(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else b - a


def paired_files(
    config: CaiConfig, replies: Mapping[str, Path], judged: Mapping[str, Path], subject: str, folder: Path
) -> None:
    """The original's three files for one tuned model: paired_results.json, failures.json, report.json."""
    safe = config.compare.safe_threshold
    sides = {"baseline": "baseline", "finetuned": subject}
    grades = {name: read_grades(judged[key]) for name, key in sides.items()}
    texts = {name: list(read_jsonl(replies[key] / COMPLETIONS, Completion.from_json)) for name, key in sides.items()}
    rows: dict[str, dict[str, Any]] = {}
    for name in sides:
        for reply, grade in zip(texts[name], grades[name], strict=True):
            row = rows.setdefault(reply.prompt_id, {"id": reply.prompt_id, "prompt": reply.prompt})
            made = {"output": reply.text, "score": grade.score, "rubric": grade.rubric, "missing": grade.why}
            row.setdefault(name, {"outputs": []})["outputs"].append(made)
    means = {name: {k: _mean(v) for k, v in by_prompt(g).items()} for name, g in grades.items()}
    for ident, row in rows.items():
        for name in sides:
            row[name]["score"] = means[name][ident]
        row["delta"] = _delta(means["baseline"][ident], means["finetuned"][ident])
    deltas = [row["delta"] for row in rows.values() if row["delta"] is not None]
    about = {name: side(g, safe) for name, g in grades.items()}
    generations = config.compare.generate.candidates
    report = {
        **about,
        "delta": {
            "delta_mean": _delta(about["baseline"]["mean_score"], about["finetuned"]["mean_score"]),
            "delta_safe_rate": _delta(about["baseline"]["safe_rate"], about["finetuned"]["safe_rate"]),
            "improved_fraction": _mean([float(d > 0) for d in deltas]),
            "tied_fraction": _mean([float(d == 0) for d in deltas]),
            "worse_fraction": _mean([float(d < 0) for d in deltas]),
        },
        "num_eval_prompts": len(rows),
        "num_compared": len(deltas),
        "num_generations_per_prompt": generations,
        "safe_threshold": safe,
        "warnings": warnings(config),
    }
    write_json(folder / "paired_results.json", list(rows.values()))
    write_json(folder / "failures.json", [r for r in rows.values() if r["delta"] is not None and r["delta"] < 0])
    write_json(folder / "report.json", report)


def nan(value: float | int | None) -> float:
    """A missing number as NaN."""
    return math.nan if value is None else float(value)
