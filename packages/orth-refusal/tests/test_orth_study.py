"""The whole study on the organism at a few steps: every arm, equal budgets, the original's files, resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from alignment_core.config import presets, resolve
from alignment_core.evaluation import results
from alignment_core.evaluation.state import judged_texts, read_index
from alignment_core.io import read_json, write_json
from alignment_core.models.adapter import adapter_identity
from alignment_core.models.load import load
from alignment_core.models.score import reply_loss
from alignment_core.pipeline.step import Step
from alignment_core.records import Prompt
from alignment_core.testing import check_mapping
from alignment_core.testing.runs import run_folders, seeds_given
from orth_refusal import arms, attack, budget
from orth_refusal import rows as built
from orth_refusal.cli import STUDY, app
from orth_refusal.config import OrthConfig
from orth_refusal.directions import Directions
from orth_refusal.steering import (
    DeltaTangent,
    FactorGradient,
    FactorUpdate,
    KlToBase,
    LeftSubspace,
    Penalty,
    Rule,
    Shrunk,
)
from orth_refusal.study import study

SMALL = (
    "data.refusal_limit=32",
    "data.attack_limit=48",
    "data.benign_limit=32",
    "data.test_harmful=12",
    "data.test_benign=6",
    "data.test_borderline=4",
    "data.test_attack=12",
    "data.eval_split=calibration",
    "direction.rank=2",
    "points=2",
    "generate.max_new_tokens=24",
    "generate.batch_size=32",
)
MAPPING = Path(__file__).parents[3] / "studies" / "orth-refusal" / "mapping.md"


def _run(folder: Path, *words: str) -> Any:
    done = CliRunner().invoke(app, ["run", "--runs", str(folder), "--quiet", *words, *SMALL])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    _run(runs, "--controls")
    return run_folders(runs / "orth-refusal")[0]


def step(run_folder: Path, name: str) -> Path:
    (found,) = run_folder.parent.glob(f"steps/{name}-*")
    return found


def test_the_whole_study_runs_and_results_have_their_shape(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    attacks = {arm.name for arm in arms.ARMS}
    assert set(found.subjects) == attacks | {"baseline", "refusal_lora"}
    for subject in attacks:
        for metric in ("refusal_at_matched_loss", "refusal_area", "harmful_refusal_rate", "attack_loss"):
            measured = found.headline(metric, subject)
            assert measured is not None
            assert measured.value is not None
        assert [m.at["step"] for m in found.along("harmful_refusal_rate", subject, "step")] == [0, 1, 3]
    assert {h.name for h in found.hypotheses} == {"H1", "H2", "H3", "H4"}
    primary = found.comparison("refusal_at_matched_loss", "random_left", "left")
    assert primary is not None
    assert (primary.role, primary.n_seeds, primary.estimand) == ("primary", 1, "these checkpoints")
    for name in ("trajectory", "slower", "defences", "cosine"):
        assert (run_folder / "figures" / f"{name}.svg").is_file()
    assert (run_folder / "report.md").is_file()


def test_every_arm_had_vanillas_budget(run_folder: Path) -> None:
    # Upstream: 10 epochs against 3.
    base = read_json(step(run_folder, "attack_vanilla-s13") / "budget.json")
    assert base["steps"] == 3
    assert base["rows"] == 48
    for arm in arms.ARMS:
        mine = read_json(step(run_folder, f"attack_{arm.name}-s13") / "budget.json")
        for key in ("steps", "rows", "schedule", "seed") + (() if arm.special == "replay" else ("order",)):
            assert mine[key] == base[key], arm.name
        assert mine["peak_lr"] == pytest.approx(base["peak_lr"] * arm.lr)


def test_an_unequal_budget_stops_the_run(run_folder: Path, tmp_path: Path) -> None:
    vanilla = step(run_folder, "attack_vanilla-s13")
    facts = read_json(vanilla / "budget.json")
    for key, other in (("steps", 9), ("order", "x"), ("schedule", "x"), ("seed", 1)):
        write_json(tmp_path / "budget.json", {**facts, key: other})
        with pytest.raises(RuntimeError, match=f"unequal budgets: {key}"):
            budget.check(vanilla, tmp_path)
    budget.check(vanilla, step(run_folder, "attack_left-s13"))
    with pytest.raises(RuntimeError, match="0 of 48 rows"):
        budget.check(vanilla, step(run_folder, "attack_left-s13"), replayed=0.05)


def test_the_meter_speaks_for_the_projections(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")

    def largest(subject: str) -> float:
        return found.measurement("largest_cosine", subject, 13).value or 0.0

    assert largest("delta") < 1e-4
    assert largest("vanilla") > 0.05
    lines = (step(run_folder, "attack_left-s13") / "meter.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    assert len(json.loads(lines[0])["matrices"]) == 28
    shrunk = [json.loads(x) for x in (step(run_folder, "attack_shrunk-s13") / "meter.jsonl").read_text().splitlines()]
    for line, own in zip(lines, shrunk, strict=True):
        assert own["length"] <= json.loads(line)["length"] * (1 + 1e-5)


def test_the_base_stands_once_and_every_attack_starts_from_it(run_folder: Path) -> None:
    found = results.read(run_folder / "results.json")
    base = found.measurement("harmful_refusal_rate", "baseline")
    assert base.seed is None
    for arm in arms.ARMS:
        assert found.measurement("harmful_refusal_rate", arm.name, 13, {"step": 0}).value == base.value


def test_the_originals_files_have_its_shapes(run_folder: Path) -> None:
    logged = read_json(step(run_folder, "attack_factor_gradient-s13") / "training_loss_orthogonal.json")
    assert set(logged) == {"mode", "config", "losses"}
    assert [set(row) for row in logged["losses"]] == [{"step", "epoch", "loss", "learning_rate"}] * 3
    assert (step(run_folder, "attack_vanilla-s13") / "training_loss_vanilla.json").is_file()
    assert (step(run_folder, "tune_refusal-s13") / "training_loss_refusal.json").is_file()
    test = read_json(run_folder / "original" / "seed-13" / "local_refusal_test.json")
    assert set(test) == {"base", "vanilla", "orthogonal", "regularized"}
    for entry in test.values():
        assert set(entry) == {"model_name", "refusal_rate", "total_prompts", "refusals", "results"}
        assert entry["total_prompts"] == len(entry["results"]) == 12
        assert entry["refusals"] == sum(row["refused"] for row in entry["results"])


def test_the_run_folder_names_every_state_with_its_files(run_folder: Path) -> None:
    states = read_index(run_folder)
    own = [s for s in states if not s.at]
    assert {s.subject: s.seed for s in own} == {"baseline": None, "refusal_lora": 13} | {a.name: 13 for a in arms.ARMS}
    for arm in arms.ARMS:
        placed = [s for s in states if s.subject == arm.name and s.at]
        assert [s.at["step"] for s in placed] == [0, 1, 3]
        assert placed[0].answered == own[0].answered, "every attack starts from the base"
        assert placed[-1].answered == next(s.answered for s in own if s.subject == arm.name)
    replies, verdicts = judged_texts(states)
    assert len(replies) == len(verdicts) == 18 * 22
    lines = (run_folder / "verdicts.csv").read_text().splitlines()
    assert len(lines) == 1 + (18 + 16 * 3) * 22, "the ends, and every evaluated step"
    done = CliRunner().invoke(app, ["report", str(run_folder)])
    assert done.exit_code == 0, done.output


def test_every_training_and_answer_starts_where_the_method_says(run_folder: Path) -> None:
    """Which steps each step read: a changed base, split or reference shows here."""
    reads = {
        p.parent.name.split("-")[0]: sorted(name.split("-")[0] for name in read_json(p)["reads"])
        for p in run_folder.parent.glob("steps/*/step.json")
    }
    assert reads["tune_refusal"] == reads["tune_benign"] == reads["tune_red"] == ["data"]
    assert reads["direction"] == ["tune_refusal"]
    assert reads["direction_benign"] == ["tune_benign"]
    assert reads["direction_contrast"] == ["tune_red", "tune_refusal"]
    assert reads["direction_oracle"] == ["attack_vanilla"]
    assert reads["attack_vanilla"] == ["data", "direction"]
    more = {
        "benign_left": ["direction_benign"],
        "oracle_left": ["direction_oracle"],
        "shrunk": ["attack_left"],
        "penalty": ["direction_contrast"],
    }
    for name in (arm.name for arm in arms.ARMS):
        if name != "vanilla":
            wanted = ["attack_vanilla", "data", "direction", *more.get(name, [])]
            assert reads[f"attack_{name}"] == sorted(wanted)
        assert reads[f"answer_{name}"] == [f"attack_{name}", "data"]
        assert reads[f"judge_{name}"] == [f"answer_{name}"]
    assert reads["answer_baseline"] == ["data"]
    assert reads["answer_refusal_lora"] == ["data", "tune_refusal"]


PLACES = {
    "factor_gradient": (FactorGradient, "direction", "refusal_factor"),
    "factor_update": (FactorUpdate, "direction", "refusal_factor"),
    "delta": (DeltaTangent, "direction", "refusal_delta"),
    "left": (LeftSubspace, "direction", "refusal_left"),
    "random_factor": (FactorUpdate, "direction", "random_factor"),
    "random_delta": (DeltaTangent, "direction", "random_delta"),
    "random_left": (LeftSubspace, "direction", "random_left"),
    "benign_left": (LeftSubspace, "direction_benign", "benign_left"),
    "oracle_left": (LeftSubspace, "direction_oracle", "oracle_left"),
    "penalty": (Penalty, "direction_contrast", "contrast_factor"),
}
"""Of each arm with a direction its rule, the step it is read in, and its file."""


def test_every_arm_is_kept_out_of_its_own_direction(run_folder: Path) -> None:
    config = resolve(OrthConfig, "orth_refusal", "tiny", None, SMALL)
    steps = {
        **{name: Step(name, "x", step(run_folder, f"{name}-s13"), 13) for _, name, _ in PLACES.values()},
        "left": Step("left", "x", step(run_folder, "attack_left-s13"), 13),
    }
    for arm in arms.ARMS:
        rule = attack.rule_of(config, arm, steps)
        if arm.name not in PLACES:
            kinds = {"shrunk": Shrunk, "kl": KlToBase}
            assert type(rule) is kinds.get(arm.name, Rule)
            continue
        kind, place, file = PLACES[arm.name]
        assert type(rule) is kind
        wanted = Directions.load(steps[place] / f"{file}.safetensors")
        assert rule.direction.about == wanted.about  # type: ignore[attr-defined]
        assert all(torch.equal(v, wanted.tensors[k]) for k, v in rule.direction.tensors.items())  # type: ignore[attr-defined]
    lengths = [json.loads(line)["length"] for line in (steps["left"] / "meter.jsonl").read_text().splitlines()]
    assert attack.rule_of(config, arms.BY_NAME["shrunk"], steps).lengths == lengths  # type: ignore[attr-defined]


def test_every_direction_is_that_of_its_own_adapter(run_folder: Path) -> None:
    def adapter(name: str) -> str:
        return adapter_identity(step(run_folder, f"{name}-s13") / "adapter")

    said = {
        row["file"].removesuffix(".safetensors"): row["adapter"]
        for path in run_folder.parent.glob("steps/direction*/directions.json")
        for row in read_json(path)
    }
    assert {said[f"refusal_{space}"] for space in ("factor", "delta", "left")} == {adapter("tune_refusal")}
    assert {said[f"random_{space}"] for space in ("factor", "delta", "left")} == {"random 13"}
    assert said["benign_left"] == adapter("tune_benign")
    assert said["oracle_left"] == adapter("attack_vanilla")
    assert said["contrast_factor"] == f"{adapter('tune_refusal')} - {adapter('tune_red')}"


@pytest.mark.parametrize(
    ("subject", "inside", "trained"),
    [
        ("baseline", ".", None),
        ("refusal_lora", ".", "tune_refusal-s13"),
        ("left", "3", "attack_left-s13"),
    ],
)
def test_losses_are_those_of_the_state_on_held_out_rows(
    run_folder: Path, subject: str, inside: str, trained: str | None
) -> None:
    model = load(OrthConfig().model, step(run_folder, trained) / "adapter" if trained else None)
    rows = step(run_folder, "data")
    held_out = built.examples(rows, "held_out")
    asked = [Prompt(str(i), e.messages[:-1], "harmful") for i, e in enumerate(held_out)]
    useful = [p for p in built.prompts(rows) if p.kind == "benign"]
    assert (len(asked), len(useful)) == (12, 6)
    (answered,) = run_folder.parent.glob(f"steps/answer_{subject}-*")
    found: dict[str, list[float]] = {}
    for line in (answered / inside / "losses.jsonl").read_text().splitlines():
        found.setdefault(json.loads(line)["set"], []).append(json.loads(line)["loss"])
    assert found["attack"] == pytest.approx([x.loss for x in reply_loss(model, asked, [e.reply for e in held_out])])
    assert found["reference"] == pytest.approx([x.loss for x in reply_loss(model, useful)])


def test_directions_are_safetensors_with_their_adapters_identity(run_folder: Path) -> None:
    about = read_json(step(run_folder, "direction-s13") / "directions.json")
    names = {row["file"] for row in about}
    assert {"refusal_factor.safetensors", "refusal_delta.safetensors", "refusal_left.safetensors"} <= names
    assert all(len(row["adapter"]) == 64 for row in about if row["file"].startswith("refusal"))
    assert not [p for p in run_folder.rglob("*") if p.suffix in {".pt", ".pth", ".bin", ".pkl"}]


def test_the_same_command_again_keeps_every_step(run_folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run_folder.parent.glob("steps/*/step.json")}
    text = (run_folder / "results.json").read_text()
    _run(run_folder.parents[1], "--controls")
    assert {p: p.stat().st_mtime_ns for p in run_folder.parent.glob("steps/*/step.json")} == before
    assert (run_folder / "results.json").read_text() == text


@pytest.mark.slow
def test_several_seeds_are_compared_over_runs_and_the_first_is_kept(run_folder: Path) -> None:
    _run(run_folder.parents[1], "--controls", "--seeds", "13,14")
    found = results.read(run_folder / "results.json")
    primary = found.comparison("refusal_at_matched_loss", "random_left", "left")
    assert primary is not None
    assert (primary.role, primary.n_seeds, primary.estimand) == ("primary", 2, "over runs")
    assert found.headline("attack_loss", "left", {"step": 3}) is not None
    areas = found.comparison("refusal_area", "random_delta", "delta")
    assert areas is not None
    assert areas.family == "areas, max-T"


@pytest.mark.slow
def test_the_merged_set_up_starts_from_the_refusal_adapter(tmp_path: Path) -> None:
    _run(tmp_path, "setup=merged", "points=2", "attack.max_steps=1", "refusal.lr=4e-3")
    (folder,) = run_folders(tmp_path / "orth-refusal")
    found = results.read(folder / "results.json")
    base = found.measurement("harmful_refusal_rate", "baseline", 13).value
    tuned = found.measurement("harmful_refusal_rate", "refusal_lora", 13).value
    assert base == pytest.approx(tuned, abs=0.1)
    assert read_json(step(folder, "attack_vanilla-s13") / "adapter" / "base.json")["kind"] == "folder"


@pytest.mark.slow
def test_the_confounded_set_up_decides_nothing(tmp_path: Path) -> None:
    done = _run(tmp_path, "projected_epochs=0.5")
    (folder,) = run_folders(tmp_path / "orth-refusal")
    found = results.read(folder / "results.json")
    assert {h.verdict for h in found.hypotheses} == {"not tested"}
    assert "unequal" in done.output
    assert found.condition == "confounded: projected arms train 0.5 epochs, the others 1"
    assert read_json(step(folder, "attack_left-s13") / "budget.json")["steps"] == 2


def test_every_row_of_the_mapping_holds(run_folder: Path) -> None:
    base = read_json(run_folder / "original" / "seed-13" / "local_refusal_test.json")["base"]
    more = {"arm": arms.BY_NAME.__contains__, "json": base.__contains__, "sorry": bool}
    check_mapping(MAPPING, resolve(OrthConfig, "orth_refusal", "tiny"), app, run_folder, more)


@pytest.mark.parametrize("preset", presets("orth_refusal"))
def test_dry_run_prints_the_plan_of_every_preset(preset: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "--preset", preset, "--dry-run", "--runs", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "held-out prompts" in done.output
    assert ("CONFOUNDED" in done.output) == (preset == "original-confounded")
    assert not list(tmp_path.iterdir())


def test_the_paper_plan_says_memory_downloads_and_steps(tmp_path: Path) -> None:
    words = ["run", "--preset", "paper", "--dry-run", "--controls", "--runs", str(tmp_path)]
    text = CliRunner().invoke(app, words).output
    for said in (
        "1.5 GB",
        "GPU memory",
        "declare-lab/HarmfulQA",
        "18,390 examples",
        "attack_oracle_left",
        "at up to 8 steps",
    ):
        assert said in text


def test_the_merged_plan_needs_no_merged_model(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "--dry-run", "--controls", "--runs", str(tmp_path), "setup=merged"])
    assert done.exit_code == 0, done.output
    assert "merged" in done.output


def test_each_part_of_the_study_is_a_command() -> None:
    assert [name for name, _ in STUDY.steps] == ["data", "refusal", "direction", "attack", "evaluate"]


def test_every_steps_work_gets_the_training_seed_of_its_step() -> None:
    config = resolve(OrthConfig, "orth_refusal", "tiny", overrides=["controls=true"])
    given = seeds_given(study, config, 14)
    assert len(given) > 30
    assert {step for step, (own, its) in given.items() if own != its} == set()
