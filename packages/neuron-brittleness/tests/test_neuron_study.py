"""The whole study on the organism at a few steps; the original's files, options and metrics in its output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from alignment_core.config import presets, resolve
from alignment_core.evaluation import results
from alignment_core.testing import check_mapping
from neuron_brittleness import collect, drift, scoring, training
from neuron_brittleness.cli import app
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.matrices import adapted, effective_change
from neuron_brittleness.plan import needs, plan

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
MAPPING = Path(__file__).parents[3] / "studies" / "neuron-brittleness" / "mapping.md"


def _run(folder: Path, *words: str) -> Any:
    done = CliRunner().invoke(app, ["run", "--runs", str(folder), "--quiet", *words, *SMALL])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    _run(runs, "--seeds", "13,14")
    return next((runs / "neuron-brittleness").iterdir())


def _step(run_folder: Path, name: str) -> Path:
    return sorted(run_folder.glob(f"steps/{name}-*"))[0]


def test_the_whole_study_runs_and_results_have_their_shape(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    assert found.seeds == (13, 14)
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
    for arm in training.ARMS:
        measured = json.loads((_step(run_folder, f"finetune_{arm}-s13") / "drift/drift_step_000002.json").read_text())
        for part in ("absolute_change", "relative_change"):
            assert set(measured["metrics"][part]) == set(scoring.GROUPS)
        assert {r["group"] for r in measured["groups"]} == set(scoring.GROUPS)


def test_the_frozen_group_did_not_move_and_the_others_did(run_folder: Path) -> None:
    for arm, held in (("frozen", "set_diff"), ("matched_frozen", "set_diff_matched")):
        measured = json.loads((_step(run_folder, f"finetune_{arm}-s13") / "drift/drift_step_000002.json").read_text())
        change = measured["metrics"]["absolute_change"]
        assert change[held]["max"] == 0
        assert change["top_utility"]["median"] > 0
    free = json.loads((_step(run_folder, "finetune_free-s13") / "drift/drift_step_000002.json").read_text())
    # Upstream: median and upper quartile were exactly 0 in every group.
    assert all(s["median"] > 0 for s in free["metrics"]["absolute_change"].values())


def test_the_saved_frozen_model_is_the_trained_one(run_folder: Path) -> None:
    config = resolve(BrittlenessConfig, "neuron_brittleness", "tiny")
    folder = _step(run_folder, "finetune_frozen-s13")
    group = scoring.read_group(_step(run_folder, "scores"), "a", "set_diff")
    loaded = training.model_of(config, folder)
    for name, module in adapted(loaded.model).items():
        change = effective_change(module).numpy()
        mask = group.mask(name)
        assert (change[mask] == 0).all()
        assert (change[~mask] != 0).mean() > 0.9
    at_end = {n: f.b.clone() for n, f in drift.factors(loaded.model).items()}
    again = training.model_of(config, folder, 2)
    assert all(np.array_equal(f.b, at_end[n]) for n, f in drift.factors(again.model).items())
    facts = json.loads((folder / "freeze.json").read_text())
    assert facts["frozen"] == facts["asked"] == group.size()


def test_drift_is_measured_at_every_asked_step_and_at_the_start(run_folder: Path) -> None:
    # Upstream: "every 100 steps" was not implemented, and a frozen run kept no initial weights.
    for arm in training.ARMS:
        files = sorted(p.name for p in (_step(run_folder, f"finetune_{arm}-s13") / "drift").iterdir())
        assert files == [f"drift_step_{i:06d}.json" for i in range(3)]


def test_arms_are_compared_at_equal_training_loss(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    for subject in ("free_at_equal_loss", "frozen_at_equal_loss"):
        assert found.headline("harmful_refusal_rate", subject) is not None


def test_interventions_stand_at_equal_topic_loss(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    for step in ("answer_base_equal", "answer_tuned_equal-s13", "answer_tuned_equal-s14"):
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


def test_interpolation_at_equal_loss_by_hand(tmp_path: Path) -> None:
    from alignment_core.pipeline.run import Step

    steps = {}
    for arm, losses in (("free", (2.0, 1.0, 0.5)), ("frozen", (2.0, 1.2, 0.8))):
        folder = tmp_path / arm / "drift"
        folder.mkdir(parents=True)
        for i, loss in enumerate(losses):
            (folder / f"drift_step_{10 * i:06d}.json").write_text(json.dumps({"step": 10 * i, "loss": loss}))
        steps[arm] = Step(arm, "0", tmp_path / arm, 13)
    at = training.matched_step(steps["free"], steps["frozen"])
    assert at["level"] == 0.8
    assert at["frozen"] == {"step": 20, "before": 20, "after": 20, "weight": 1.0}
    assert at["free"]["step"] == pytest.approx(14)
    assert (at["free"]["before"], at["free"]["after"]) == (10, 20)
    assert at["free"]["weight"] == pytest.approx(0.4)


def test_the_same_command_again_keeps_every_step(run_folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run_folder.glob("steps/*/step.json")}
    text = (run_folder / "results.json").read_text()
    _run(run_folder.parents[1], "--seeds", "13,14")
    assert {p: p.stat().st_mtime_ns for p in run_folder.glob("steps/*/step.json")} == before
    assert (run_folder / "results.json").read_text() == text


@pytest.mark.slow
def test_the_whole_on_an_nf4_base_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    _run(tmp_path, "model.quantize=nf4")
    (folder,) = (tmp_path / "neuron-brittleness").iterdir()
    frozen = json.loads((_step(folder, "finetune_frozen-s13") / "drift/drift_step_000002.json").read_text())
    assert frozen["metrics"]["absolute_change"]["set_diff"]["max"] == 0
    assert frozen["metrics"]["absolute_change"]["random"]["mean"] > 0
    assert json.loads((_step(folder, "scores") / "step.json").read_text())["identity"]["quantize"] == "nf4"
    # Weights that NF4 holds at exactly zero have no relative change.
    assert frozen["metrics"]["relative_change"]["random"]["undefined"] > 0
    assert results.read(folder / "results.json").headline("harmful_refusal_rate", "zero_set_diff") is not None


def test_the_original_json_holds_the_groups(run_folder: Path) -> None:
    scored = _step(run_folder, "scores")
    for name in scoring.ORIGINAL:
        rows = json.loads((scored / f"a/neuron_groups_{name}.json").read_text())
        group = scoring.read_group(scored, "a", name)
        assert sum(map(len, rows.values())) == group.size()
        first = rows["layer_0_self_attn.q_proj"]
        mask = group.mask("model.layers.0.self_attn.q_proj")
        assert all(mask[r, c] for r, c, _ in first)
        assert len(first) == mask.sum()


def test_no_pickle_is_left_in_a_finished_run(run_folder: Path) -> None:
    assert not [p for p in run_folder.rglob("*") if p.suffix in {".pt", ".pth", ".bin", ".pkl"}]


def test_thresholds_of_the_rule_can_all_be_met() -> None:
    # Upstream: a threshold of .01 on mean changes near 5e-5 could return one verdict only.
    from neuron_brittleness import drift_ratios

    verdicts = set()
    for ratio in (2.0, 1.0, 0.5):
        found = collect.Found("set_diff")
        rows = []
        for layer in range(6):
            for group, size in (("set_diff", ratio * 5e-5), ("set_diff_matched", 5e-5)):
                rows.append({"group": group, "matrix": f"m.{layer}", "layer": layer, "rms": size * (1 + 0.01 * layer)})
        found.drift = {"free": {13: [{"step": 1, "groups": rows}]}}
        verdict = drift_ratios.verdict(found)
        assert verdict is not None
        verdicts.add(verdict.verdict)
    assert verdicts == {"H1", "H2", "H3"}


def test_every_preset_has_a_plan_that_says_its_memory() -> None:
    for preset in presets("neuron_brittleness"):
        config = resolve(BrittlenessConfig, "neuron_brittleness", preset)
        text = plan(config)
        assert "scores" in text
        if preset != "tiny":
            assert "sums" in text
            assert needs(config)[0][0] == "model"
    paper = resolve(BrittlenessConfig, "neuron_brittleness", "paper")
    assert "26.0 GB of 26.0" in plan(paper) or "25.9 GB of 25.9" in plan(paper)
    streamed = resolve(BrittlenessConfig, "neuron_brittleness", "paper", None, ["score.memory_gb=8"])
    assert "streamed in about" in plan(streamed)


def test_doctor_fails_where_the_table_of_behaviours_is_missing(tmp_path: Path) -> None:
    # Upstream: verify_setup.sh looked for a file that does not exist, and always ended with status 0.
    paper = resolve(BrittlenessConfig, "neuron_brittleness", "paper")
    assert ("file", "data.behaviours.path", None) in needs(paper)
    words = ["doctor", f"data.safety_file={tmp_path / 'none.jsonl'}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "data.safety_file" in done.output
    (tmp_path / "none.jsonl").touch()
    assert CliRunner().invoke(app, words).exit_code == 0


def test_every_row_of_the_mapping_holds(run_folder: Path) -> None:
    check_mapping(MAPPING, resolve(BrittlenessConfig, "neuron_brittleness", "tiny"), app, run_folder)
