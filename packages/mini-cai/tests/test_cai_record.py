"""The study's page and its record: every figure on the page is one of results.json, and the record keeps its shape."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alignment_core.evaluation import hypotheses, results

STUDY = Path(__file__).parents[3] / "studies" / "mini-cai"
RECORD = STUDY / "results" / "tiny"
pytestmark = pytest.mark.skipif(not (RECORD / "results.json").exists(), reason="no record here")
METRICS = ("rubric_mean", "mean_score", "safe_rate", "harmful_refusal_rate", "false_refusal_rate", "over_refusal_rate")


def rows(title: str) -> list[list[str]]:
    """Cells of the page's table under a heading of that title."""
    page = (STUDY / "README.md").read_text(encoding="utf-8")
    part = page.split(f"### {title}\n")[1].split("\n### ")[0].split("\n## ")[0]
    table = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def shown(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    assert value is not None
    assert low is not None
    assert high is not None
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def test_levels_on_the_page_are_the_records() -> None:
    found = results.read(RECORD / "results.json")
    table = rows("Levels")
    assert {name for name, *_ in table} >= {"Baseline", "Best", "Random"}
    for name, *cells in table:
        for metric, cell in zip(METRICS, cells, strict=True):
            measured = found.headline(metric, name.lower())
            assert measured is not None
            assert cell == shown(measured.value, measured.low, measured.high), (name, metric)


def test_differences_on_the_page_are_the_records() -> None:
    found = results.read(RECORD / "results.json")
    over = {(c.metric, c.a, c.b): c for c in found.comparisons if c.seed is None}
    table = rows("Differences")
    assert len(table) >= 5
    for name, metric, cell in table:
        b, a = re.split(r" − ", name.lower())
        c = over[metric, a, b]
        assert cell == shown(c.difference, c.low, c.high, "+"), name


def test_the_record_has_five_seeds_and_todays_hypotheses() -> None:
    found = results.read(RECORD / "results.json")
    assert len(found.seeds) == 5
    assert found.hypotheses_sha256 == hypotheses.read("mini_cai").sha256
    (primary,) = [c for c in found.comparisons if c.role == "primary" and c.seed is None]
    assert (primary.metric, primary.a, primary.b) == ("rubric_mean", "random", "best")
    assert primary.method.startswith("crossed")


def test_the_record_holds_no_weights_and_no_replies() -> None:
    assert not [p for p in RECORD.rglob("*") if p.suffix in {".safetensors", ".jsonl", ".pt", ".bin", ".csv"}]
