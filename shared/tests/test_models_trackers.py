"""Trackers: where they write, that one that cannot be used is told, and that no step's key depends on them."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest

from alignment_core.config import TrainSettings, validate
from alignment_core.errors import UserError
from alignment_core.models import trackers
from alignment_core.pipeline.step import step_key


@pytest.fixture
def clean(monkeypatch):
    """No tracker's variable is set, and none stays set."""
    for name in [n for n in os.environ if n.startswith(("WANDB", "TRACKIO", "TENSORBOARD"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(trackers, "_ours", {})


def module(monkeypatch, name, **members):
    made = types.ModuleType(name)
    vars(made).update(members)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def test_none_by_default_whatever_is_installed(clean, monkeypatch, tmp_path):
    module(monkeypatch, "wandb")
    assert TrainSettings().report_to == ()
    assert trackers.prepare((), tmp_path) == {"report_to": "none"}
    assert not any(name.startswith("WANDB") for name in os.environ)
    assert list(tmp_path.iterdir()) == []


def test_they_write_beside_the_steps_each_training_under_its_own_name(clean, monkeypatch, tmp_path):
    module(monkeypatch, "trackio")
    run = tmp_path / "drift-dpo"
    more = trackers.prepare(("trackio",), run / "steps" / ".stage_a-s13-ab.host+1+2.partial")
    assert more == {
        "report_to": ["trackio"],
        "run_name": "stage_a-s13-ab",
        "project": "drift-dpo",
        "trackio_static_space_id": False,  # nothing is put on a hub
    }
    assert os.environ["TRACKIO_DIR"] == str(run / "trackers" / "trackio")
    assert os.environ["WANDB_DIR"] == str(run / "trackers")
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(run / "trackers" / "tensorboard" / "stage_a-s13-ab")
    trackers.prepare(("trackio",), run / "steps" / ".dpo-s13-cd.host+1+2.partial")
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(run / "trackers" / "tensorboard" / "dpo-s13-cd")


def test_what_the_user_set_goes_before(clean, monkeypatch, tmp_path):
    module(monkeypatch, "trackio")
    os.environ["WANDB_DIR"] = "/mine"
    trackers.prepare(("trackio",), tmp_path / "a")
    assert os.environ["WANDB_DIR"] == "/mine"
    assert Path(os.environ["TRACKIO_DIR"]) == tmp_path / "a" / "trackers" / "trackio"  # no run: in the folder itself


def test_one_that_is_not_installed_or_not_logged_in_is_one_line(clean, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match=r"names trackio, which is not installed; install it \(pip install trackio\)"):
        trackers.check(("trackio",))
    module(monkeypatch, "wandb", login=lambda prompt, verify: prompt or verify)
    with pytest.raises(UserError, match="no login; run wandb login, or set WANDB_MODE=offline"):
        trackers.check(("wandb",))
    os.environ["WANDB_MODE"] = "offline"
    trackers.check(("wandb",))


def test_an_unknown_tracker_is_told_with_the_known_ones():
    with pytest.raises(UserError, match="wandb"):
        validate(TrainSettings, {"report_to": ["wndb"]}, "test")


def test_no_key_depends_on_a_tracker_and_the_settings_keep_it():
    told, plain = TrainSettings(report_to=("wandb",)), TrainSettings()
    assert step_key("sft", {"train": told}, 13, [], {}, "") == step_key("sft", {"train": plain}, 13, [], {}, "")
    assert told.model_dump(mode="json")["report_to"] == ["wandb"]
