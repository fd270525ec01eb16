"""The public sets' own file shapes, from small files: data for every stage, and SFT on the real rows among them."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from drift_dpo.cli import app


def _sources(samples: Path, benign: str) -> list[str]:
    return [
        "data.sources=public",
        "data.pku_set=full",
        f"data.dolly.path={samples / benign}",
        f"data.pku.path={samples / 'SYNTHETIC_pku_saferlhf.jsonl'}",
        f"data.wildjailbreak.path={samples / 'SYNTHETIC_wildjailbreak_train.tsv'}",
        "data.stage_a_size=40",
        "data.stage_b_size=40",
    ]


def _step(runs: Path, name: str) -> Path:
    (found,) = runs.glob(f"drift-dpo/steps/{name}-*")
    return found


def test_data_on_dolly_pku_and_wildjailbreak_files_reports_the_shortfall(shared_data: Path, tmp_path: Path) -> None:
    words = ["data", "--runs", str(tmp_path), *_sources(shared_data / "samples", "dolly_real_rows.jsonl")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    report = json.loads((_step(tmp_path, "data") / "data_report.json").read_text())
    assert any(s["wanted"] > s["got"] for s in report["shortfalls"]), "8 rows cannot fill a stage of 40"


def test_stage_a_trains_on_real_rows(shared_data: Path, tmp_path: Path) -> None:
    samples = shared_data / "samples"
    for benign in ("dolly_real_rows.jsonl", "alpaca_format_from_seed_tasks.jsonl"):
        words = ["sft", "--runs", str(tmp_path / benign), *_sources(samples, benign)]
        words += ["data.test_benign=2", "stage_a.max_steps=2", "stage_b.max_steps=1", "stage_a.max_length=384"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
        report = json.loads((_step(tmp_path / benign, "stage_a") / "train_report.json").read_text())
        assert report["steps"] == 2
        assert report["tokens_trained"] > 0
        assert report["mask"]["masked"] > 0, "the prompt's tokens must not be trained on"
