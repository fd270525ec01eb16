"""What a step runs is in its list: while the work of a step goes on, every call into a module of ours is noted, and
the module has to be among those that the step's digest covers. So no edit of code that ran can go unnoticed."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.pipeline.provenance import code_of, module_of
from alignment_core.pipeline.run import Run
from alignment_core.pipeline.step import Step

ROOT = Path(__file__).parents[1]
SMALL = Path(__file__).parent / "small"
STUDIES = ("drift-dpo", "neuron-brittleness", "orth-refusal", "mini-cai")
OURS = {
    str(path): ".".join(path.relative_to(src).with_suffix("").parts).removesuffix(".__init__")
    for src in (ROOT / "shared/src", *(ROOT / "packages").glob("*/src"))
    for path in src.rglob("*.py")
}
PATHS = {("alignment_core.pipeline.step", "Step.__truediv__")}
"""Functions that name a file of a step, and decide nothing else."""
SHOWN = {"alignment_core.pipeline.logfile", "alignment_core.cli.live"}
"""What shows a run to its user."""


@contextmanager
def noting(called: set[CodeType]) -> Iterator[None]:
    """Inside, every function that is called in this process is noted."""

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            called.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_every_module_that_runs_in_a_step_is_in_its_list(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside: set[str] = set()
    do = Run.do

    def watched(run: Run, name: str, work: Callable[[Path], None], **more: Any) -> Step:
        listed = set(code_of(module_of(work), *more.get("code", ())).modules)

        def noted(folder: Path) -> None:
            nonlocal outside
            called: set[CodeType] = set()
            with noting(called):
                work(folder)
            ran = {(OURS[c.co_filename], c.co_qualname) for c in called if c.co_filename in OURS}
            assert module_of(work) in {module for module, _ in ran}, name
            outside |= {f"{name}: {module}.{at}" for module, at in ran - PATHS if module not in listed | SHOWN}

        noted.__wrapped__ = work  # type: ignore[attr-defined]
        return do(run, name, noted, **more)

    monkeypatch.setattr(Run, "do", watched)
    app = importlib.import_module(f"{study.replace('-', '_')}.cli").app
    config = str(SMALL / f"{study}.toml")
    done = CliRunner().invoke(app, ["run", "--quiet", "--config", config, "--runs", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert outside == set()
