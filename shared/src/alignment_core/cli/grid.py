"""The grid of a sweep: every combination of the varied settings with every seed, each the user's own `run`."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.cli.launch import check_files
from alignment_core.cli.study import Options, Study, parse_seeds, target
from alignment_core.errors import UserError

if TYPE_CHECKING:
    from alignment_core.pipeline.sweep import Job


@dataclass(frozen=True, eq=False)
class Value:
    """One combination of the varied settings."""

    texts: tuple[str, ...]
    """Of each varied setting."""
    label: str
    options: Options
    """With its settings among the overrides."""
    config: Any
    folder: Path
    """Of its run."""


@dataclass(frozen=True)
class Sweep:
    """What is to be run."""

    study: Study
    keys: tuple[str, ...]
    values: tuple[Value, ...]
    seeds: tuple[int, ...]
    folder: Path

    def job(self, value: Value, seed: int, gpus: int = 0) -> Job:
        """The run of one value with one seed, a process a GPU where there are several."""
        return self._job(value, f"seed {seed}", (*_torchrun(gpus), *_program(), *_words(value.options, (seed,))))

    def last(self, value: Value, seeds: Sequence[int]) -> Job:
        """The run of one value with all seeds that are made."""
        return self._job(value, "all seeds", (*_program(), *_words(value.options, seeds)))

    def _job(self, value: Value, which: str, words: tuple[str, ...]) -> Job:
        from alignment_core.pipeline.sweep import Job

        name = f"{self.values.index(value)}-{re.sub(r'[^A-Za-z0-9_.=+-]+', '_', value.label)[:80]}"
        return Job(f"{value.label}, {which}", self.folder / "jobs" / f"{name}-{which.replace(' ', '-')}", words)


def plan(study: Study, options: Options, grid: Sequence[str]) -> Sweep:
    """The values and seeds, every setting of which is known and can be."""
    axes = _axes(options, grid)
    varied = {key: texts for key, texts in axes.items() if len(texts) > 1} or axes
    fixed = [f"{key}={texts[0]}" for key, texts in axes.items() if key not in varied]
    values: list[Value] = []
    for texts in itertools.product(*varied.values()):
        own = [f"{key}={text}" for key, text in zip(varied, texts, strict=True)]
        given = replace(options, overrides=(*options.overrides, *fixed, *own))
        config, folder = target(study, given)
        label = ", ".join(own)
        same = next((value for value in values if value.folder == folder), None)
        if same is not None:
            raise UserError(f"{same.label} and {label} are the same settings; each value may stand once")
        check_files(config)
        values.append(Value(texts, label, given, config, folder))
    seeds = parse_seeds(options.seeds)
    about = "\n".join([*(value.folder.name for value in values), *map(str, seeds)])
    name = f"{options.preset}-{'-'.join(varied)[:60]}-{hashlib.sha256(about.encode()).hexdigest()[:6]}"
    folder = options.runs / study.name / "sweeps" / name
    return Sweep(study, tuple(varied), tuple(values), seeds, folder)


def _axes(options: Options, grid: Sequence[str]) -> dict[str, list[str]]:
    """The values of each setting of the grid; `UserError` for a setting without, or given twice."""
    from alignment_core.pipeline.sweep import split_values

    if not grid:
        raise UserError("nothing to vary: write KEY=a,b, for example train.lr=1e-4,2e-4")
    axes: dict[str, list[str]] = {}
    taken = {item.partition("=")[0] for item in options.overrides}
    for item in grid:
        key, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not key:
            raise UserError(f"cannot read the setting {item!r}: write KEY=a,b, for example train.lr=1e-4,2e-4")
        if key in axes or key in taken:
            raise UserError(f"{key} is given twice; write all its values in one: {key}=a,b")
        axes[key] = split_values(text)
        if not all(axes[key]):
            raise UserError(f"{item}: a value is empty; write {key}=a,b, and quotes around a value with a comma")
    return axes


def _words(options: Options, seeds: Sequence[int]) -> tuple[str, ...]:
    """`run` with the user's own options, these seeds, and the settings."""
    words = ["run", "--preset", options.preset, "--seeds", ",".join(map(str, seeds)), "--runs", str(options.runs)]
    words += [] if options.config is None else ["--config", str(options.config)]
    words += ["--accept-missing"] if options.accept_missing else []
    words += ["--remake"] if options.remake else []
    words += ["--keep-changed"] if options.keep_changed else []
    words += ["--quiet"] if options.quiet else []
    words += [] if options.log_level == "info" else ["--log-level", options.log_level]
    return (*words, *options.overrides)


def _torchrun(gpus: int) -> tuple[str, ...]:
    """What starts one process a GPU."""
    if gpus < 2:
        return ()
    program = Path(sys.executable).with_name("torchrun")
    return (str(program), "--standalone", "--nproc-per-node", str(gpus), "--no-python")


def _program() -> tuple[str, ...]:
    """The words that started this command, up to the first of the user's: a script, or Python and how it was called."""
    before = len(sys.orig_argv) - len(sys.argv) + 1
    words = sys.orig_argv[1:before]
    if len(words) == 1 and os.access(words[0], os.X_OK):
        return (str(Path(words[0]).absolute()),)
    return (sys.executable, *words)
