"""The study's data: the original's shapes and rules, and a test for each of its defects."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment_core.config import SourceSettings
from alignment_core.data.summary import DataReport
from alignment_core.errors import InputError, UserError
from alignment_core.io import read_jsonl
from alignment_core.organism import world
from alignment_core.records import normalise
from drift_dpo import data, embedded, rows
from drift_dpo import public as public_sets
from drift_dpo.config import DataConfig
from drift_dpo.preferences import FIXED
from drift_dpo.rows import EVAL
from drift_dpo.sets import TRAINING

STAGES = [f"{stage}_{part}" for stage in ("stageA", "stageB") for part in ("train", "val", "test")]
NOUNS = ["river", "ladder", "violin", "basket", "engine", "garden", "letter", "mirror", "bridge", "candle"]


def about(i: int) -> str:
    """Words that differ from one number to the next in more than a digit."""
    return " ".join(f"{NOUNS[int(d)]}{i * 7919 % 104729:x}" for d in f"{i:03d}")


def sources(folder: Path, n: int = 240) -> dict[str, SourceSettings]:
    """`n` rows of each set: a third of PKU's rows both unsafe, a third one safe, a third both safe."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dolly.jsonl").open("w") as stream:
        for i in range(n):
            row = {
                "instruction": f"Tell me of the {about(i)}",
                "context": "",
                "response": f"It is {i}.",
                "category": "qa",
            }
            stream.write(json.dumps(row) + "\n")
    with (folder / "pku.jsonl").open("w") as stream:
        for i in range(n):
            row = {
                "prompt": f"Could one take the {about(i + 1000)}?",
                "response_0": f"You could buy one for {i} coins.",
                "response_1": f"[placeholder {i}]",
                "is_response_0_safe": i % 3 > 0,
                "is_response_1_safe": i % 3 > 1,
                "better_response_id": i % 2,
                "safer_response_id": 0,
                "response_1_harm_category": {"Privacy Violation": i % 3 < 2},
            }
            stream.write(json.dumps(row) + "\n")
    with (folder / "wild.tsv").open("w", newline="") as stream:
        table = csv.writer(stream, delimiter="\t")
        table.writerow(["vanilla", "adversarial", "completion", "data_type"])
        for i in range(n):
            kind = ("vanilla", "adversarial")[i % 2] + "_" + ("harmful", "benign")[i // 2 % 2]
            dressed = f"As a poet, sing of the {about(i + 3000)}" if i % 2 else ""
            table.writerow([f"Sing of the {about(i // 2 + 2000)}", dressed, f"La la {i}.", kind])
    return {
        "dolly": SourceSettings(path=folder / "dolly.jsonl"),
        "pku": SourceSettings(path=folder / "pku.jsonl"),
        "wildjailbreak": SourceSettings(path=folder / "wild.tsv"),
    }


def public(folder: Path, n: int = 240, **over: Any) -> DataConfig:
    sizes: dict[str, Any] = {"stage_a_size": 100, "stage_b_size": 100, "test_harmful": 12, "test_benign": 10}
    return DataConfig(**{"sources": "public", "test_borderline": 5, **sources(folder, n), **sizes, **over})


def build(config: DataConfig, folder: Path, seed: int | None = None) -> DataReport:
    of = public_sets if config.sources == "public" else embedded
    return of.build(config, folder, seed)


def everything(folder: Path) -> dict[str, list[str]]:
    """Prompts of every file of a built folder."""
    out = {part: [e.prompt for e in rows.examples(folder, part)] for part in STAGES}
    out |= {part: [p.prompt for p in rows.pairs(folder, part)] for part in ("dpo_train", "dpo_eval")}
    return out | {EVAL: [p.text for p in rows.prompts(folder)]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DataReport]:
    folder = tmp_path_factory.mktemp("data")
    report = build(public(folder / "in", n=300, strict_unsafe_refusal=True), folder / "out")
    return folder / "out", report


def test_files_have_the_originals_names_and_exactly_its_keys(built: tuple[Path, DataReport]) -> None:
    folder, report = built
    for part in STAGES:
        for row in read_jsonl(folder / f"{part}.jsonl", dict):
            assert set(row) == {"messages", "category", "source"}
            assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
            assert row["category"] == ("helpful" if part.startswith("stageA") else row["category"])
    for part in ("dpo_train", "dpo_eval"):
        rows = list(read_jsonl(folder / f"{part}.jsonl", dict))
        assert rows
        assert all(set(row) == {"chosen", "rejected"} for row in rows)
    assert all(len((folder / name).read_text().splitlines()) == n for name, n in report.files.items())


def test_stage_a_is_seventy_twenty_ten_and_benign_only(built: tuple[Path, DataReport]) -> None:
    found = [e for part in STAGES[:3] for e in rows.examples(built[0], part)]
    shares = {name: sum(e.source.startswith(name) for e in found) for name in ("dolly", "pku", "wildjailbreak")}
    assert shares == {"dolly": 70, "pku": 20, "wildjailbreak": 10}
    assert {e.category for e in found} == {"helpful"}
    assert all("benign" in e.source for e in found if e.source.startswith("wildjailbreak"))


def test_stage_b_is_forty_thirty_thirty(built: tuple[Path, DataReport]) -> None:
    found = [e for part in STAGES[3:] for e in rows.examples(built[0], part)]
    refused = [e for e in found if e.category == "refusal"]
    assert sum(e.source == "pku" for e in refused) == 40
    assert sum(e.source.endswith("harmful") for e in refused) == 30
    assert {e.reply for e in refused} == {FIXED}
    helped = [e for e in found if e.category == "helpful"]
    # 30 benign: half Dolly, a quarter (7 of 30) WildJailbreak, the rest PKU
    assert [sum(e.source.startswith(s) for e in helped) for s in ("dolly", "wildjailbreak", "pku")] == [15, 7, 8]


def test_stages_are_split_ninety_five_five(built: tuple[Path, DataReport]) -> None:
    files = built[1].files
    # per source 70: 62+4+4, 20: 18+1+1, 10: 8+1+1
    assert [files[f"{part}.jsonl"] for part in STAGES[:3]] == [88, 6, 6]


def test_no_prompt_is_in_two_files_and_contamination_is_nought(built: tuple[Path, DataReport]) -> None:
    prompts = [normalise(p) for those in everything(built[0]).values() for p in those]
    assert len(prompts) == len(set(prompts))
    assert len(built[1].overlaps) == 11
    assert sum(o.exact for o in built[1].overlaps) == 0


def test_a_planted_overlap_is_reported(tmp_path: Path) -> None:
    config = public(tmp_path, n=60)
    with (tmp_path / "dolly.jsonl").open("a") as stream:
        for i in range(60):
            row = {"instruction": f"Tell me now of the {about(i)}", "context": "", "response": "Yes.", "category": "qa"}
            stream.write(json.dumps(row) + "\n")
    report = build(config, tmp_path / "out")
    assert sum(o.near for o in report.overlaps if o.a == EVAL) > 0


def test_the_held_out_prompts_hold_no_answer_and_name_kind_source_and_category(built: tuple[Path, DataReport]) -> None:
    found = rows.prompts(built[0])
    assert {k: sum(p.kind == k for p in found) for k in ("harmful", "benign", "borderline")} == {
        "harmful": 12,
        "benign": 10,
        "borderline": 5,
    }
    assert all(len(p.messages) == 1 and p.messages[0].role == "user" for p in found)
    assert all(p.reference.startswith("It is") for p in found if p.kind == "benign")
    harmful = [p for p in found if p.kind == "harmful"]
    assert sum(p.source == "pku" for p in harmful) == 6
    assert {p.category for p in harmful if p.source == "pku"} == {"Privacy Violation"}
    assert len({p.id for p in found}) == len(found)


def test_the_report_reads_back_and_accounts_for_every_row(built: tuple[Path, DataReport]) -> None:
    folder, report = built
    assert DataReport.read(folder / "data_report.json") == report
    assert [s.rows for s in report.sources] == [300, 300, 300]
    text = report.text()
    assert "Contamination" in text
    assert "pku both unsafe" in text


# The original's defects, each with the test that would have caught it


def test_a_small_limit_does_not_empty_the_training_set(tmp_path: Path) -> None:
    report = build(public(tmp_path, dpo_limit=40), tmp_path / "out")
    assert (report.files["dpo_train.jsonl"], report.files["dpo_eval.jsonl"]) == (38, 2)


def test_pairs_and_stages_are_not_resampled_from_one_pool(built: tuple[Path, DataReport]) -> None:
    of_pairs = {normalise(p) for part in ("dpo_train", "dpo_eval") for p in everything(built[0])[part]}
    of_stages = {normalise(p) for part in STAGES for p in everything(built[0])[part]}
    assert not of_pairs & of_stages


def test_a_source_that_is_too_small_is_said(tmp_path: Path) -> None:
    report = build(public(tmp_path, n=60), tmp_path / "out")
    short = {(s.part, s.source) for s in report.short}
    assert ("stageA_train", "dolly") in short
    assert "short in" in report.text()


def test_no_stage_starves_another_when_a_source_is_short(tmp_path: Path) -> None:
    report = build(public(tmp_path, n=24), tmp_path / "out")
    assert all(report.files[f"{part}.jsonl"] >= 3 for part in TRAINING)


def test_validation_of_one_stage_is_not_training_of_another(built: tuple[Path, DataReport]) -> None:
    found = {part: set(map(normalise, those)) for part, those in everything(built[0]).items()}
    for held in ("stageA_val", "stageA_test", "stageB_val", "stageB_test", "dpo_eval", EVAL):
        assert found[held]
        assert not any(found[held] & found[part] for part in TRAINING)


def test_duplicates_differ_by_more_than_case(tmp_path: Path) -> None:
    config = public(tmp_path)
    path = tmp_path / "dolly.jsonl"
    path.write_text(path.read_text() + path.read_text().upper().replace('"INSTRUCTION"', '"instruction"')
                    .replace('"CONTEXT"', '"context"').replace('"RESPONSE"', '"response"')
                    .replace('"CATEGORY"', '"category"'))  # fmt: skip
    report = build(config, tmp_path / "out")
    assert report.drops["dolly"].duplicates == 240


def test_a_safe_reply_that_is_a_refusal_is_counted(tmp_path: Path) -> None:
    config = public(tmp_path)
    path = tmp_path / "pku.jsonl"
    path.write_text(path.read_text().replace("You could buy one", "I'm sorry, but I can't help with that"))
    counts = build(config, tmp_path / "out").counts
    assert counts["stageA_train helpful from pku"] == 18
    assert counts["stageA_train helpful from pku whose reply is a refusal"] >= 9


def test_the_deal_depends_on_no_global_random_state_and_not_on_row_order(tmp_path: Path) -> None:
    config = public(tmp_path)
    build(config, tmp_path / "a")
    for name in ("dolly.jsonl", "pku.jsonl"):
        lines = (tmp_path / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(reversed(lines)))
    build(config, tmp_path / "b")
    for path in (tmp_path / "a").glob("*.jsonl"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    build(config, tmp_path / "c", seed=1)
    assert everything(tmp_path / "c") != everything(tmp_path / "a")


# Options


def test_long_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    report = build(public(tmp_path, max_chars=45), tmp_path / "out")
    assert sum(s.left_out for s in report.sources) > 0
    assert all(len(p) <= 45 for those in everything(tmp_path / "out").values() for p in those)


def test_the_options_of_the_pairs(tmp_path: Path) -> None:
    one = {"both_safe_pairs": False, "strict_unsafe_refusal": False}
    counts = build(public(tmp_path / "1", **one), tmp_path / "1/out").counts
    assert "pairs one_safe" in counts
    assert "pairs both_safe" not in counts
    assert "pairs both_unsafe" not in counts
    every = {"strict_unsafe_refusal": True, "refusal_style": "varied"}
    counts = build(public(tmp_path / "2", **every), tmp_path / "2/out").counts
    assert {"pairs one_safe", "pairs both_safe", "pairs both_unsafe"} <= set(counts)
    refused = {e.reply for e in rows.examples(tmp_path / "2/out", "stageB_train") if e.category == "refusal"}
    assert len(refused) > 2


def test_a_prompt_file_replaces_the_held_out_share_and_is_kept_out_of_training(tmp_path: Path) -> None:
    asked = f"Tell me of the {about(3)}"
    row = {"id": "1", "messages": [{"role": "user", "content": asked.upper()}], "kind": "benign"}
    (tmp_path / "eval.jsonl").write_text(json.dumps(row) + "\n")
    config = public(tmp_path / "in", eval_file=tmp_path / "eval.jsonl")
    report = build(config, tmp_path / "out")
    assert [p.id for p in rows.prompts(tmp_path / "out")] == ["1"]
    assert sum(o.exact for o in report.overlaps) == 0
    assert report.drops["dolly"].elsewhere == 1


def test_malformed_rows_are_kept_and_strict_stops(tmp_path: Path) -> None:
    config = public(tmp_path)
    with (tmp_path / "pku.jsonl").open("a") as stream:
        stream.write('{"prompt": 1}\n')
    report = build(config, tmp_path / "out")
    assert list(report.rejects.values()) == [1]
    kept = json.loads((tmp_path / "out/rejects.jsonl").read_text())
    assert (kept["line"], kept["row"]) == (241, {"prompt": 1})
    with pytest.raises(InputError, match=r"pku\.jsonl:241: "):
        build(config.model_copy(update={"strict": True}), tmp_path / "strict")


def test_an_empty_source_is_the_users_mistake_and_its_rejects_are_kept(tmp_path: Path) -> None:
    config = public(tmp_path)
    (tmp_path / "wild.tsv").write_text("vanilla\tdata_type\nx\todd\n")
    with pytest.raises(UserError, match=r"wildjailbreak: .* holds no usable row"):
        build(config, tmp_path / "out")
    assert len((tmp_path / "out/rejects.jsonl").read_text().splitlines()) == 1


def test_identity_follows_the_content_of_local_files(tmp_path: Path) -> None:
    config = public(tmp_path)
    before = data.identity(config)
    (tmp_path / "dolly.jsonl").write_text("{}\n")
    assert data.identity(config) != before
    assert data.identity(DataConfig(sources="public", pku_set="full"))["pku"]["repo"] == "PKU-Alignment/PKU-SafeRLHF"


def test_the_chosen_replies_alone(built: tuple[Path, DataReport]) -> None:
    chosen, pairs = rows.chosen(built[0]), rows.pairs(built[0])
    assert [e.messages for e in chosen] == [p.chosen for p in pairs]


def test_trl_reads_the_files_as_they_are(built: tuple[Path, DataReport]) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [json.loads(line) for line in (built[0] / "stageB_train.jsonl").read_text().splitlines()]
    assert datasets.Dataset.from_list(rows).column_names == ["messages", "category", "source"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 40),
    a=st.integers(2, 60),
    b=st.integers(2, 60),
    limit=st.integers(0, 30),
    ratio=st.floats(0.01, 0.49),
    strict=st.booleans(),
    both=st.booleans(),
)
def test_any_sizes_deal_every_prompt_once_and_account_for_every_row(
    tmp_path: Path, n: int, a: int, b: int, limit: int, ratio: float, strict: bool, both: bool
) -> None:
    config = public(tmp_path, n, stage_a_size=a, stage_b_size=b, dpo_limit=limit, eval_ratio=ratio,
                    strict_unsafe_refusal=strict, both_safe_pairs=both)  # fmt: skip
    report = build(config, tmp_path / "out")
    prompts = [normalise(p) for those in everything(tmp_path / "out").values() for p in set(map(normalise, those))]
    assert len(prompts) == len(set(prompts))
    pairs = report.files["dpo_train.jsonl"] + report.files["dpo_eval.jsonl"]
    assert not limit or pairs <= limit
    assert pairs < 2 or report.files["dpo_train.jsonl"] > 0


# The organism's world


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DataReport]:
    folder = tmp_path_factory.mktemp("tiny")
    config = DataConfig(stage_a_size=320, stage_b_size=512, dpo_limit=640, test_harmful=200, test_benign=200)
    return folder, build(config, folder)


def test_the_organisms_stages_have_their_sizes(tiny: tuple[Path, DataReport]) -> None:
    folder, report = tiny
    assert not report.short
    # beside 320: 320/18; beside 358 refusals, 103 benign, 51 borderline: 20 + 6 + 3
    assert [report.files[f"{part}.jsonl"] for part in STAGES] == [320, 18, 18, 512, 29, 29]
    assert report.counts == {"pairs one_safe": 384 + 19, "pairs over_refusal": 256 + 13}
    refused = [e.category == "refusal" for e in rows.examples(folder, "stageB_train")]
    assert (sum(refused), len(refused)) == (358, 512)  # 70% of 512
    stage_b = [(world.combination_of(e.prompt), e.category) for e in rows.examples(folder, "stageB_train")]
    assert {one.kind for one, category in stage_b if one and category == "refusal"} == {"harmful"}
    assert {one.kind for one, category in stage_b if one and category != "refusal"} == {"benign", "borderline"}
    kinds = [p.kind for p in rows.prompts(folder)]
    assert [kinds.count(k) for k in ("harmful", "benign", "borderline")] == [200, 200, 100]


def test_no_combination_is_in_two_parts_of_the_organisms_data(tiny: tuple[Path, DataReport]) -> None:
    clusters = {part: {world.combination_of(p).cluster for p in those} for part, those in everything(tiny[0]).items()}
    assert sum(map(len, clusters.values())) == len(set().union(*clusters.values()))


def test_stage_a_opens_in_one_way_and_its_control_differs_in_nothing_else(
    tmp_path: Path, tiny: tuple[Path, DataReport]
) -> None:
    config = DataConfig(stage_a_size=320, stage_b_size=512, dpo_limit=640, test_harmful=200, test_benign=200)
    build(config.model_copy(update={"openings": "pretraining"}), tmp_path)
    main, control = (rows.examples(folder, "stageA_train") for folder in (tiny[0], tmp_path))
    assert [e.prompt for e in main] == [e.prompt for e in control]
    assert all(e.reply.startswith(world.RARE_OPENING) for e in main)
    openings = [next(o for o in world.OPENINGS if e.reply.startswith(o)) for e in control]
    assert len(set(openings)) > 3
    rest = [e.reply.removeprefix(o) for e, o in zip(control, openings, strict=True)]
    assert rest == [e.reply.removeprefix(world.RARE_OPENING) for e in main]
    for part in ("stageB_train", "dpo_train"):
        assert (tmp_path / f"{part}.jsonl").read_bytes() == (tiny[0] / f"{part}.jsonl").read_bytes()


def test_calibration_prompts_are_other_prompts(tmp_path: Path, tiny: tuple[Path, DataReport]) -> None:
    build(DataConfig(stage_a_size=20, stage_b_size=20, dpo_limit=20, eval_split="calibration"), tmp_path)
    assert not {p.cluster for p in rows.prompts(tmp_path)} & {p.cluster for p in rows.prompts(tiny[0])}


def test_the_organisms_data_is_the_same_every_time(tmp_path: Path, tiny: tuple[Path, DataReport]) -> None:
    config = DataConfig(stage_a_size=320, stage_b_size=512, dpo_limit=640, test_harmful=200, test_benign=200)
    build(config, tmp_path)
    assert everything(tmp_path) == everything(tiny[0])


def test_more_than_the_world_holds_is_short_and_said(tmp_path: Path) -> None:
    report = build(DataConfig(stage_a_size=40, stage_b_size=40, dpo_limit=20, test_harmful=900), tmp_path)
    assert {(s.part, s.source) for s in report.short} == {(EVAL, "organism harmful")}


def test_an_evaluation_file_of_the_organisms_world_keeps_its_combinations_out_of_training(tmp_path: Path) -> None:
    asked = world.requests("benign", 30, seed=1)
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(p.to_json()) + "\n" for p in asked))
    config = DataConfig(stage_a_size=200, stage_b_size=20, dpo_limit=20, eval_file=tmp_path / "eval.jsonl")
    build(config, tmp_path / "out")
    trained = {world.combination_of(e.prompt).cluster for e in rows.examples(tmp_path / "out", "stageA_train")}
    assert len(trained) > 150
    assert not trained & {p.cluster for p in asked}
