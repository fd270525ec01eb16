"""Models that users bring, through the commands they would type: what is said, and what is refused before a step."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.config import LoraSettings

STUDIES = ("drift_dpo", "orth_refusal", "mini_cai", "neuron_brittleness")
Make = Callable[..., Path]


def call(study: str, *words: str) -> Any:
    return CliRunner().invoke(importlib.import_module(f"{study}.cli").app, list(words), env={"COLUMNS": "300"})


def given(folder: Path) -> list[str]:
    return [f"model.name={folder}", "model.template=plain", "model.device=cpu"]


@pytest.mark.parametrize("study", STUDIES)
def test_a_mixture_of_experts_is_refused_before_the_first_step(study: str, tiny_model: Make, tmp_path: Path) -> None:
    model = given(tiny_model("qwen3_moe"))
    for words in (["run"], ["run", "--dry-run"]):
        done = call(study, *words, "--runs", str(tmp_path / "runs"), *model)
        assert done.exit_code == 2, done.output
        [line] = [line for line in done.output.splitlines() if line.startswith("error: ")]
        assert "is a mixture of experts" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("family", "said"), [
    ("gemma3", "left as they are: model.vision_tower"),
    ("phi3", "LoRA r=16 on down_proj, gate_up_proj, o_proj, qkv_proj"),
    ("gpt_neo", "LoRA r=16 on c_fc, c_proj, k_proj, out_proj, q_proj, v_proj"),
])  # fmt: skip
def test_the_plan_and_the_doctor_say_what_a_folder_holds(
    family: str, said: str, tiny_model: Make, tmp_path: Path
) -> None:
    names = json.dumps(LoraSettings().targets)
    model = [*given(tiny_model(family)), "lora.r=16", f"lora.targets={names}"]
    for words in (["run", "--dry-run"], ["doctor"]):
        done = call("drift_dpo", *words, "--runs", str(tmp_path), *model)
        assert done.exit_code == 0, done.output
        assert said in done.output
        assert "linear matrices hold 100.0% of the decoder layers' weights" in done.output
        assert "catalogue" not in done.output
