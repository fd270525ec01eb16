"""The whole study on the organism at a few steps a stage; the original's files, options and metrics in its output."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.config import presets, resolve
from alignment_core.evaluation import results
from alignment_core.testing import check_mapping
from alignment_core.testing.runs import run_folders, seeds_given
from drift_dpo.cli import app
from drift_dpo.config import DriftConfig
from drift_dpo.study import study

SMALL = (
    "data.stage_a_size=32",
    "data.stage_b_size=32",
    "data.dpo_limit=40",
    "data.test_harmful=12",
    "data.test_benign=12",
    "data.test_borderline=6",
    "data.eval_split=calibration",
    "stage_a.max_steps=2",
    "stage_b.max_steps=2",
    "dpo.max_steps=2",
    "generate.max_new_tokens=24",
    "generate.batch_size=30",
)
MAPPING = Path(__file__).parents[3] / "studies" / "drift-dpo" / "mapping.md"


def _run(folder: Path, *words: str) -> Any:
    done = CliRunner().invoke(app, ["run", "--runs", str(folder), *words, *SMALL])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    _run(runs, "--controls", "--seeds", "13,14")
    return run_folders(runs / "drift-dpo")[0]


def test_the_whole_study_runs_and_results_have_their_shape(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    assert found.seeds == (13, 14)
    states = {"baseline", "stage_a", "stage_b", "dpo"}
    controls = {"null_stage_a", "pretraining_openings", "b_without_a", "chosen_sft"}
    assert set(found.subjects) == states | controls
    for subject in states:
        measured = found.headline("harmful_refusal_rate", subject)
        assert measured is not None
        assert measured.low is not None
        assert measured.value is not None
        assert measured.low <= measured.value <= (measured.high or 1)
    assert {h.name for h in found.hypotheses} == {"H1", "H2", "H3", "H4"}
    assert (run_folder / "report.md").is_file()


def test_every_number_leads_to_its_completions(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    paths = {m.completions for m in found.measurements if m.completions}
    assert paths
    assert all((run_folder / p).is_file() for p in paths)


def test_no_gold_answer_reaches_the_model(run_folder: Path) -> None:
    # Upstream: user and assistant turns were both put into the evaluation prompt.
    (file,) = run_folder.parent.glob("steps/data-*/eval_prompts.jsonl")
    for line in file.read_text().splitlines():
        row = json.loads(line)
        assert [m["role"] for m in row["messages"]][-1] == "user"
        assert not row["reference"] or row["reference"] not in row["messages"][-1]["content"]


def test_all_states_answer_the_same_prompts(run_folder: Path) -> None:
    asked = {
        tuple(json.loads(line)["prompt_id"] for line in file.read_text().splitlines())
        for file in run_folder.parent.glob("steps/answer_*/completions.jsonl")
    }
    assert len(asked) == 1
    assert len(next(iter(asked))) == 30


def test_the_same_command_again_keeps_every_step(run_folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run_folder.parent.glob("steps/*/step.json")}
    text = (run_folder / "results.json").read_text()
    _run(run_folder.parents[1], "--controls", "--seeds", "13,14")
    assert {p: p.stat().st_mtime_ns for p in run_folder.parent.glob("steps/*/step.json")} == before
    assert (run_folder / "results.json").read_text() == text


def test_no_pickle_is_left_in_a_finished_run(run_folder: Path) -> None:
    assert not [p for p in run_folder.rglob("*") if p.suffix in {".pt", ".pth", ".bin", ".pkl"}]


def test_qlora_runs_all_three_stages_on_the_cpu(tmp_path: Path) -> None:
    _run(tmp_path, "model.quantize=nf4")
    (folder,) = run_folders(tmp_path / "drift-dpo")
    for stage in ("stage_a", "stage_b", "dpo"):
        (report,) = [json.loads(p.read_text()) for p in folder.parent.glob(f"steps/{stage}-*/train_report.json")]
        assert report["steps"] == 2
        assert all(math.isfinite(loss) for _, loss in report["losses"])
    (step,) = [json.loads(p.read_text()) for p in folder.parent.glob("steps/stage_a-*/step.json")]
    assert step["identity"]["quantize"] == "nf4"


def test_every_row_of_the_mapping_holds(run_folder: Path) -> None:
    metrics = json.loads((run_folder / "tiny_eval_metrics.json").read_text())["dpo"][0]
    config = resolve(DriftConfig, "drift_dpo", "tiny")
    check_mapping(MAPPING, config, app, run_folder, {"json": metrics.__contains__})


@pytest.mark.parametrize("preset", presets("drift_dpo"))
def test_dry_run_prints_the_plan_of_every_preset(preset: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "--preset", preset, "--dry-run", "--runs", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "held-out prompts" in done.output
    assert not list(tmp_path.iterdir())


def test_the_paper_plan_says_memory_downloads_and_access(tmp_path: Path) -> None:
    words = ["run", "--preset", "paper", "--dry-run", "--controls", "--runs", str(tmp_path)]
    text = CliRunner().invoke(app, words).output
    for said in (
        "16.1 GB",
        "gated",
        "HF_TOKEN",
        "NF4",
        "GPU memory",
        "9,000 examples",
        "36,000 examples",
        "chosen_sft",
    ):
        assert said in text


def test_a_plan_says_what_is_made_already(run_folder: Path) -> None:
    words = ["run", "--dry-run", "--runs", str(run_folder.parents[1]), "--controls", "--seeds", "13,14,15", *SMALL]
    text = CliRunner().invoke(app, words).output
    assert "stage_a" in text
    assert "2 of 3 kept (seeds 13, 14, 15)" in text


def test_chosen_replies_are_trained_on_for_as_many_steps_as_dpo(run_folder: Path) -> None:
    reports = {
        name: json.loads(next(run_folder.parent.glob(f"steps/{name}-s13-*/train_report.json")).read_text())
        for name in ("dpo", "chosen_sft")
    }
    assert reports["chosen_sft"]["steps"] == reports["dpo"]["steps"]


def test_every_training_starts_where_the_method_says(run_folder: Path) -> None:
    """Which steps each training and each answer read: a changed base, split or reference shows here."""
    reads = {
        p.parent.name.split("-")[0]: sorted(name.split("-")[0] for name in json.loads(p.read_text())["reads"])
        for p in run_folder.parent.glob("steps/*-s13-*/step.json")
    }
    assert reads["stage_a"] == ["data"]
    assert reads["stage_b"] == ["data", "stage_a"]
    assert reads["dpo"] == ["data", "stage_b"]
    assert reads["null_stage_a"] == ["own_replies"]
    assert reads["b_without_a"] == ["data"]
    assert reads["pretraining_openings"] == ["data_pretraining"]
    assert reads["chosen_sft"] == ["data", "dpo", "stage_b"]
    for state in ("stage_a", "stage_b", "dpo", "null_stage_a", "b_without_a", "pretraining_openings", "chosen_sft"):
        assert reads[f"answer_{state}"] == sorted(["data", state])


def _settings(run_folder: Path, step: str) -> dict[str, Any]:
    (found,) = run_folder.parent.glob(f"steps/{step}-*/step.json")
    settings: dict[str, Any] = json.loads(found.read_text())["settings"]
    return settings


def test_the_null_stage_trains_on_replies_drawn_from_the_model_itself(run_folder: Path) -> None:
    how = _settings(run_folder, "own_replies-s13")["generate"]
    assert (how["temperature"], how["top_p"]) == (1.0, 1.0)
    (own,) = run_folder.parent.glob("steps/own_replies-s13-*/own_train.jsonl")
    (replies,) = run_folder.parent.glob("steps/own_replies-s13-*/completions.jsonl")
    trained = [json.loads(line)["messages"][-1]["content"] for line in own.read_text().splitlines()]
    said = [json.loads(line)["text"] for line in replies.read_text().splitlines()]
    assert trained == [text for text in said if text.strip()]


@pytest.mark.parametrize("stage", ["stage_a", "stage_b", "dpo", "null_stage_a", "b_without_a", "chosen_sft"])
def test_every_training_seed_trains_an_adapter_of_its_own(run_folder: Path, stage: str) -> None:
    weights = [
        p.read_bytes() for p in sorted(run_folder.parent.glob(f"steps/{stage}-s*/adapter/adapter_model.safetensors"))
    ]
    assert len(weights) == 2
    assert weights[0] != weights[1]


def test_tuned_states_have_a_seed_and_the_baseline_has_none(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    seeds = {s: {m.seed for m in found.measurements if m.subject == s} for s in found.subjects}
    assert seeds.pop("baseline") == {None}
    assert all(mine == {13, 14, None} for mine in seeds.values())


def test_a_reply_about_what_was_asked_is_on_topic(run_folder: Path) -> None:
    from alignment_core.organism import grading
    from alignment_core.records import Completion
    from drift_dpo import rows

    (asked,) = run_folder.parent.glob("steps/data-*/eval_prompts.jsonl")
    benign = [p for p in rows.prompts(asked.parent) if p.kind == "benign"]
    others = [*benign[1:], benign[0]]
    right = [Completion(p.id, "s", p.reference, p.text, "benign") for p in benign]
    wrong = [Completion(p.id, "s", other.reference, p.text, "benign") for p, other in zip(benign, others, strict=True)]
    assert all(row["topic"] for row in grading.topics(right))
    assert sum(bool(row["topic"]) for row in grading.topics(wrong)) < len(wrong) / 2
    assert grading.topic(benign[0].text, benign[0].reference)


def test_every_steps_work_gets_the_training_seed_of_its_step() -> None:
    config = resolve(DriftConfig, "drift_dpo", "tiny", overrides=["controls=true"])
    given = seeds_given(study, config, 14)
    assert len(given) > 10
    assert {step for step, (own, its) in given.items() if own != its} == set()
