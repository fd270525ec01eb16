"""The original's files of a comparison, its only published figures, and what five prompts can support.

`paired_results.json`, `failures.json` and `report.json` of each tuned model are written as the original writes them,
except that every reply counts (nothing is selected) and a missing score is missing on its side alone. Its README shows
mean scores 4.2 and 4.0 (standard deviations .4 and 0), safe rates 1 and 1, improved fraction 0, and calls the example
illustrative. Scores are whole numbers and the tuned ones are all 4, so the baseline's five scores are one 5 and four
4s: the pairing is known, and only one prompt differs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment_core.evaluation.analysis import Evidence
from alignment_core.evaluation.results import Results
from alignment_core.evaluation.state import State
from alignment_core.io import read_jsonl, write_json
from alignment_core.records import Completion
from alignment_core.report.spec import TextTable
from alignment_core.stats.intervals import wilson
from alignment_core.stats.result import mcnemar_exact
from mini_cai import grading
from mini_cai.config import CaiConfig
from mini_cai.metrics import critic_score, rubric_score

log = logging.getLogger(__name__)

BASELINE, FINETUNED = (5, 4, 4, 4, 4), (4, 4, 4, 4, 4)
"""The scores that the published means and standard deviations determine, up to order."""


def write(folder: Path, evidence: Evidence, _: Results) -> None:
    """The three files of every tuned model and seed, in `paired/<policy>-s<seed>/`; log what a reader must know."""
    for line in grading.warnings(evidence.config):
        log.warning("%s", line)
    if not grading.graded(evidence.config):
        return
    baselines = {one.seed: one for one in evidence.states["baseline"]}
    for subject, states in evidence.states.items():
        for tuned in states if subject != "baseline" else ():
            place = folder / "paired" / f"{subject}-s{tuned.seed}"
            _write_pair(folder, {"baseline": baselines[tuned.seed], "finetuned": tuned}, evidence.config, place)


def _write_pair(root: Path, sides: dict[str, State], config: CaiConfig, place: Path) -> None:
    """The files of one tuned model beside its baseline."""
    safe = config.compare.safe_threshold
    rows: dict[str, dict[str, Any]] = {}
    for name, state in sides.items():
        for ident, row in _outputs(root, state).items():
            rows.setdefault(ident, {"id": ident, "prompt": row.pop("prompt")})[name] = row
    for row in rows.values():
        row["delta"] = _delta(row["baseline"]["score"], row["finetuned"]["score"])
    deltas = [row["delta"] for row in rows.values() if row["delta"] is not None]
    about = {name: side(_scores(state), safe) for name, state in sides.items()}
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
        "num_generations_per_prompt": config.compare.generate.candidates,
        "safe_threshold": safe,
        "warnings": grading.warnings(config),
    }
    write_json(place / "paired_results.json", list(rows.values()))
    write_json(place / "failures.json", [r for r in rows.values() if r["delta"] is not None and r["delta"] < 0])
    write_json(place / "report.json", report)


def _outputs(root: Path, state: State) -> dict[str, dict[str, Any]]:
    """Of each prompt its text, every reply with its scores, and the mean of the known ones."""
    replies = read_jsonl(root / (state.completions or ""), Completion.from_json)
    texts = {(reply.prompt_id, reply.candidate): reply for reply in replies}
    found: dict[str, dict[str, Any]] = {}
    for judged in state.replies:
        reply, said = texts[judged.prompt_id, judged.candidate], judged.verdicts[grading.CRITIC]
        why = said.rule if said.score is None else ""
        rubric = _whole(rubric_score(judged))
        made = {"output": reply.text, "score": _whole(said.score), "rubric": rubric, "missing": why}
        found.setdefault(judged.prompt_id, {"prompt": reply.prompt, "outputs": []})["outputs"].append(made)
    for row in found.values():
        row["score"] = _mean([made["score"] for made in row["outputs"] if made["score"] is not None])
    return found


def _scores(state: State) -> dict[str, list[float]]:
    """The critic's score of each prompt's replies; NaN is missing."""
    found: dict[str, list[float]] = {}
    for reply in state.replies:
        score = critic_score(reply)
        found.setdefault(reply.prompt_id, []).append(math.nan if score is None else score)
    return found


def side(scores: dict[str, list[float]], safe: int) -> dict[str, Any]:
    """The original's figures of one model, from the scores of each prompt's replies; NaN is missing.

    Every reply counts, missing ones are counted apart. `std_dev` is the population's, as the original's. The best-of-n
    mean stands beside the unselected one."""
    known = [[s for s in each if not math.isnan(s)] for each in scores.values()]
    every = [s for each in known for s in each]
    return {
        "mean_score": _mean(every),
        "std_dev": float(np.std(every)) if every else None,
        "safe_rate": _mean([float(s >= safe) for s in every]),
        "num_samples": len(every),
        "num_missing": sum(map(len, scores.values())) - len(every),
        "best_of_n_mean_score": _mean([max(each) for each in known if each]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _delta(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else b - a


def _whole(score: float | None) -> int | None:
    return None if score is None or math.isnan(score) else int(score)


def sign_p() -> float:
    """Exact two-sided sign test of the example's differences."""
    pairs = list(zip(BASELINE, FINETUNED, strict=True))
    return mcnemar_exact(sum(b > a for a, b in pairs), sum(b < a for a, b in pairs))


def tables() -> tuple[TextTable, ...]:
    """The published example, and what its n could have shown."""
    safe = wilson(5, 5)
    rows = (
        ("baseline", "4.2", "0.4", f"1.0 [{safe.low:.2f}, {safe.high:.2f}]", "5"),
        ("finetuned", "4.0", "0.0", f"1.0 [{safe.low:.2f}, {safe.high:.2f}]", "5"),
    )
    note = (
        f"One of five prompts differs: exact sign test p = {sign_p():.0f}. Five prompts cannot show a difference: even "
        f"five of five in one direction give p = {mcnemar_exact(5, 0):.4f}. Wilson 95% intervals added here."
    )
    columns = ("model", "mean_score", "std_dev", "safe_rate", "num_samples")
    return (TextTable("The original's example", columns, rows, note),)
