"""A study's command line, built from its description.

`build(Study(...))` gives a typer app with `run`, one command a step, `presets`, `show`, `settings`, `report`,
`record` and `doctor`. Nothing heavy is imported before a command needs it: the description names modules as text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment_core.cli import commands as plain
from alignment_core.cli.guard import guarded
from alignment_core.cli.launch import execute
from alignment_core.cli.study import Options, Study
from alignment_core.errors import UserError

__all__ = ["Study", "build"]

_PRESET = Annotated[str, typer.Option(help="Settings to start from; `presets` lists them.")]
_CONFIG = Annotated[Path | None, typer.Option(help="A TOML file laid over the preset; `show` writes one.")]
_SEEDS = Annotated[list[str] | None, typer.Option(help="Training seeds, separated by commas.  [default: 13]")]
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


def command(study: Study, body: Callable[[Options], None], text: str, **first: Any) -> Callable[..., None]:
    """A typer command with the shared options and the study's switches around `body`; `first` are its arguments."""
    flags = {flag.lstrip("-").replace("-", "_"): (flag, *about) for flag, about in study.switches.items()}
    parameters: list[tuple[str, Any, Any]] = [(name, kind, inspect.Parameter.empty) for name, kind in first.items()]
    parameters += [("overrides", _OVER, None), *_SHARED]
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
        overrides = (*switched, *(values.pop("overrides") or ()))
        extra = {name: values.pop(name) for name in first}
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
    commands |= plain.plain_commands(study)
    text = "Copy a finished run's record (settings, results, report; no weights, no replies) into FOLDER."
    commands["record"] = command(study, partial(plain.record, study), text, folder=_DESTINATION)
    text = "Check what a run with these settings needs, and say how to mend what is missing."
    commands["doctor"] = command(study, partial(plain.doctor, study), text)
    for name, function in commands.items():
        app.command(name)(function)
    return app
