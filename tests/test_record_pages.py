"""The committed records' pages say what their results say, in a stranger's words, and hold nothing that loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alignment_core.cli.study import installed, report_spec
from alignment_core.evaluation import results
from alignment_core.report import page, summary
from alignment_core.text import for_html

ROOT = Path(__file__).resolve().parents[1]
RECORDS = sorted(p.parent for p in ROOT.glob("studies/*/results/*/results.json"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda p: f"{p.parent.parent.name}/{p.name}")
def test_a_records_page_opens_with_its_own_verdict(record: Path) -> None:
    found = results.read(record / "results.json")
    spec = report_spec(installed(found.study), found)
    text = (record / "report.html").read_text(encoding="utf-8")
    verdict = summary.headline(found, spec)
    assert f'<p class="verdict">{for_html(verdict)}</p>' in text
    assert f'<p class="question">{for_html(spec.question)}</p>' in text
    assert for_html(summary.basis(found, page.About.of(record).config, summary.asked(found, spec))) in text
    assert not re.search(r"\b[A-Z]\d\b|_", verdict)  # no hypothesis by its number alone, no key
    assert verdict.endswith(".")
    assert not re.search(r'<script|<img|<link|<iframe|(src|srcset|href|action)="(?!#)', text)
    assert f"{found.study} run --preset {found.preset} --seeds" in text
    assert len(text) < 1_000_000
