"""The check of a study's mapping: what stands for the original's every option exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from alignment_core.config import Settings
from alignment_core.evaluation import results
from alignment_core.pipeline.runlist import steps_folder


def check_mapping(
    file: Path,
    config: Settings,
    app: typer.Typer,
    run_folder: Path,
    more: Mapping[str, Callable[[str], bool]] | None = None,
) -> None:
    """Every row `| original | kind | ours |` of a study's mapping holds: ours is there.

    `key`: a setting of `config`; `command`: of `app`; `file`: a file of the run or of its steps; `metric`: measured in
    its results.json; `none`: left out, so ours is empty; `more`: the study's own kinds.
    """
    found = results.read(run_folder / "results.json")
    commands = {c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands}
    kinds: dict[str, Callable[[str], bool]] = {
        "key": lambda key: _has(config, key),
        "command": commands.__contains__,
        "file": lambda pattern: any(run_folder.rglob(pattern)) or any(steps_folder(run_folder).rglob(pattern)),
        "metric": found.metrics.__contains__,
        "none": lambda nothing: not nothing,
        **(more or {}),
    }
    lines = [line.split("|")[1:4] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(lines) > 40, f"{file} maps almost nothing"
    for original, kind, ours in ([cell.strip() for cell in line] for line in lines[1:]):
        assert kind in kinds, f"{original}: no kind {kind!r}"
        assert kinds[kind](ours.strip("`")), f"{original}: no {kind} {ours}"


def _has(config: Settings, key: str) -> bool:
    """Whether a dotted key is a setting."""
    value: Any = config
    for part in key.split("."):
        if part not in getattr(type(value), "model_fields", {}):
            return False
        value = getattr(value, part)
    return True
