"""The whole study on the organism at a few steps; the original's files, options and metrics in its output."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from alignment_core.config import presets, resolve
from alignment_core.evaluation import results, state
from alignment_core.evaluation.answer import reference_losses
from alignment_core.pipeline.step import Step
from alignment_core.testing import check_mapping
from alignment_core.testing.runs import run_folders, seeds_given
from neuron_brittleness import (
    ablation,
    conditions,
    data,
    drift,
    group_files,
    groups,
    interventions,
    losses,
    matching,
    scores,
    scoring_memory,
    training,
)
from neuron_brittleness import rows as built
from neuron_brittleness.arms import ARMS, GROUPS, ORIGINAL
from neuron_brittleness.cli import app
from neuron_brittleness.conditions import Made
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.halves import score_half
from neuron_brittleness.interventions import Answering
from neuron_brittleness.matrices import adapted, effective_change, matrices
from neuron_brittleness.measured import matched_step, measurements
from neuron_brittleness.study import study
from neuron_brittleness.tuned import model_of

SMALL = (
    "data.samples=6",
    "data.tune_size=32",
    "data.test_harmful=6",
    "data.test_benign=6",
    "data.eval_split=calibration",
    "train.max_steps=2",
    "train.lr=1e-3",
    "drift_every=1",
    "loss_examples=4",
    "draws=100",
    "doses=[0.5, 1.0]",
    "generate.max_new_tokens=12",
)
SEED = 14
"""The training seed: not the split's."""
MAPPING = Path(__file__).parents[3] / "studies" / "neuron-brittleness" / "mapping.md"


def _run(folder: Path, *words: str) -> Any:
    done = CliRunner().invoke(app, ["run", "--runs", str(folder), "--quiet", *words, *SMALL])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    _run(runs, "--seeds", str(SEED))
    return run_folders(runs / "neuron-brittleness")[0]


def _step(run_folder: Path, name: str) -> Path:
    return sorted(run_folder.parent.glob(f"steps/{name}-*"))[0]


def test_the_whole_study_runs_and_results_have_their_shape(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    assert found.seeds == (14,)
    assert {"baseline", "free", "frozen", "matched_frozen", "free_at_equal_loss", "zero_set_diff"} <= set(
        found.subjects
    )
    assert {h.name for h in found.hypotheses} == {"H1", "H2", "H3", "E1", "C1", "T1"}
    assert {c.role for c in found.comparisons} == {"primary", "control", "exploratory"}
    assert (run_folder / "report.html").is_file()
    drawn = {p.stem for p in (run_folder / "figures").glob("*.svg")}
    assert {"drift_over_time", "drift_distributions", "overlap_by_layer_set_diff", "training_loss"} <= drawn


def test_every_group_is_measured_in_every_arm(run_folder: Path) -> None:
    # Upstream: the reader's file names differed from the writer's, and groups fell out without a word.
    for arm in ARMS:
        measured = json.loads((_step(run_folder, f"finetune_{arm}-s14") / "drift/drift_step_000002.json").read_text())
        for part in ("absolute_change", "relative_change"):
            assert set(measured["metrics"][part]) == set(GROUPS)
        assert {r["group"] for r in measured["groups"]} == set(GROUPS)


def test_the_frozen_group_did_not_move_and_the_others_did(run_folder: Path) -> None:
    for arm, held in (("frozen", "set_diff"), ("matched_frozen", "set_diff_matched")):
        measured = json.loads((_step(run_folder, f"finetune_{arm}-s14") / "drift/drift_step_000002.json").read_text())
        change = measured["metrics"]["absolute_change"]
        assert change[held]["max"] == 0
        assert change["top_utility"]["median"] > 0
    free = json.loads((_step(run_folder, "finetune_free-s14") / "drift/drift_step_000002.json").read_text())
    # Upstream: median and upper quartile were exactly 0 in every group.
    assert all(s["median"] > 0 for s in free["metrics"]["absolute_change"].values())


def test_the_saved_frozen_model_is_the_trained_one(run_folder: Path) -> None:
    config = resolve(BrittlenessConfig, "neuron_brittleness", "tiny")
    folder = _step(run_folder, "finetune_frozen-s14")
    group = group_files.read_group(_step(run_folder, "scores"), "a", "set_diff")
    loaded = model_of(config, folder)
    for name, module in adapted(loaded.model).items():
        change = effective_change(module).numpy()
        mask = group.mask(name)
        assert (change[mask] == 0).all()
        assert (change[~mask] != 0).mean() > 0.9
    at_end = {n: f.b.clone() for n, f in drift.factors(loaded.model).items()}
    again = model_of(config, folder, 2)
    assert all(np.array_equal(f.b, at_end[n]) for n, f in drift.factors(again.model).items())
    assert not any(f.b.any() for f in drift.factors(model_of(config, folder, 0).model).values())
    facts = json.loads((folder / "freeze.json").read_text())
    assert facts["frozen"] == facts["asked"] == group.size()


def test_drift_is_measured_at_every_asked_step_and_at_the_start(run_folder: Path) -> None:
    # Upstream: "every 100 steps" was not implemented, and a frozen run kept no initial weights.
    for arm in ARMS:
        files = sorted(p.name for p in (_step(run_folder, f"finetune_{arm}-s14") / "drift").iterdir())
        assert files == [f"drift_step_{i:06d}.json" for i in range(3)]


def test_arms_are_compared_at_equal_training_loss(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    for subject in ("free_at_equal_loss", "frozen_at_equal_loss"):
        assert found.headline("harmful_refusal_rate", subject) is not None


def test_interventions_stand_at_equal_topic_loss(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    for step in ("answer_base_equal", "answer_tuned_equal-s14"):
        for fact in json.loads((_step(run_folder, step) / "levels.json").read_text()):
            sides = [side["loss"] for side in fact["sides"]]
            if not sides:  # the two sides move the loss in opposite ways
                start, (a, b) = fact["start"], fact["whole"]
                assert (a - start) * (b - start) <= 0
                continue
            assert sides[0] == pytest.approx(sides[1], rel=0.02)
            assert max(side["share"] for side in fact["sides"]) == 1
    assert {"zero_set_diff_equal_cost", "zero_set_diff_matched_equal_cost"} <= set(found.subjects)
    for metric in ("drift_ratio_at_equal_loss", "drift_frozen_over_free_at_equal_loss"):
        assert metric in found.metrics


def test_every_reply_of_every_state_is_found_with_its_verdict(run_folder: Path) -> None:
    # No reply was found with its verdict where a step holds several states: each was shown as missing.
    config = resolve(BrittlenessConfig, "neuron_brittleness", "tiny", None, list(SMALL))
    asked = [(c.subject, None) for c in conditions.base_conditions(config)]
    asked += [(c.subject, SEED) for c in conditions.tuned_conditions(config)]
    index = state.read_index(run_folder)
    assert {(one.subject, one.seed) for one in index if not one.subject.endswith("_equal_cost")} == set(asked)
    completions, verdicts = state.judged_texts(index)
    assert len(completions) == len(verdicts) == 12 * len(index)
    assert not any(v.missing for v in verdicts)
    assert [(c.prompt_id, c.subject) for c in completions] == [(v.prompt_id, v.subject) for v in verdicts]
    for one in index:
        loaded = state.load(one, run_folder)
        assert len(loaded.losses["reference"]) == 6
        assert all("topic" in reply.scores for reply in loaded.replies)
    found = results.read(run_folder / "results.json")
    assert all((run_folder / m.completions).is_file() for m in found.measurements if m.completions)


def test_every_step_reads_what_the_method_says(run_folder: Path) -> None:
    reads = {
        p.parent.name.split("-")[0]: sorted(name.split("-")[0] for name in json.loads(p.read_text())["reads"])
        for p in [
            *run_folder.parent.glob("steps/*-s14-*/step.json"),
            *run_folder.parent.glob("steps/answer_base*/step.json"),
        ]
    }
    trained = [f"finetune_{arm}" for arm in ARMS]
    for arm in ARMS:
        assert reads[f"finetune_{arm}"] == ["data", "scores"]
        assert reads[f"rescore_{arm}"] == ["data", f"finetune_{arm}"]
        assert reads[f"overlap_{arm}"] == [f"rescore_{arm}", "scores"]
    assert reads["answer_base"] == ["data", "scores"]
    assert reads["answer_base_equal"] == ["answer_base", "data", "scores"]
    assert reads["answer_tuned"] == sorted(["data", "scores", *trained, "rescore_frozen"])
    assert reads["answer_tuned_equal"] == sorted([*reads["answer_tuned"], "answer_tuned"])


def _made(run_folder: Path) -> Made:
    def step(name: str, seed: int | None = SEED) -> Step:
        return Step(name, "0", _step(run_folder, name if seed is None else f"{name}-s{seed}"), seed)

    arms = {arm: step(f"finetune_{arm}") for arm in ARMS}
    return Made(step("data", None), step("scores", None), arms, step("rescore_frozen"))


def test_the_new_set_is_what_the_frozen_arm_has_beyond_the_base(run_folder: Path) -> None:
    made = _made(run_folder)
    assert made.rescored is not None
    found = interventions.new_groups(made.scored.folder, made.rescored.folder, "set_diff", 13)
    old = group_files.read_group(made.scored.folder, "a", "set_diff")
    tuned = group_files.read_group(made.rescored.folder, "b", "set_diff")
    new, match = found["new"], found["new_matched"]
    assert new.size() > 0
    assert new.both(old, "x").size() == 0
    assert new.union(tuned.both(old, "x"), "x").digest() == tuned.digest()
    for matrix in new.bits:
        assert match.size(matrix) == new.size(matrix)
    assert match.both(new, "x").size() == 0


def test_an_arm_is_trained_from_the_runs_own_seed(run_folder: Path, tmp_path: Path) -> None:
    made, config = _made(run_folder), resolve(BrittlenessConfig, "neuron_brittleness", "tiny", None, list(SMALL))
    training.fine_tune(config, "free", SEED, made.split.folder, made.scored.folder, tmp_path)
    here, there = (drift.factors(model_of(config, f).model) for f in (tmp_path, made.arms["free"].folder))
    assert all(np.array_equal(f.a, there[name].a) and np.array_equal(f.b, there[name].b) for name, f in here.items())


def _halves(made: Made, half: str) -> tuple[Any, Any]:
    safety, utility = (built.examples(made.split.folder, f"{kind}_{half}") for kind in ("safety", "utility"))
    return safety, utility


def test_a_tuned_model_itself_is_scored_again(run_folder: Path, tmp_path: Path) -> None:
    made, config = _made(run_folder), resolve(BrittlenessConfig, "neuron_brittleness", "tiny", None, list(SMALL))
    assert made.rescored is not None
    tuned = model_of(config, made.arms["frozen"].folder)
    again = score_half(config, tuned, *_halves(made, "b"), tmp_path, controls=False)
    for name, group in again.items():
        found = group_files.read_group(made.rescored.folder, "b", name)
        assert found.digest() == group.digest()
        assert found.digest() != group_files.read_group(made.scored.folder, "b", name).digest(), "the base's"


def test_groups_hold_the_weights_that_safety_and_utility_rank_highest(run_folder: Path, tmp_path: Path) -> None:
    settings = ["score.k=0.02", "score.p=0.3", "score.q=0.05"]
    config = resolve(BrittlenessConfig, "neuron_brittleness", "tiny", None, [*SMALL, *settings])
    loaded, halves = model_of(config, None), _halves(_made(run_folder), "a")
    made = score_half(config, loaded, *halves, tmp_path)
    rows = [losses.rows(loaded.tokenizer, examples, config.score.max_length) for examples in halves]
    safety, utility = (scores.score(loaded.model, matrices(loaded.model), part, ("snip",)) for part in rows)
    cells = group_files.read_cells(tmp_path, "")
    for (matrix, one), (_, other) in zip(safety, utility, strict=True):
        name, safe, useful = matrix.name, one["snip"], other["snip"]
        assert np.array_equal(made["top_safety"].mask(name), groups.select(safe, 0.02))
        assert np.array_equal(made["top_utility"].mask(name), groups.select(useful, 0.02))
        held = made["set_diff"].mask(name)
        assert np.array_equal(held, groups.select(safe, 0.05) & ~groups.select(useful, 0.3))
        match = matching.matched(held, cells[name], name, config.data.split_seed)[0]
        assert np.array_equal(made["set_diff_matched"].mask(name), match)


@pytest.mark.parametrize(
    ("subject", "arm", "act", "group"),
    [
        ("zero_set_diff", None, ablation.zeroed, "set_diff"),
        ("zero_set_diff_matched_50", None, ablation.zeroed, "set_diff_matched"),
        ("zero_new", None, ablation.zeroed, "new"),
        ("frozen_zero_new_matched", "frozen", ablation.zeroed, "new_matched"),
        ("free_undo_set_diff", "free", ablation.rewound, "set_diff"),
        ("free_keep_set_diff_matched", "free", ablation.only, "set_diff_matched"),
    ],
)
def test_each_condition_is_its_model_with_its_intervention(
    run_folder: Path, subject: str, arm: str | None, act: Any, group: str
) -> None:
    made, config = _made(run_folder), resolve(BrittlenessConfig, "neuron_brittleness", "tiny")
    assert made.rescored is not None
    new = interventions.new_groups(made.scored.folder, made.rescored.folder, "set_diff", 13)
    part = new[group] if group in new else group_files.read_group(made.scored.folder, "a", group)
    if subject.endswith("_50"):
        part = part.part(0.5, config.data.split_seed, subject)
    loaded = model_of(config, made.arms[arm].folder if arm else None)
    with act(loaded.model, part):
        expected = reference_losses(loaded, built.prompts(made.split.folder), 100)
    (files,) = [
        one for one in state.read_index(run_folder) if (one.subject, one.seed) in ((subject, SEED), (subject, None))
    ]
    measured = state.load(files, run_folder).losses["reference"]
    assert [measured[row["id"]][0] for row in expected] == pytest.approx([row["loss"] for row in expected], rel=1e-5)


@pytest.mark.parametrize("arm", ["free", "frozen"])
def test_the_model_beside_equal_training_loss_is_that_of_its_measured_step(run_folder: Path, arm: str) -> None:
    made, config = _made(run_folder), resolve(BrittlenessConfig, "neuron_brittleness", "tiny")
    at = matched_step(*(measurements(made.arms[name].folder) for name in ("free", "frozen")))
    work = Answering(config, made, run_folder)
    for side, step in (("before", at[arm].before), ("after", at[arm].after)):
        found = drift.factors(work.load(arm, side).model)  # type: ignore[arg-type]
        there = drift.factors(model_of(config, made.arms[arm].folder, step).model)
        assert all(np.array_equal(f.b, there[name].b) for name, f in found.items())


def test_the_same_command_again_keeps_every_step(run_folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run_folder.parent.glob("steps/*/step.json")}
    text = (run_folder / "results.json").read_text()
    _run(run_folder.parents[1], "--seeds", str(SEED))
    assert {p: p.stat().st_mtime_ns for p in run_folder.parent.glob("steps/*/step.json")} == before
    assert (run_folder / "results.json").read_text() == text


@pytest.mark.slow
def test_another_seed_is_added_to_a_finished_run(run_folder: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(run_folder.parents[1], runs)
    _run(runs, "--seeds", "14,15")
    (folder,) = run_folders(runs / "neuron-brittleness")
    kept = {p.parent.name: p.stat().st_mtime_ns for p in run_folder.parent.glob("steps/*/step.json")}
    now = {p.parent.name for p in folder.parent.glob("steps/*/step.json")}
    assert set(kept) <= now
    assert len(now) == len(kept) + 13, "what is the base's is made once"
    found, alone = (results.read(f / "results.json") for f in (folder, run_folder))
    for one in alone.measurements:
        if one.method != "log ratio, layers":
            assert found.find(one.metric, one.subject, one.seed, one.at, one.estimator) == one
    over = found.comparison("harmful_refusal_rate", "free", "frozen")
    assert over is not None
    assert over.n_seeds == 2
    assert {h.verdict for h in found.hypotheses} <= {"supported", "contradicted", "inconclusive"}


@pytest.mark.slow
def test_the_whole_on_an_nf4_base_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    _run(tmp_path, "model.quantize=nf4", "--seeds", str(SEED))
    (folder,) = run_folders(tmp_path / "neuron-brittleness")
    frozen = json.loads((_step(folder, "finetune_frozen-s14") / "drift/drift_step_000002.json").read_text())
    assert frozen["metrics"]["absolute_change"]["set_diff"]["max"] == 0
    assert frozen["metrics"]["absolute_change"]["random"]["mean"] > 0
    assert json.loads((_step(folder, "scores") / "step.json").read_text())["identity"]["quantize"] == "nf4"
    # Weights that NF4 holds at exactly zero have no relative change.
    assert frozen["metrics"]["relative_change"]["random"]["undefined"] > 0
    assert results.read(folder / "results.json").headline("harmful_refusal_rate", "zero_set_diff") is not None


def test_the_original_json_holds_the_groups(run_folder: Path) -> None:
    scored = _step(run_folder, "scores")
    for name in ORIGINAL:
        rows = json.loads((scored / f"a/neuron_groups_{name}.json").read_text())
        group = group_files.read_group(scored, "a", name)
        assert sum(map(len, rows.values())) == group.size()
        first = rows["layer_0_self_attn.q_proj"]
        mask = group.mask("model.layers.0.self_attn.q_proj")
        assert all(mask[r, c] for r, c, _ in first)
        assert len(first) == mask.sum()


def test_no_pickle_is_left_in_a_finished_run(run_folder: Path) -> None:
    assert not [p for p in run_folder.rglob("*") if p.suffix in {".pt", ".pth", ".bin", ".pkl"}]


@pytest.mark.parametrize("preset", presets("neuron_brittleness"))
def test_dry_run_prints_the_plan_of_every_preset(preset: str, tmp_path: Path) -> None:
    table = tmp_path / "advbench.csv"
    table.write_text("goal,target\n")
    more = [f"data.behaviours.path='{table}'"] if preset == "paper" else []
    done = CliRunner().invoke(app, ["run", "--preset", preset, "--dry-run", "--runs", str(tmp_path / "runs"), *more])
    assert done.exit_code == 0, done.output
    assert "300 held-out prompts" in done.output or "200 held-out prompts" in done.output
    assert "17 conditions" in done.output
    assert not (tmp_path / "runs").exists()
    if preset == "paper":
        for text in ("25.9 GB of 25.9", "gated", "HF_TOKEN", "50,000 examples", "tatsu-lab/alpaca"):
            assert text in done.output
    if preset != "tiny":
        assert "score.memory_gb bounds the sums" in done.output


def test_without_controls_nothing_is_done_to_the_tuned_models(tmp_path: Path) -> None:
    words = ["run", "--dry-run", "--runs", str(tmp_path), "controls=false", "--seeds", "13,14"]
    text = CliRunner().invoke(app, words).output
    assert "7 conditions" in text
    assert "10 conditions" in text
    assert "_equal" not in text
    assert text.count("(seeds 13, 14)") == 11
    assert "seeds" not in text[text.index("  answer_base") : text.index("  judge_base")]


def test_a_plan_of_a_run_that_cannot_start_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "--preset", "paper", "--dry-run", "--runs", str(tmp_path)])
    assert done.exit_code == 2
    assert "data.behaviours.path" in done.output


def test_less_memory_streams_the_scores() -> None:
    paper = resolve(BrittlenessConfig, "neuron_brittleness", "paper", None, ["score.memory_gb=8"])
    assert "sums 8.0 GB of 25.9, streamed in about 4 passes" in scoring_memory.describe(paper)


def test_weights_that_safety_and_utility_rank_alike_are_refused_before_training(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "--runs", str(tmp_path), "--quiet", "score.method=magnitude", *SMALL])
    assert done.exit_code == 2
    assert "the set difference S(q=0.1) \\ U(p=0.1) is empty: magnitude ranks safety and utility alike" in done.output
    assert len([line for line in done.output.splitlines() if line.startswith("error: ")]) == 1
    (folder,) = run_folders(tmp_path / "neuron-brittleness")
    assert sorted(p.name.split("-")[0] for p in (folder.parent / "steps").iterdir() if p.name[0] != ".") == ["data"]


def test_doctor_fails_where_the_table_of_behaviours_is_missing(tmp_path: Path) -> None:
    # Upstream: verify_setup.sh looked for a file that does not exist, and always ended with status 0.
    paper = resolve(BrittlenessConfig, "neuron_brittleness", "paper")
    assert ("file", "data.behaviours.path", None) in data.needs(paper)
    words = ["doctor", f"data.safety_file={tmp_path / 'none.jsonl'}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3
    assert "data.safety_file" in done.output
    (tmp_path / "none.jsonl").touch()
    assert CliRunner().invoke(app, words).exit_code == 0


def test_every_row_of_the_mapping_holds(run_folder: Path) -> None:
    check_mapping(MAPPING, resolve(BrittlenessConfig, "neuron_brittleness", "tiny"), app, run_folder)


def test_every_steps_work_gets_the_training_seed_of_its_step() -> None:
    config = resolve(BrittlenessConfig, "neuron_brittleness", "tiny")
    given = seeds_given(study, config, 14)
    assert len(given) > 5
    # Random sets are drawn by the split's seed, which is no training seed.
    given = {step: seeds for step, seeds in given.items() if not step.startswith("overlap_")}
    assert {step for step, (own, its) in given.items() if own != its} == set()
