"""A study's description, and what its commands do: settings, run folder, steps for every seed, errors in one line.

Exit codes: 0 done, 2 the user's mistake (one line), 1 our fault (one line, and where the traceback is), 130 Ctrl-C.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alignment_core.errors import NothingToReport, UserError

if TYPE_CHECKING:
    from alignment_core.cli.live import Plan
    from alignment_core.config import Settings


@dataclass(frozen=True)
class Study:
    """What a study's command line is built from; `module:name` texts are imported when a command needs them."""

    name: str
    """The command, and the folder under runs/."""
    package: str
    """The import package, which holds presets/."""
    config: str | type[Settings]
    """Its settings."""
    title: str
    """One line for --help."""
    steps: tuple[tuple[str, str], ...]
    """Name and help of each part that `run` yields, in order; each becomes a command that stops after it."""
    run: str
    """`run(run, config, seed)`: a generator that yields a part's name when that part is complete."""
    finish: str
    """`finish(run, config, seeds)`: writes results.json and the report, returns the results."""
    plan: str
    """`plan(config) -> str`: what --dry-run prints; needs neither torch nor a network."""
    report: str = ""
    """The study's `ReportSpec`, or a function of the results that returns it; empty: every table in plain words."""
    rewrite: str = ""
    """`rewrite(folder)`: writes a finished run's report again from the files in its folder; empty: from results.json
    and the replies and verdicts it names."""
    needs: str = ""
    """`needs(config)`: what the run takes from the hub, as (`model` or `dataset`, repository, revision or None), for
    `doctor`; empty: the model alone."""
    switches: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Flag to (setting it stands for, help), for example `--controls` to (`controls=true`, "..."); a setting that ends
    in `=` makes the flag take the value, for example `--judge` to (`judge=`, "...")."""


@dataclass(frozen=True)
class Options:
    """The options that `run` and every step share."""

    preset: str
    config: Path | None
    seeds: str
    runs: Path
    dry_run: bool
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


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what escapes a command into one line on stderr and the exit code that says whose fault it was."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except UserError as error:
            _say(f"error: {error}")
            raise typer.Exit(2) from None
        except NothingToReport as error:
            _say(f"error: {error}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            _say("interrupted; the same command continues")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader of our output went away (`... | head`); what is left in the buffer has nowhere to go.
            sys.stdout = None
            raise typer.Exit(0) from None
        except Exception as error:
            if kwargs.get("log_level") == "debug":
                raise
            _say(f"error: this is our fault: {type(error).__name__}: {error}; {_traceback(error)}")
            raise typer.Exit(1) from None

    return wrapper


def _say(line: str) -> None:
    from alignment_core.text import visible

    typer.echo(visible(" ".join(line.split())), err=True)


def _traceback(error: Exception) -> str:
    """Where the traceback is: in the run's log, or in a new file when there is no run."""
    import tempfile
    import traceback

    from alignment_core.pipeline.run import TRACEBACK

    for note in getattr(error, "__notes__", ()):
        if note.startswith(TRACEBACK):
            return str(note)
    with tempfile.NamedTemporaryFile("w", prefix="alignment-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return f"{TRACEBACK} {file.name}"


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


def execute(study: Study, until: str | None, options: Options) -> None:
    """Run the study for every seed, to the end or until the part `until` is complete."""
    from alignment_core.cli import torchrun
    from alignment_core.cli.live import Plan, quiet_level
    from alignment_core.pipeline.environment import prepare_process
    from alignment_core.pipeline.process_group import is_main_process
    from alignment_core.pipeline.run import Run

    with torchrun.same_user_errors():
        config, folder = target(study, options)
        seeds = parse_seeds(options.seeds)
        if options.dry_run:
            if is_main_process():
                typer.echo(f"run folder: {folder}\nseeds: {', '.join(map(str, seeds))}\n")
                typer.echo(load(study.plan)(config))
            return
        prepare_process()
        _check_trackers(config)
    parts = [name for name, _ in study.steps]
    plan = Plan(study.name, parts if until is None else parts[: parts.index(until) + 1], seeds)
    results = None
    with (
        terminal_log(study.package, quiet_level(options, is_main_process()), plan),
        torchrun.join() as group,
        torchrun.single_error(folder, group),
        Run.open(folder, study.name, options.preset, config, seeds, group=group) as run,
    ):
        for seed in seeds:
            plan.starts(seed)
            for part in load(study.run)(run, config, seed):
                plan.completes(part)
                if part == until:
                    break
        if until is None:
            plan.finishes()
            if run.is_main:
                results = load(study.finish)(run, config, seeds)
            run.barrier()
    if results is not None:
        show_results(study, folder, results)


def _check_trackers(config: Settings) -> None:
    """A tracker that cannot be used is told before the first step, not hours later before the first training."""
    from alignment_core.config import TrainSettings

    names = {name for _, part in config if isinstance(part, TrainSettings) for name in part.report_to}
    if names:
        load("alignment_core.models.trackers:check")(sorted(names))


def report_spec(study: Study | None, results: Any) -> Any:
    """How the study wants its results shown; every table in plain words where it does not say."""
    from alignment_core.report import spec

    if study is None or not study.report:
        return spec.generic(results)
    shown = load(study.report)
    return shown(results) if callable(shown) else shown


def installed(name: str) -> Study | None:
    """The study of that name if one is installed and says so by the entry point `alignment_core.studies`."""
    from importlib import metadata

    found = [e.load() for e in metadata.entry_points(group="alignment_core.studies", name=name)]
    return found[0] if found and isinstance(found[0], Study) else None


def show_results(study: Study, folder: Path, results: Any) -> None:
    """Print the table and say where the report is."""
    from rich.console import Console

    from alignment_core.report import tables

    Console(width=None if sys.stdout.isatty() else 140).print(tables.terminal(results, report_spec(study, results)))
    pages = [folder / name for name in ("report.html", "report.md", "results.json") if (folder / name).exists()]
    if pages:
        typer.echo(f"report: {pages[0]}")


def terminal_log(package: str, level: str, plan: Plan | None = None) -> Any:
    """Context in which our log lines reach the terminal; see `alignment_core.cli.live`."""
    from alignment_core.cli.live import terminal_log as context

    return context(("alignment_core", package), level, plan)
