"""Runs of a study in tests: where they lie, and what each step's work is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

from alignment_core.pipeline.run import Run
from alignment_core.pipeline.step import Step


def run_folders(study_folder: Path) -> list[Path]:
    """The folders of the runs of a study, in `runs/<study>`; the steps that they share are beside them."""
    return sorted(path.parent for path in study_folder.glob("*/config.json"))


def seeds_given(
    study: Callable[[Run, Any, int], Generator[str, None, Any]], config: Any, seed: int
) -> dict[str, tuple[int | None, int | None]]:
    """Of every step whose work takes a `seed`: the step's own seed, and the one that its work is given."""
    found: dict[str, tuple[int | None, int | None]] = {}

    class Noting(Run):
        def do(self, name: str, work: Callable[[Path], None], **more: Any) -> Step:
            function, args, kwargs = _called(work)
            given = inspect.signature(function).bind_partial(*args, **kwargs).arguments
            if "seed" in given:
                found[name] = (more.get("seed"), given["seed"])
            return super().do(name, work, **more)

    for _ in study(Noting(Path("run"), planning=True), config, seed):
        pass
    return found


def _called(work: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The function behind nested partials, and the arguments it is given."""
    if not isinstance(work, partial):
        return work, (), {}
    function, args, kwargs = _called(work.func)
    return function, (*args, *work.args), {**kwargs, **work.keywords}
