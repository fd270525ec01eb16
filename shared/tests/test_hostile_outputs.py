"""Ways out for hostile text that the guarantees' campaign found: LaTeX rows, log.txt, addresses and pictures' names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from alignment_core.config import Settings
from alignment_core.evaluation.metrics import Metric
from alignment_core.evaluation.results import Measurement, Results
from alignment_core.pipeline.run import Run
from alignment_core.report import documents, overview
from alignment_core.report.spec import FigureSpec, ReportSpec, SubjectSpec, generic
from alignment_core.text import for_latex


@pytest.mark.parametrize(("text", "written"), [("[2cm] x", "{[}2cm] x"), (" *x", "{*}x"), ("a [b] *", "a [b] *")])
def test_a_latex_row_is_no_argument_of_the_row_before(text: str, written: str) -> None:
    assert for_latex(text) == written


def test_a_runs_log_steers_no_terminal(tmp_path: Path) -> None:
    with Run.open(tmp_path, "synthetic", "tiny", Settings(), (1,)):
        logging.getLogger("alignment_core").warning("\x1b]52;c;eA==\x07 \u202egnp\u2028 \x9b é\ttab %s", "\ud800")
    text = (tmp_path / "log.txt").read_text("utf-8")
    assert "\\x1b]52;c;eA==\\x07 \\u202egnp\\u2028 \\x9b é\ttab \\ud800\n" in text


@pytest.mark.parametrize("name", ["javascript:alert(1)", "data:text", "a#b?c%d", "-é "])
def test_a_run_folders_name_is_no_address(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "report.html").write_text("x")
    results = Results(study="s", preset="p", seeds=(1,))
    href = overview.OverviewRun(tmp_path / name, results, generic(results)).href(tmp_path / "report.html")
    assert not set(href) & set(":#?() ")
    assert href.endswith("/report.html")


def test_a_picture_keeps_its_own_address_whatever_it_is_called(tmp_path: Path) -> None:
    measured = Measurement(metric="m_rate", subject="s", value=0.5, method="w", n=3)
    figure = FigureSpec("states", "states", "x](http://evil.example) [y")
    spec = ReportSpec("t", "", (SubjectSpec("s", "s"),), (Metric("m_rate", "m"),), figures=(figure,))
    (tmp_path / "states.png").write_bytes(b"")
    text = documents.markdown(
        Results(study="s", preset="p", seeds=(1,), measurements=(measured,)), spec, None, tmp_path
    )
    (line,) = (line for line in text.splitlines() if line.startswith("!["))
    assert line.count("[") == line.count("]") == line.count("](") == 1
    assert line.endswith("/states.png)")
