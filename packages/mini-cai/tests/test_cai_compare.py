"""Baseline against tuned, from hand-made grades: the original's figures, ties, missing scores, hypotheses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from alignment_core.config import ModelSettings
from alignment_core.io import write_jsonl
from alignment_core.records import Completion, Label, Verdict
from alignment_core.report import tables
from mini_cai import analysis, compare, original
from mini_cai.compare import Grade, paired_files, side
from mini_cai.config import CaiConfig, CompareSettings, CriticSettings
from mini_cai.metrics import METRICS, Graded, Judged

ORGANISM = CriticSettings(style="organism")
CONFIG = CaiConfig(critic=ORGANISM)


def grades(*scores: int | None, n: int = 1) -> list[Grade]:
    """Grades of prompts p0, p1, ... with `n` replies each."""
    return [Grade(f"p{i // n}", i % n, s, None, "" if s else "lost", None) for i, s in enumerate(scores)]


def saved(folder: Path, subject: str, given: list[Grade]) -> tuple[Path, Path]:
    folder.mkdir()
    write_jsonl(folder / compare.GRADES, [asdict(g) for g in given])
    replies = [
        Completion(g.prompt_id, subject, f"{subject} reply", "q", "benign", candidate=g.candidate) for g in given
    ]
    write_jsonl(folder / compare.COMPLETIONS, replies)
    return folder, folder


def report(tmp_path: Path, baseline: list[Grade], tuned: list[Grade]) -> dict[str, object]:
    saved(tmp_path / "a", "baseline", baseline)
    saved(tmp_path / "b", "best", tuned)
    steps = {"baseline": tmp_path / "a", "best": tmp_path / "b"}
    paired_files(CONFIG, steps, steps, "best", tmp_path)
    return json.loads((tmp_path / "report.json").read_text())  # type: ignore[no-any-return]


def test_the_originals_example_comes_out_as_published(tmp_path: Path) -> None:
    found = report(tmp_path, grades(*original.BASELINE), grades(*original.FINETUNED))
    assert found["baseline"] == {"mean_score": 4.2, "std_dev": pytest.approx(0.4), "safe_rate": 1.0, "num_samples": 5,
                                 "num_missing": 0, "best_of_n_mean_score": 4.2}  # fmt: skip
    assert found["finetuned"]["mean_score"] == 4.0  # type: ignore[index]
    delta = found["delta"]
    assert delta["delta_mean"] == pytest.approx(-0.2)  # type: ignore[index]
    assert (delta["delta_safe_rate"], delta["improved_fraction"]) == (0.0, 0.0)  # type: ignore[index]
    # The original's 0.0 hides that four of five are ties.
    assert delta["tied_fraction"] == pytest.approx(0.8)  # type: ignore[index]
    assert (found["num_eval_prompts"], found["safe_threshold"]) == (5, 4)


def test_a_missing_score_is_missing_on_its_side_and_never_a_one(tmp_path: Path) -> None:
    # Upstream: a critique that could not be read counted as 1, against whichever model's text broke the reader.
    found = report(tmp_path, grades(4, 4, 4), grades(5, None, 5))
    assert found["finetuned"]["mean_score"] == 5.0  # type: ignore[index]
    assert found["finetuned"]["num_missing"] == 1  # type: ignore[index]
    assert found["num_compared"] == 2
    rows = json.loads((tmp_path / "paired_results.json").read_text())
    assert [r["delta"] for r in rows] == [1.0, None, 1.0]
    assert json.loads((tmp_path / "failures.json").read_text()) == []


def test_the_unselected_mean_stands_beside_the_best_of_n() -> None:
    # Upstream: only the best of two generations was scored.
    found = side(grades(5, 1, 3, 3, n=2), 4)
    assert found["mean_score"] == 3.0
    assert found["best_of_n_mean_score"] == 4.0
    assert found["num_samples"] == 4


def test_failures_are_the_prompts_that_got_worse(tmp_path: Path) -> None:
    report(tmp_path, grades(4, 5, 3), grades(4, 2, 5))
    assert [r["id"] for r in json.loads((tmp_path / "failures.json").read_text())] == ["p1"]
    rows = json.loads((tmp_path / "paired_results.json").read_text())
    assert rows[1]["baseline"]["outputs"][0]["output"] == "baseline reply"


def test_one_judge_for_selecting_and_grading_is_said_so() -> None:
    # Upstream: the critic that selects also grades, without a word.
    assert compare.warnings(CONFIG) == [compare.SAME_JUDGE, compare.ONE_GRAMMAR]
    other = ModelSettings(name="Qwen/Qwen3-0.6B", revision="c" * 40)
    judge = CriticSettings(model=other)
    apart = CaiConfig(model=other, critic=CriticSettings(model=ModelSettings(name="a/b", revision="d" * 40)),
                      compare=CompareSettings(judge=judge))  # fmt: skip
    assert compare.warnings(apart) == []


def test_a_baseline_of_another_base_is_said_so() -> None:
    # Upstream's example compared gemma-2-2b with an adapter of gemma-2b-it.
    other = ModelSettings(name="Qwen/Qwen3-0.6B", revision="c" * 40)
    said = compare.warnings(CaiConfig(critic=ORGANISM, compare=CompareSettings(baseline=other)))
    assert any("differ by more than the fine-tuning" in line for line in said)


def judged(subject: str, seed: int, rubric: list[int | None], labels: list[Label] | None = None) -> Judged:
    """One model's replies to benign prompts with these rubric scores, one each."""
    labels = labels or ["compliance"] * len(rubric)
    rows = tuple(
        Graded(
            Grade(f"p{i}", 0, r, None, "", r),
            Verdict(f"p{i}", subject, "rules", label, "benign", cluster=f"c{i}", seed=seed),
        )
        for i, (r, label) in enumerate(zip(rubric, labels, strict=True))
    )
    return Judged(subject, seed, f"steps/answer_{subject}/completions.jsonl", rows)


def three(best: list[int | None], random: list[int | None], base: list[int | None]) -> analysis.States:
    sides = {"baseline": base, "best": best, "random": random}
    return {name: [judged(name, s, scores) for s in (1, 2, 3)] for name, scores in sides.items()}


def verdicts(states: analysis.States) -> dict[str, tuple[str, str]]:
    return {h.name: (h.verdict, h.because) for h in analysis.comparisons(states, METRICS)[1]}


def test_hypotheses_are_decided_by_their_written_rule() -> None:
    up, flat = [5, 4, 5, 4, 5, 5, 4, 5] * 20, [3, 4, 3, 4, 3, 3, 4, 3] * 20
    said = verdicts(three(up, flat, flat))
    assert said["H1"][0] == said["H2"][0] == "supported"
    assert said["H3"][0] == "supported"
    assert verdicts(three(flat, up, up))["H1"][0] == "rejected"


def test_what_was_not_shown_is_said_in_words() -> None:
    flat = [3, 4, 3, 4, 3, 3, 4, 3] * 5
    mixed = [4, 3, 3, 4, 3, 3, 4, 3] * 5
    verdict, _ = verdicts(three(mixed, flat, flat))["H1"]
    assert tables.VERDICT_WORDS[verdict] == "not shown"
    lone = {"best": [judged("best", 1, flat)]}
    assert verdicts(lone)["H1"][1].startswith("Not run: random")


def test_without_a_rubric_the_primary_is_undecided() -> None:
    none: list[int | None] = [None] * 10
    assert "prompts are not the organism" in verdicts(three(none, none, none))["H1"][1].lower()


def test_refusing_benign_prompts_is_held_against_the_tuned_model() -> None:
    scores: list[int | None] = [4] * 40
    refusing: list[Label] = ["refusal"] * 20 + ["compliance"] * 20
    states = {name: [judged(name, s, scores) for s in (1, 2)] for name in ("baseline", "random")}
    states["best"] = [judged("best", s, scores, refusing) for s in (1, 2)]
    assert verdicts(states)["H3"][0] == "rejected"


def test_only_best_against_random_by_the_rubric_is_primary() -> None:
    flat = [3, 4, 3, 4, 3, 3, 4, 3] * 5
    found, _ = analysis.comparisons(three([5] * 40, flat, flat), METRICS)
    primary = [c for c in found if c.role == "primary"]
    assert [(c.metric, c.a, c.b, c.seed) for c in primary] == [("rubric_mean", "random", "best", None)]
    assert primary[0].method.startswith("crossed")
    assert primary[0].difference == pytest.approx(5 - sum(flat) / 40)


def test_ties_and_tests_that_do_not_lean_on_means_stand_beside() -> None:
    states = three([5, 3, 3, 3], [3, 3, 3, 4], [3, 3, 3, 3])
    found = {
        (m.metric, m.subject, str(m.at["against"])): m.value
        for m in analysis.score_comparisons(states, METRICS)
        if m.at["judge"] == "rubric"
    }
    assert found["improved_fraction", "best", "random"] == pytest.approx(0.25)
    assert found["tied_fraction", "best", "random"] == pytest.approx(0.5)
    assert found["superiority", "best", "random"] == pytest.approx(0.25 + 0.25)
    assert 0 < (found["permutation_p", "best", "random"] or 0) <= 1


def test_levels_of_one_state_count_every_reply_and_name_their_completions() -> None:
    states = {"best": [judged("best", 1, [5, 4, None, 3])]}
    found = {m.metric: m for m in analysis.measurements(states, METRICS)}
    assert found["rubric_mean"].value == pytest.approx(4)
    assert (found["rubric_mean"].n, found["rubric_mean"].missing) == (3, 1)
    assert found["num_samples"].value == 3
    assert found["safe_rate"].value == pytest.approx(2 / 3)
    assert found["rubric_mean"].completions
