"""A model of the user's own with a chat template that is none of ours, through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core import io
from alignment_core.models import miniature
from drift_dpo.cli import app

CHATML = """{%- for turn in messages -%}
  {{- '<|begin|>' ~ turn.role ~ '\\n' ~ turn.content ~ '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|begin|>assistant\\n' -}}{%- endif -%}
"""
SMALL = Path(__file__).parents[3] / "tests" / "small" / "drift-dpo.toml"


def command(name: str, model: Path, runs: Path, *words: str) -> Any:
    return CliRunner().invoke(app, [name, "--runs", str(runs), "--config", str(SMALL), f"model.name={model}", *words])


def test_a_model_is_trained_and_asked_in_its_own_format(tmp_path: Path) -> None:
    model = miniature.build(tmp_path / "mine", template=CHATML, hidden=16, layers=1)
    shown = command("run", model, tmp_path / "runs", "--dry-run")
    said = "mine: the tokenizer's own chat template is used."
    assert f"chat template: {said}" in shown.output
    checked = command("doctor", model, tmp_path / "runs")
    assert f"ok           chat template of {model}: {said}" in checked.output
    done = command("run", model, tmp_path / "runs", "stage_a.max_length=1024", "stage_b.max_length=1024")
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    (run,) = (tmp_path / "runs" / "drift-dpo").glob("tiny-*")
    assert io.read_json(run / "results.json")["notes"] == [said]
    assert "own chat template is used." in (run / "report.html").read_text("utf-8")
    (trained,) = (tmp_path / "runs" / "drift-dpo" / "steps").glob("stage_a-*/train_report.json")
    assert io.read_json(trained)["mask"]["text"].endswith("<|end|>")


@pytest.mark.parametrize(("template", "said"), [
    (None, "its tokenizer has no chat template; set model.template=plain for a base model, or to the model's family"),
    pytest.param("{{ 10 ** (10 ** 9) }}", "takes more than 5 s of processor time", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_model_without_a_usable_template_is_one_line(tmp_path: Path, template: str | None, said: str) -> None:
    model = miniature.build(tmp_path / "mine", template=template, hidden=16, layers=1)
    for words in (["--dry-run"], []):
        done = command("run", model, tmp_path / "runs", *words)
        assert done.exit_code == 2
        (line,) = done.output.splitlines()
        assert said in line
    checked = command("doctor", model, tmp_path / "runs")
    assert checked.exit_code == 3
    assert said in checked.output
