"""The report of a finished run imports no torch: a fresh interpreter writes it again and lists its modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alignment_core.evaluation import results
from alignment_core.evaluation.results import Hypothesis, Measurement, Results
from neuron_brittleness.report import headline

COMMAND = """
import sys
from neuron_brittleness.cli import app
try:
    app(["report", sys.argv[1]])
except SystemExit as end:
    assert end.code in (0, None), end.code
heavy = [m for m in ("torch", "transformers", "peft", "trl", "datasets") if m in sys.modules]
assert not heavy, heavy
"""


def found(**verdicts: str) -> Results:
    decided = [
        Hypothesis(name=name, claim="c", rule="r", verdict=verdict, because="b")  # type: ignore[arg-type]
        for name, verdict in verdicts.items()
    ]
    ratio = Measurement(
        metric="drift_ratio", subject="set_diff", value=1.06, low=1.02, high=1.11, method="log ratio, layers", n=4
    )
    return Results(
        study="neuron-brittleness", preset="tiny", seeds=(13,), measurements=(ratio,), hypotheses=tuple(decided)
    )


def test_the_report_needs_no_torch(tmp_path: Path) -> None:
    results.write(tmp_path / "results.json", found(H1="contradicted", H2="supported"))
    done = subprocess.run([sys.executable, "-c", COMMAND, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "report.html").is_file()


def test_the_verdict_is_a_sentence_whatever_was_decided() -> None:
    said = headline(found(H1="contradicted", H2="supported", C1="supported", T1="inconclusive"))
    assert said == (
        "Under fine-tuning the safety-critical weights drift as much as matched random ones (ratio 1.06 [1.02, 1.11], "
        "within the margin). Zeroing them takes more refusals than zeroing matched ones: supported. Others take over "
        "when they are frozen: inconclusive."
    )
    assert "drift more than matched random ones (ratio 1.06 [1.02, 1.11])." in headline(found(H1="supported"))
    assert "have no decided drift" in headline(found(H1="inconclusive"))
