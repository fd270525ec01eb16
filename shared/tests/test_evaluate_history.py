"""What results say of how their steps were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment_core.evaluation import history
from alignment_core.pipeline.run import Used
from alignment_core.pipeline.step import Step


def used(name: str, seed: int | None, torch: str, other_code: str = "", **facts: Any) -> Used:
    code = {"code": {"digest": f"code of {name}"}, "versions": {"torch": torch, "python": "3.11.7"}}
    return Used(Step(name, f"key of {name}", Path(name), seed), {**code, **facts}, other_code)


def test_steps_stand_by_name_and_seed_whatever_the_order_of_making() -> None:
    steps = [used("dpo", 14, "2.10"), used("data", None, "2.10"), used("dpo", 13, "2.10")]
    found = history.of(steps)
    assert [(s.name, s.seed) for s in found["steps"]] == [("data", None), ("dpo", 13), ("dpo", 14)]
    assert {s.code for s in found["steps"]} == {"code of data", "code of dpo"}
    assert found["notes"] == ()
    assert history.of(steps[::-1]) == found


def test_what_was_kept_although_its_code_changed_is_said() -> None:
    (said,) = history.of([used("stage_a", 13, "2.10", "models.loop changed")])["notes"]
    assert said == "seed 13: stage_a was made by other code than today's and kept: models.loop changed."
    (said,) = history.of([used("stage_a", 13, "2.10", continued_by="abc")])["notes"]
    assert said == "seed 13: stage_a was begun by other code than the code that finished it."


def test_what_the_steps_noted_is_said_once() -> None:
    steps = [used("stage_a", 13, "2.10", notes=["One.", "Two."]), used("stage_a", 14, "2.10", notes=["Two."])]
    assert history.of(steps)["notes"] == ("One.", "Two.")


def test_several_versions_are_named() -> None:
    (said,) = history.of([used("a", None, "2.10"), used("b", None, "2.11")])["notes"]
    assert said == "The steps were made with several versions: torch 2.10 and 2.11."
