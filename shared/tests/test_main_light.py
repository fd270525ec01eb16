"""What must answer at once never imports torch: each command runs in a fresh interpreter that lists its modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "bitsandbytes", "accelerate")
RUN = f"""
import sys
from alignment_core.cli.main import app
from alignment_core.cli import Study, build
study = Study("drift-dpo", "drift_dpo", "drift_dpo.config:DriftConfig", "t", (("sft", "s"),), "x:y", "x:y",
              "drift_dpo.report:spec")
try:
    (build(study) if sys.argv[1] == "study" else app)(sys.argv[2:])
except SystemExit as end:
    assert end.code in (0, None), end.code
heavy = [m for m in {HEAVY!r} if m in sys.modules]
assert not heavy, heavy
"""


def loaded(*arguments: str) -> None:
    if arguments[0] == "study":
        pytest.importorskip("drift_dpo", reason="a study's presets are needed")
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "arguments",
    [
        "study --help",
        "study run --help",
        "study presets",
        "study show tiny",
        "study settings",
        "core --help",
        "core compare --help",
        "core power --prompts 200 --seeds 5 --power 0.8",
        "core organism path",
    ],
)
def test_without_torch(arguments: str) -> None:
    loaded(*arguments.split())


def test_compare_without_torch(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [json.dumps({"prompt_id": i, "text": "I can't help with that."}) for i in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    loaded("core", "compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))


def test_report_without_torch(tmp_path: Path) -> None:
    value = {"study": "drift-dpo", "preset": "tiny", "seeds": [13], "versions": {}, "hypotheses_sha256": None,
             "measurements": [], "comparisons": [], "agreements": [], "hypotheses": []}  # fmt: skip
    run = tmp_path / "drift-dpo"
    run.mkdir()
    (run / "results.json").write_text(json.dumps(value))
    loaded("core", "report", str(tmp_path))
    loaded("study", "report", str(run))


def test_help_imports_no_settings_and_no_numbers() -> None:
    """Help is fast because it imports typer and little else."""
    code = "import sys\nimport alignment_core.cli\nprint([m for m in ('pydantic', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
