"""Prompts of three kinds, from anywhere; nothing is both trained on and evaluated on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment_core.errors import InputError, UserError
from alignment_core.records import KINDS, normalise
from mini_cai import data, rows, rubric
from mini_cai.config import PromptSettings


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_the_shipped_sets_have_three_kinds_and_share_nothing() -> None:
    train, held_out = data.shipped(rows.PROMPTS), data.shipped(rows.EVAL_PROMPTS)
    assert [sum(p.kind == k for p in train) for k in KINDS] == [12, 12, 12]
    assert [sum(p.kind == k for p in held_out) for k in KINDS] == [8, 8, 8]
    assert not {normalise(p.text) for p in train} & {normalise(p.text) for p in held_out}


def test_the_organisms_training_prompts_are_of_the_train_split_and_evaluation_ones_are_not() -> None:
    settings = PromptSettings(harmful=20, benign=10, borderline=5, test_harmful=30, test_benign=20, test_borderline=10)
    train, held_out = data.training(settings), data.evaluation(settings)
    assert (len(train), len(held_out)) == (35, 60)
    assert not {p.cluster for p in train} & {p.cluster for p in held_out}
    calibration = data.evaluation(settings.model_copy(update={"eval_split": "calibration"}))
    assert not {p.cluster for p in calibration} & {p.cluster for p in held_out}
    assert rubric.in_world(held_out)
    assert not rubric.in_world(data.shipped(rows.PROMPTS))


def test_a_file_of_the_originals_shape_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", {"id": 1, "prompt": "Hi?"}, {"id": 2, "prompt": "Bad?", "kind": "adversarial"})
    found = data.read_file(file)
    assert [(p.id, p.text, p.kind) for p in found] == [("1", "Hi?", "benign"), ("2", "Bad?", "harmful")]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": 1}, "'prompt' must be a text"),
        ({"id": 1, "prompt": " "}, "'prompt' must be a text"),
        ({"id": 1, "prompt": "x", "kind": "bad"}, "adversarial, borderline or cooperating"),
        ([1], "expected an object"),
    ],
)
def test_a_malformed_row_is_an_error_with_its_line(tmp_path: Path, row: object, why: str) -> None:
    file = write(tmp_path / "p.jsonl", {"id": 0, "prompt": "fine"}, row)
    with pytest.raises(InputError, match=rf"p\.jsonl.*2.*{why}"):
        data.read_file(file)


def test_repeated_ids_and_empty_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the id '1' stands twice"):
        data.read_file(write(tmp_path / "a.jsonl", {"id": 1, "prompt": "x"}, {"id": 1, "prompt": "y"}))
    with pytest.raises(UserError, match="no prompt in it"):
        data.read_file(write(tmp_path / "b.jsonl"))


def test_evaluation_never_falls_back_to_training_prompts(tmp_path: Path) -> None:
    # Upstream: without an evaluation file the training prompts were evaluated on.
    mine = write(tmp_path / "p.jsonl", {"id": 1, "prompt": "How do I water a cactus?"})
    with pytest.raises(UserError, match=r"give prompts\.eval_file"):
        data.build(PromptSettings(file=mine), tmp_path)
    same = write(tmp_path / "e.jsonl", {"id": 9, "prompt": "how do I  water a CACTUS?"})
    with pytest.raises(UserError, match="1 of 1 evaluation prompts are training prompts too, the first '9'"):
        data.build(PromptSettings(file=mine, eval_file=same), tmp_path)
    data.build(PromptSettings(source="default", file=mine), tmp_path)
    assert len(rows.load(tmp_path, rows.EVAL_PROMPTS)) == 24


def test_another_content_of_a_file_is_another_key(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", {"id": 1, "prompt": "x"})
    before = data.identity(PromptSettings(file=file))
    write(file, {"id": 1, "prompt": "y"})
    assert data.identity(PromptSettings(file=file)) != before
    with pytest.raises(UserError, match=r"prompts\.file=.*no such file"):
        data.identity(PromptSettings(file=tmp_path / "absent.jsonl"))
