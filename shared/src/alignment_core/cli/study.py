"""A study's description, and the settings and run folder that a command's options name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.errors import UserError

if TYPE_CHECKING:
    from alignment_core.config import Settings
    from alignment_core.evaluation.results import Results


@dataclass(frozen=True)
class Study:
    """What a study's command line is built from; `module:name` texts are imported when a command needs them."""

    name: str
    """The command, and the folder under runs/."""
    package: str
    """The import package, which holds presets/ and hypotheses.toml."""
    config: str | type[Settings]
    """Its settings."""
    title: str
    """One line for --help."""
    steps: tuple[tuple[str, str], ...]
    """Name and help of each part that `run` yields, in order; each becomes a command that stops after it."""
    run: str
    """`run(run, config, seed)`: a generator that yields a part's name when that part is complete, and returns a
    `SeedOutput`. It reads no step's files, so that a dry run can walk it."""
    analysis: str
    """The study's `Analysis`."""
    report: str
    """`report(results)`: the study's `ReportSpec`."""
    files: str = ""
    """`files(folder, evidence, results)`: writes further files of the study's own into a finished run's folder."""
    needs: str = ""
    """`needs(config)`: data sets that the run takes from the hub, as ("dataset", repository, revision), and files that
    it must be given, as ("file", setting, path or None)."""
    switches: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Flag to (setting it stands for, help), for example `--controls` to (`controls=true`, "..."); a setting that ends
    in `=` makes the flag take the value."""


@dataclass(frozen=True)
class Options:
    """The options that `run` and every step share."""

    preset: str
    config: Path | None
    seeds: str
    runs: Path
    dry_run: bool
    accept_missing: bool
    remake: bool
    keep_changed: bool
    quiet: bool
    log_level: str
    overrides: tuple[str, ...]


def load(reference: str) -> Any:
    """What a `module:name` text names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def parse_seeds(text: str) -> tuple[int, ...]:
    """`13,14,15` to numbers; each may stand once."""
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"cannot read --seeds {text!r}: write whole numbers, for example --seeds 13,14,15") from error
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UserError(f"--seeds {text}: each seed may stand once, and none may be negative")
    return seeds


def settings(study: Study, preset: str, config: Path | None, overrides: Sequence[str]) -> tuple[Any, Any]:
    """The resolved settings, and those of the bare preset."""
    from alignment_core.config import resolve

    model = load(study.config) if isinstance(study.config, str) else study.config
    return resolve(model, study.package, preset, config, overrides), resolve(model, study.package, preset)


def target(study: Study, options: Options) -> tuple[Any, Path]:
    """The settings and the run folder that the options name."""
    from alignment_core.pipeline.run import run_folder

    config, bare = settings(study, options.preset, options.config, options.overrides)
    return config, run_folder(options.runs, study.name, options.preset, config, bare)


def installed(name: str) -> Study | None:
    """The study of that name if one is installed and says so by the entry point `alignment_core.studies`."""
    from importlib import metadata

    found = [e.load() for e in metadata.entry_points(group="alignment_core.studies", name=name)]
    return found[0] if found and isinstance(found[0], Study) else None


def report_spec(study: Study | None, results: Results) -> Any:
    """How the study wants its results shown; everything in plain tables where it is not installed."""
    from alignment_core.report import spec

    return spec.generic(results) if study is None else load(study.report)(results)
