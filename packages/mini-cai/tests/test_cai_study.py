"""The whole study on the organism at a few prompts; every policy through to a trained adapter; the original's files,
options and metrics in its output; chat with the result."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.config import presets, resolve
from alignment_core.errors import UserError
from alignment_core.evaluation import hypotheses, results
from alignment_core.judging.settings import CriticSettings
from alignment_core.models import load
from alignment_core.pipeline.run import Run
from alignment_core.testing import check_mapping
from alignment_core.testing.runs import run_folders, seeds_given
from mini_cai import grading
from mini_cai.cli import app
from mini_cai.config import SHIPPED, CaiConfig
from mini_cai.study import study

FEW = (
    "prompts.harmful=6",
    "prompts.benign=4",
    "prompts.borderline=2",
    "prompts.test_harmful=4",
    "prompts.test_benign=3",
    "prompts.test_borderline=2",
    "prompts.eval_split=calibration",
    "candidates.candidates=3",
    "candidates.temperature=1.0",
    "candidates.max_new_tokens=32",
    "compare.generate.max_new_tokens=24",
    "calibration.items=16",
    "calibration.attacks=6",
    "calibration.repeats=2",
    "calibration.repeat_items=2",
    "calibration.min_rank=0.3",
    "calibration.min_exact=0.6",
    "train.max_steps=2",
    "train.lr=1e-2",
    "train.warmup_ratio=0",
)
MAPPING = Path(__file__).parents[3] / "studies" / "mini-cai" / "mapping.md"
ARMS = ("best", "margin", "diverse", "revised", "random")


def invoke(command: str, folder: Path, *words: str) -> Any:
    return CliRunner().invoke(app, [command, "--runs", str(folder), *words, *FEW])


def held_models(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many models that the study loaded before are still there whenever it loads one."""
    real, alive, counts = load.load, [], []

    def counted(*args: Any, **kwargs: Any) -> Any:
        counts.append(sum(ref() is not None for ref in alive))
        made = real(*args, **kwargs)
        alive.append(weakref.ref(made.model))
        return made

    monkeypatch.setattr(load, "load", counted)
    return counts


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int], str]:
    """A run of every policy, how many models were in memory at each load, and what was printed."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        gc.collect()
        counts = held_models(patch)
        done = invoke("run", runs, "--controls")
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return run_folders(runs / "mini-cai")[0], counts, done.output


def test_every_policy_goes_through_to_a_trained_adapter(finished: Any) -> None:
    # Upstream: diverse crashed on the way to SFT, and margin had no rows.
    run, _, _ = finished
    for arm in ARMS:
        (adapter,) = run.parent.glob(f"steps/train_{arm}-s13-*/adapter/adapter_model.safetensors")
        assert adapter.stat().st_size > 0
        (trained,) = run.parent.glob(f"steps/train_{arm}-s13-*/train_report.json")
        assert json.loads(trained.read_text())["examples"] > 0
    for arm in ("margin", "diverse"):
        (pairs,) = run.parent.glob(f"steps/select_{arm}-s13-*/pairs.jsonl")
        assert pairs.exists()


def test_one_model_is_in_memory_at_a_time(finished: Any) -> None:
    _, counts, _ = finished
    assert len(counts) >= 2 + 1 + len(ARMS) * 2
    assert set(counts) == {0}


def test_results_have_their_shape_and_the_originals_metrics(finished: Any) -> None:
    run, _, output = finished
    found = results.read(run / "results.json")
    assert {"baseline", *ARMS, "critic", "candidates", "revisions"} <= set(found.subjects)
    for subject in ("baseline", *ARMS):
        for metric in ("rubric_mean", "mean_score", "safe_rate", "over_refusal_rate", "false_refusal_rate"):
            measured = found.headline(metric, subject)
            assert measured is not None, (metric, subject)
            assert measured.value is not None
    assert {h.name for h in found.hypotheses} == {"H1", "H2", "H3"}
    assert "not an independent judge" in output.replace("\n", " ")
    assert "not an independent judge" in (run / "report.md").read_text().lower()
    assert found.hypotheses_sha256 == hypotheses.read("mini_cai").sha256


def test_every_number_leads_to_its_completions(finished: Any) -> None:
    run, _, _ = finished
    paths = {m.completions for m in results.read(run / "results.json").measurements if m.completions}
    assert len(paths) == 1 + len(ARMS)
    assert all((run / p).is_file() for p in paths)


def test_all_models_answer_the_same_prompts_with_the_same_seeds(finished: Any) -> None:
    run, _, _ = finished
    asked = set()
    for file in run.parent.glob("steps/answer_*/completions.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        asked.add(tuple((r["prompt_id"], r["candidate"], r["seed"]) for r in rows))
    assert len(asked) == 1
    assert len(next(iter(asked))) == 9 * 2


def test_every_step_reads_what_the_method_says(finished: Any) -> None:
    run, _, _ = finished
    reads = {}
    for file in run.parent.glob("steps/*/step.json"):
        facts = json.loads(file.read_text())
        reads[facts["name"]] = sorted(name.rsplit("-", 1)[0].removesuffix("-s13") for name in facts["reads"])
    assert reads["critique"] == ["generate"]
    for arm in ("best", "margin", "diverse"):
        assert reads[f"select_{arm}"] == ["critique", "generate"]
    assert reads["select_revised"] == ["revise"]
    assert reads["select_random"] == ["critique", "generate", "select_best"]
    for arm in ARMS:
        assert reads[f"train_{arm}"] == [f"select_{arm}"]
        assert reads[f"answer_{arm}"] == ["data", f"train_{arm}"]
    assert reads["answer_baseline"] == ["data"]


def test_every_model_answers_for_itself_and_no_training_prompt(finished: Any) -> None:
    run, _, _ = finished
    (trained,) = run.parent.glob("steps/data-*/prompts.jsonl")
    known = {json.loads(line)["id"] for line in trained.read_text().splitlines()}
    texts = {}
    for file in run.parent.glob("steps/answer_*/completions.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert not known & {row["prompt_id"] for row in rows}
        texts[rows[0]["subject"]] = [row["text"] for row in rows]
    assert all(texts[arm] != texts["baseline"] for arm in ARMS)


def test_the_random_control_has_the_first_policys_prompts_rows_and_tokens(finished: Any) -> None:
    run, _, _ = finished
    rows = {}
    for arm in ("best", "random"):
        (file,) = run.parent.glob(f"steps/select_{arm}-s13-*/train_rows.json")
        rows[arm] = json.loads(file.read_text())
    assert [r["id"] for r in rows["best"]] == [r["id"] for r in rows["random"]]
    tokens = [sum(r["tokens"] for r in rows[arm]) for arm in ("best", "random")]
    assert abs(tokens[0] - tokens[1]) <= 0.05 * tokens[0]
    reports = [
        json.loads(next(run.parent.glob(f"steps/train_{arm}-s13-*/train_report.json")).read_text()) for arm in rows
    ]
    assert reports[0]["steps"] == reports[1]["steps"]


def test_training_rows_hold_the_reply_and_not_the_question(finished: Any) -> None:
    run, _, _ = finished
    for file in run.parent.glob("steps/select_*/train.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            assert set(row) == {"instruction", "output", "meta"}
            assert set(row["meta"]) == {"score", "reason"}
            assert row["instruction"] not in row["output"]


def test_generations_hold_score_reason_and_principle(finished: Any) -> None:
    run, _, _ = finished
    (file,) = run.parent.glob("steps/critique-s13-*/generations.json")
    rows = json.loads(file.read_text())
    assert len(rows) == 12
    assert all(set(r) == {"id", "prompt", "scored"} and len(r["scored"]) == 3 for r in rows)
    scored = [s for r in rows for s in r["scored"]]
    assert {s["score"] for s in scored} <= {1, 2, 3, 4, 5}
    assert sum(bool(s["reason"]) for s in scored) > 30


def test_revisions_go_back_to_the_generator_and_are_scored_again(finished: Any) -> None:
    run, _, _ = finished
    (file,) = run.parent.glob("steps/revise-s13-*/revisions.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    first, second = ([r for r in rows if r["round"] == k] for k in (0, 1))
    assert [r["id"] for r in first] == [r["id"] for r in second]
    assert len(first) == 12
    assert all(r["score"] in range(1, 6) for r in rows)
    assert any(a["reply"] != b["reply"] for a, b in zip(first, second, strict=True))


def test_the_same_command_again_keeps_every_step_and_the_results(finished: Any) -> None:
    run, _, _ = finished
    before = {p: p.stat().st_mtime_ns for p in run.parent.glob("steps/*/step.json")}
    text = (run / "results.json").read_text()
    assert invoke("run", run.parents[1], "--controls").exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in run.parent.glob("steps/*/step.json")} == before
    assert (run / "results.json").read_text() == text


def test_another_critic_or_constitution_scores_anew_and_keeps_the_candidates(tmp_path: Path) -> None:
    # Upstream: an existing file of critiques was reused whatever the critic.
    rules = tmp_path / "rules.txt"
    rules.write_text("1. Be kind.\n")

    def keys(*words: str) -> dict[str, str]:
        run = Run.plan(tmp_path)
        for _ in study(run, resolve(CaiConfig, "mini_cai", "tiny", overrides=words), 13):
            pass
        return {step.name: step.label for step in run.planned}

    before = keys()
    for word in ("critic.scoring=generate", f"critic.constitution={rules}"):
        after = keys(word)
        assert {"data", "generate"} <= {name for name in before if before[name] == after[name]}
        assert all(before[name] != after[name] for name in ("calibrate", "critique", "select_best", "train_best"))


def test_the_judge_is_the_selecting_critic_unless_another_is_named(tmp_path: Path) -> None:
    rules, others = tmp_path / "rules.txt", tmp_path / "others.txt"

    def settings(*words: str, preset: str = "tiny") -> CaiConfig:
        return resolve(CaiConfig, "mini_cai", preset, overrides=words).ready()

    assert CaiConfig(critic=CriticSettings(batch_size=3)).judging.critic.batch_size == 3
    tiny, small = settings(), settings(preset="small")
    assert tiny.critic.constitution is tiny.judging.critic.constitution is None
    assert small.critic.constitution == small.judging.critic.constitution == SHIPPED
    assert (tiny.critic.scoring, tiny.judging.critic.scoring) == ("both", "digits")
    assert small.judging.critic.model.name == "Qwen/Qwen3-0.6B"
    own = settings(f"critic.constitution={rules}")
    assert own.critic.constitution == own.judging.critic.constitution == rules
    apart = settings(f"critic.constitution={rules}", f"judging.critic.constitution={others}")
    assert (apart.critic.constitution, apart.judging.critic.constitution) == (rules, others)


def test_a_critic_that_fails_its_calibration_stops_the_run(tmp_path: Path) -> None:
    words = ["--runs", str(tmp_path), *FEW, "calibration.attacks=0", "calibration.min_exact=1.0"]
    again = CliRunner().invoke(app, ["calibrate", *words])
    assert again.exit_code == 2
    assert "not to be trusted" in again.output
    forced = CliRunner().invoke(app, ["calibrate", "--force", *words])
    assert forced.exit_code == 0
    assert "falls short and is used all the same" in forced.output


@pytest.mark.parametrize("side", ["both", "best", "worst"])
def test_include_stands_for_its_setting(side: str, tmp_path: Path) -> None:
    asked = ["run", "--dry-run", "--runs", str(tmp_path)]
    by_option, by_key = (
        CliRunner().invoke(app, [*asked, *words]) for words in (["--include", side], [f"selection.include={side}"])
    )
    assert by_option.exit_code == 0, by_option.output
    assert by_option.output == by_key.output
    assert CliRunner().invoke(app, [*asked, "--include", "all"]).exit_code == 2


def test_chat_answers_from_the_adapter(finished: Any) -> None:
    run, _, _ = finished
    (step,) = run.parent.glob("steps/train_best-s13-*")
    done = CliRunner().invoke(app, ["chat", str(step)], input="How can I bake a vegetable pie?\n\nHello\n")
    assert done.exit_code == 0, done.output
    assert "pie" in done.output
    lost = CliRunner().invoke(app, ["chat", str(run)])
    assert lost.exit_code == 2
    assert "no adapter there" in lost.output


def test_low_memory_keeps_the_optimisers_batch() -> None:
    config = resolve(CaiConfig, "mini_cai", "small", overrides=["low_memory=true"])
    low = config.ready()
    assert low.train.batch_size * low.train.accumulate == config.train.batch_size * config.train.accumulate == 16
    assert low.train.gradient_checkpointing
    assert {low.candidates.batch_size, low.critic.batch_size, low.judging.critic.batch_size} == {1}
    assert low.compare.generate.batch_size == 1


def test_no_pickle_is_left_in_a_finished_run(finished: Any) -> None:
    run, _, _ = finished
    assert not [p for p in run.rglob("*") if p.suffix in {".pt", ".pth", ".bin", ".pkl"}]


def test_every_row_of_the_mapping_holds(finished: Any) -> None:
    run, _, _ = finished
    report = json.loads((run / "paired" / "best-s13" / "report.json").read_text())
    help_text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output

    def in_report(path: str) -> bool:
        value = report
        for part in path.split("."):
            if part not in value:
                return False
            value = value[part]
        return True

    more = {"option": help_text.__contains__, "json": in_report}
    check_mapping(MAPPING, resolve(CaiConfig, "mini_cai", "small"), app, run, more)


def test_a_finished_calibration_is_held_against_the_thresholds_of_today(tmp_path: Path) -> None:
    config = resolve(CaiConfig, "mini_cai", "tiny", overrides=FEW)
    strict = config.model_copy(update={"calibration": config.calibration.model_copy(update={"min_exact": 1.0})})
    with Run.open(tmp_path / "run", "mini-cai", "tiny", config, [13]) as run:
        parts = study(run, config, 13)
        assert [next(parts), next(parts)] == ["data", "calibrate"]
        made = sorted((tmp_path / "steps").glob("[!.]*"))
        again = study(run, strict, 13)
        next(again)
        with pytest.raises(UserError, match="not to be trusted: exact agreement"):
            next(again)
        assert sorted((tmp_path / "steps").glob("[!.]*")) == made, "nothing is calibrated again"


@pytest.mark.parametrize("preset", presets("mini_cai"))
def test_dry_run_prints_the_plan_of_every_preset(preset: str, tmp_path: Path) -> None:
    words = ["run", "--preset", preset, "--dry-run", "--controls", "--runs", str(tmp_path), "calibration.min_exact=1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "held-out prompts" in done.output
    assert all(f"train_{arm} " in done.output for arm in ARMS)
    assert not list(tmp_path.iterdir())


def test_the_paper_plan_says_downloads_access_and_memory(tmp_path: Path) -> None:
    words = ["run", "--preset", "paper", "--dry-run", "--runs", str(tmp_path)]
    text = CliRunner().invoke(app, words, env={"COLUMNS": "200"}).output
    for said in (
        "microsoft/phi-2", "google/gemma-2b-it", "meta-llama/Llama-3.1-8B-Instruct", "gated", "HF_TOKEN", "GB",
        "up to 36 training prompts and 24 held-out prompts", "24 prompts x 2 candidates", "rules,critic",
    ):  # fmt: skip
        assert said in text
    assert grading.warnings(resolve(CaiConfig, "mini_cai", "paper")) == []


def test_own_prompts_without_evaluation_prompts_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"id": 1, "prompt": "How do I water a cactus?"}\n')
    done = CliRunner().invoke(app, ["doctor", "--runs", str(tmp_path / "runs"), f"prompts.file={mine}"])
    assert done.exit_code == 3
    assert "prompts.eval_file" in done.output


def test_every_steps_work_gets_the_training_seed_of_its_step() -> None:
    config = resolve(CaiConfig, "mini_cai", "tiny", overrides=["controls=true"])
    given = seeds_given(study, config, 14)
    assert len(given) > 10
    assert {step for step, (own, its) in given.items() if own != its} == set()
