"""Damaged files that the guarantees' campaign found a traceback, a wrong type or a loss in: each is one line now."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment_core import io
from alignment_core.cli.compare import Reading, compare_files
from alignment_core.config import parse_overrides, parse_toml
from alignment_core.data.files import rows
from alignment_core.errors import InputError, UserError
from alignment_core.evaluation.align import DEFAULTS
from alignment_core.evaluation.label import labelled
from alignment_core.evaluation.results import Results
from alignment_core.models.screen import screen
from alignment_core.pipeline.step import damage
from alignment_core.records import Completion, Verdict
from alignment_core.report import page, timings
from alignment_core.report.spec import generic

DIGITS = "9" * 5000
DEEP = "[" * 100_000
COMPLETION = {"prompt_id": "p", "subject": "s", "text": "t", "prompt": "q", "kind": "benign"}
VERDICT = {"prompt_id": "p", "subject": "s", "judge": "rules", "label": "refusal", "kind": "benign"}


@pytest.mark.parametrize("text", [DIGITS, DEEP, '{"a": ' + DIGITS + "}"])
def test_a_number_without_end_and_a_nest_without_end_are_no_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.json"
    path.write_text(f"{text}\n")
    with pytest.raises(InputError, match="not JSON: "):
        io.read_json(path)
    assert [reason is not None for _, _, reason in io.read_rows(path)] == [True]
    assert io.recover_jsonl(path) == []
    with pytest.raises(UserError, match=r"mine\.toml: not TOML: "):
        parse_toml(f"a = {text}", "mine.toml")
    assert parse_overrides([f"a={text}"]) == {"a": text}


def test_a_journal_keeps_no_number_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"journal": {"n": NaN}}\n')
    assert io.Journal(path, {"n": 1}).rows == []


def test_an_object_is_asked_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text("[1]")
    with pytest.raises(InputError, match=r"f\.json: expected an object, found list"):
        io.read_object(tmp_path / "f.json")


@pytest.mark.parametrize(
    "change", [{"seed": [1]}, {"seed": 1.5}, {"seed": True}, {"candidate": -1}, {"candidate": "0"}, {"tokens": None}]
)
def test_a_records_numbers_are_numbers(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        Completion.from_json({**COMPLETION, **change})
    if "tokens" not in change:
        with pytest.raises(ValueError, match="must be a whole number"):
            Verdict.from_json({**VERDICT, **change})


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 10**400, "1", True, [1]])
def test_a_score_that_is_no_number_is_refused(score: object) -> None:
    with pytest.raises(ValueError, match="'score' must be a number or null"):
        Verdict.from_json({**VERDICT, "score": score})
    assert Verdict.from_json({**VERDICT, "score": 2}).score == 2


def test_a_reply_ends_in_one_of_two_ways() -> None:
    with pytest.raises(ValueError, match="'finish' must be one of stop, length"):
        Completion.from_json({**COMPLETION, "finish": "cut"})


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"instruction": "x" * 50, "output": "y" * 50}] * 20), path)
    data = path.read_bytes()
    lines = set()
    for at in range(4, len(data) - 8, 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            list(rows(path))
        except InputError as error:
            lines.add(str(error))
    assert lines
    assert [line for line in lines if "\n" in line] == []


@pytest.mark.parametrize("facts", ["[]", "3", '{"key": "aa", "files": "x"}', '{"key": "aa", "files": {"a\\nb": 1}}'])
def test_a_damaged_step_is_known_as_such(tmp_path: Path, facts: str) -> None:
    (tmp_path / "step.json").write_text(facts)
    assert damage(tmp_path) == "step.json is missing or was changed"


@pytest.mark.parametrize("shards", ["null", "[1]", "3"])
def test_a_damaged_index_of_shards(tmp_path: Path, shards: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {shards}}}')
    with pytest.raises(UserError, match="no weights"):
        screen(tmp_path)


def test_timings_that_somebody_edited_are_shown_as_far_as_they_go() -> None:
    steps = {"a": {"name": "a", "seconds": "x", "attempts": [2]}, "b": 3, "c": {"name": "c", "seconds": float("nan")}}
    assert [(s.name, s.seconds, s.attempts) for s in timings.read({"steps": steps})] == [("a", 0, 0), ("c", 0, 1)]
    assert timings.read({"steps": [1]}) == []


@pytest.mark.parametrize("text", ["3", '{"states": 3}', '{"states": [{"subject": "a", "answered": "../x"}]}'])
def test_a_run_folder_with_another_thing_in_it_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "states.json").write_text(text)
    results = Results(study="s", preset="p", seeds=(1,))
    with pytest.raises(InputError, match=r"expected an object|not an index of states"):
        page.write(tmp_path, results, generic(results))


@pytest.mark.parametrize("change", [{"seed": [1]}, {"cluster": {}}])
def test_rows_to_compare_have_plain_seeds_and_clusters(tmp_path: Path, change: dict[str, object]) -> None:
    io.write_jsonl(tmp_path / "a.jsonl", [{"prompt_id": "p", "verdict": "refusal"}])
    io.write_jsonl(tmp_path / "b.jsonl", [{"prompt_id": "p", "verdict": "refusal", **change}])
    with pytest.raises(InputError, match=r"b\.jsonl:1: .* must be text or a number"):
        compare_files(tmp_path / "a.jsonl", tmp_path / "b.jsonl", Reading(), DEFAULTS)


def test_hand_labels_are_cut_off_by_a_crash_alone(tmp_path: Path) -> None:
    one = '{"subject": "s", "prompt_id": "p", "seed": null, "candidate": 0, "label": "refusal"}'
    path = tmp_path / "labels.jsonl"
    path.write_text(f"{one}\nnot json\n{one}\n")
    whole = path.read_bytes()
    with pytest.raises(InputError, match=r"labels\.jsonl:2: not JSON"):
        labelled(path)
    assert path.read_bytes() == whole
    path.write_text(f'{one}\n{{"subject": "s", "prom')
    assert [label.prompt_id for label in labelled(path)] == ["p"]
