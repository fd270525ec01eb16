"""A study's description, and the settings and run folder that a command's options name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.errors import UserError

if TYPE_CHECKING:
    from alignment_core.config import Settings
    from alignment_core.evaluation.results import Results

_MOST_SEEDS = 1000


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
    """`13,14,15` or `13-15` to numbers, ranges with both ends; each seed may stand once."""
    seeds = tuple(seed for part in text.split(",") for seed in _seeds_of(part.strip(), text))
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UserError(f"--seeds {text}: each seed may stand once, and none may be negative")
    return seeds


def _seeds_of(part: str, text: str) -> Sequence[int]:
    """The seeds of one number or one range."""
    ends = re.fullmatch(r"(\d+)\s*-\s*(\d+)", part)
    if ends is None:
        try:
            return (int(part),)
        except ValueError as error:
            wanted = "write whole numbers, for example --seeds 13,14,15 or --seeds 13-17"
            raise UserError(f"cannot read --seeds {text!r}: {wanted}") from error
    first, last = (int(end) for end in ends.groups())
    if not first <= last < first + _MOST_SEEDS:
        most = "the smaller seed first" if last < first else f"at most {_MOST_SEEDS} seeds in a range"
        raise UserError(f"--seeds {text}: write {most}, for example --seeds 13-17")
    return range(first, last + 1)


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
