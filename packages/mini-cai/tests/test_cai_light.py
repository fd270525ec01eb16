"""What must answer at once imports no torch: a fresh interpreter runs each command and lists its modules.

A dry run asks torch which device there is, for a step's key holds it, and loads nothing that trains or generates."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMAND = """
import sys
from mini_cai.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert end.code in (0, None), end.code
heavy = {"torch", "transformers", "peft", "trl", "datasets"} & sys.modules.keys()
assert heavy <= ({"torch"} if "--dry-run" in sys.argv else set()), heavy
"""
REPORT = "import sys, mini_cai.study, mini_cai.metrics, mini_cai.report\nassert 'torch' not in sys.modules\n"


@pytest.mark.parametrize(
    "words",
    ["--help", "run --help", "chat --help", "show paper", pytest.param("run --dry-run", marks=pytest.mark.slow)],
)
def test_no_torch(words: str) -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND, *words.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_report_needs_none() -> None:
    done = subprocess.run([sys.executable, "-c", REPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
