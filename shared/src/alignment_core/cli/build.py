"""A study's command line, built from its description.

`build(Study(...))` gives a typer app with `run`, one command a step, `sweep`, `presets`, `show`, `settings`, `report`,
`record` and `doctor`. Nothing heavy is imported before a command needs it: the description names modules as text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment_core.cli import commands as plain
from alignment_core.cli.guard import guarded
from alignment_core.cli.launch import execute
from alignment_core.cli.study import Options, Study
from alignment_core.cli.sweep import sweep
from alignment_core.errors import UserError

__all__ = ["Study", "build"]

_PRESET = Annotated[str, typer.Option(help="Settings to start from; `presets` lists them.")]
_CONFIG = Annotated[Path | None, typer.Option(help="A TOML file laid over the preset; `show` writes one.")]
_SEEDS = Annotated[
    list[str] | None, typer.Option(help="Training seeds: 13,14,15 or a range, 13-17.", show_default="13")
]
_JUDGE = Annotated[
    str | None, typer.Option(help="Judges, separated by commas; the first decides. As the setting `judge`.")
]
_RUNS = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
_DRY = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
_ACCEPT = Annotated[
    bool,
    typer.Option("--accept-missing", help="Count calls to a server that failed in passing as missing, and go on."),
]
_REMAKE = Annotated[bool, typer.Option("--remake", help="Make again what changed code made, however long it takes.")]
_KEEP = Annotated[
    bool, typer.Option("--keep-changed", help="Keep trainings although their code changed; the results name them.")
]
_QUIET = Annotated[bool, typer.Option("--quiet", help="Only warnings and the result.")]
_LEVEL = Annotated[str, typer.Option(help="debug, info, warning or error.")]
_OVER = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, e.g. train.lr=1e-4.")]

_DESTINATION = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the record goes, under the run's name.")]

_GRID = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=A,B,...", help="Settings; one with several values, separated by commas, is varied."),
]
_LAUNCHER = Annotated[
    str, typer.Option(help="local:N (N jobs at a time on this machine), slurm, or print (only the commands).")
]
_GPUS = Annotated[int, typer.Option(min=0, help="GPUs of a job; more than one share its run by torchrun.")]
_SLURM = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="A parameter of submitit for Slurm; may be given several times. time (minutes) is needed; others: "
        "partition, mem=64GB, cpus_per_task, account, constraint.",
    ),
]

_NONE = inspect.Parameter.empty
_OVERRIDES: Mapping[str, tuple[Any, Any]] = {"overrides": (_OVER, None)}
_RECORD: Mapping[str, tuple[Any, Any]] = {"folder": (_DESTINATION, _NONE), **_OVERRIDES}
_SWEEP: Mapping[str, tuple[Any, Any]] = {
    "grid": (_GRID, None),
    "launcher": (_LAUNCHER, "local:1"),
    "gpus": (_GPUS, 0),
    "slurm": (_SLURM, None),
}

_SHARED: tuple[tuple[str, Any, Any], ...] = (
    ("preset", _PRESET, "tiny"),
    ("config", _CONFIG, None),
    ("seeds", _SEEDS, None),
    ("judge", _JUDGE, None),
    ("runs", _RUNS, Path("runs")),
    ("dry_run", _DRY, False),
    ("accept_missing", _ACCEPT, False),
    ("remake", _REMAKE, False),
    ("keep_changed", _KEEP, False),
    ("quiet", _QUIET, False),
    ("log_level", _LEVEL, "info"),
)


def command(
    study: Study, body: Callable[..., None], text: str, own: Mapping[str, tuple[Any, Any]] = _OVERRIDES
) -> Callable[..., None]:
    """A typer command around `body` with the shared options, the study's switches, and `own`: annotation and default
    of each. The settings that switches stand for go before `own`'s overrides."""
    flags = {flag.lstrip("-").replace("-", "_"): (flag, *about) for flag, about in study.switches.items()}
    parameters: list[tuple[str, Any, Any]] = [(name, kind, default) for name, (kind, default) in own.items()]
    parameters += _SHARED
    for name, (flag, setting, about) in flags.items():
        # A switch that stands for `key=` takes the value.
        kind: Any = str | None if setting.endswith("=") else bool
        default = None if setting.endswith("=") else False
        parameters.append((name, Annotated[kind, typer.Option(flag, help=about)], default))

    def function(**values: Any) -> None:
        given = {name: values.pop(name) for name in flags}
        switched = [flags[n][1] + (v if isinstance(v, str) else "") for n, v in given.items() if v not in (None, False)]
        judge, seeds = values.pop("judge"), values.pop("seeds") or ["13"]
        if len(seeds) > 1:
            raise UserError(f"--seeds is given {len(seeds)} times; give all in one: --seeds {','.join(seeds)}")
        switched += [] if judge is None else [f"judge={judge}"]
        overrides = (*switched, *(values.pop("overrides", None) or ()))
        extra = {name: values.pop(name) for name in own if name != "overrides"}
        body(Options(**values, seeds=seeds[0], overrides=overrides), **extra)

    by_name = inspect.Parameter.KEYWORD_ONLY
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, by_name, default=default, annotation=a) for name, a, default in parameters]
    )
    function.__annotations__ = {name: a for name, a, _ in parameters}
    function.__doc__ = text
    return guarded(function)


def build(study: Study) -> typer.Typer:
    """The study's typer app."""
    app = typer.Typer(help=study.title, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    commands = {"run": command(study, partial(execute, study, None), "Run the whole study and print its table.")}
    for name, text in study.steps:
        commands[name] = command(study, partial(execute, study, name), text)
    text = "Run every combination of settings and seeds as a job of its own, and print one table."
    commands["sweep"] = command(study, partial(sweep, study), text, _SWEEP)
    commands |= plain.plain_commands(study)
    text = "Copy a finished run's record (settings, results, report; no weights, no replies) into FOLDER."
    commands["record"] = command(study, partial(plain.record, study), text, _RECORD)
    text = "Check what a run with these settings needs, and say how to mend what is missing."
    commands["doctor"] = command(study, partial(plain.doctor, study), text)
    for name, function in commands.items():
        app.command(name)(function)
    return app
