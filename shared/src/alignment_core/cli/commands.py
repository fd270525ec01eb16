"""The commands every study has beside its steps: presets, show, settings, report, record, doctor."""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignment_core.cli import prune
from alignment_core.cli.guard import guarded
from alignment_core.cli.launch import show_results
from alignment_core.cli.study import Options, Study, load, report_spec, settings, target
from alignment_core.errors import UserError

if TYPE_CHECKING:
    from alignment_core.evaluation.results import Results

_RECORDED = ("config.json", "env.json", "results.json", "timings.json")
_PresetName = Annotated[str, typer.Argument(metavar="PRESET", help="`presets` lists them.")]
_Config = Annotated[Path | None, typer.Option(help="A TOML file laid over the preset.")]
_Resolved = Annotated[bool, typer.Option("--resolved", help="Write every key out, the defaults too.")]
_Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]
_RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/<study>/tiny.")]


def plain_commands(study: Study) -> dict[str, Callable[..., None]]:
    """The commands that have options of their own, by name."""

    @guarded
    def presets() -> None:
        """List the presets."""
        from alignment_core import config

        for name in config.presets(study.package):
            first = config.preset_text(study.package, name).splitlines()[0]
            typer.echo(f"{name:<8} {first.lstrip('# ') if first.startswith('#') else ''}")

    @guarded
    def show(preset: _PresetName = "tiny", overrides: _Overrides = None, config: _Config = None,
             resolved: _Resolved = False) -> None:  # fmt: skip
        """Print a preset as a settings file with every key's help: show tiny > mine.toml."""
        typer.echo(shown(study, preset, config, overrides or [], resolved), nl=False)

    @guarded
    def list_settings() -> None:
        """List every setting with its type, default and help."""
        from alignment_core.cli import reference

        model = load(study.config) if isinstance(study.config, str) else study.config
        for key, kind, default, text in reference.listing(model):
            typer.echo(f"{key} = {default}  ({kind})\n    {text}")

    @guarded
    def report(run: _RunFolder) -> None:
        """Write a finished run's report again and print its table."""
        from alignment_core.pipeline import runlist
        from alignment_core.report import page

        folder = finished(run)
        found = results_of(study, folder)
        with runlist.rewriting(folder):
            page.write(folder, found, report_spec(study, found))
        show_results(study, folder, found)

    @guarded
    def verify(run: _RunFolder) -> None:
        """Was anything of a run changed after it was made? Every file of the run and of its steps is hashed."""
        from alignment_core.pipeline import runlist

        runlist.refuse_old(run)
        if not (run / runlist.LIST).exists():
            raise UserError(f"{run}: no run of this study (no {runlist.LIST})")
        found = list(runlist.problems(run))
        for line in found:
            typer.echo(line)
        if found:
            raise typer.Exit(3)
        steps = len(runlist.read(run)["steps"])
        typer.echo(f"{run}: as it was made: {steps} steps, and the run's settings, results and pages")

    return {
        "presets": presets,
        "show": show,
        "settings": list_settings,
        "report": report,
        "verify": verify,
        "prune": prune.command(study),
    }


def shown(study: Study, preset: str, file: Path | None, overrides: list[str], resolved: bool) -> str:
    """The text of `show`; resolving it again gives the same settings, or `UserError`."""
    from alignment_core import config
    from alignment_core.cli import reference

    values, _ = settings(study, preset, file, overrides)
    chosen: dict[str, Any] = config.parse_toml(config.preset_text(study.package, preset), preset)
    if file is not None:
        chosen = config.merge(chosen, config.parse_toml(file.read_text(encoding="utf-8"), str(file)))
    chosen = config.merge(chosen, config.parse_overrides(overrides))
    text = reference.as_toml(values, None if resolved else chosen)
    if config.validate(type(values), tomllib.loads(text), "shown settings") != values:
        raise UserError("TOML cannot hold a none over another default; leave that key=none for the command line")
    return text


def finished(run: Path) -> Path:
    """`run` when it holds results; `UserError` says what does otherwise."""
    if (run / "results.json").is_file():
        return run
    known = sorted(p.parent.as_posix() for p in run.glob("**/results.json") if "steps" not in p.parts)
    hint = f"; there is {', '.join(known[:5])}" if known else "; `run` makes one"
    raise UserError(f"{run}: no finished run (no results.json){hint}")


def results_of(study: Study, folder: Path) -> Results:
    """The results in a folder; `UserError` where they were changed after they were made, or another study made them."""
    from alignment_core.evaluation import results
    from alignment_core.pipeline import runlist

    runlist.check_results(folder)
    found = results.read(folder / "results.json")
    if found.study != study.name:
        raise UserError(f"{folder} is a run of {found.study}, not of {study.name}: {found.study} report {folder}")
    return found


def record(study: Study, options: Options, folder: Path) -> None:
    """Write what a record holds to `folder/<name of the run>`, whole or not at all: no weights, and no replies."""
    from alignment_core.pipeline import runlist
    from alignment_core.report import page

    _, run = target(study, options)
    found = results_of(study, finished(run))
    runlist.check(run)
    new, old = folder / f".{run.name}.{os.getpid()}.tmp", folder / run.name
    if options.dry_run:
        typer.echo(f"{run} -> {old}")
        return
    if old.exists():
        results_of(study, finished(old))  # a record is replaced by one of the same study alone
    try:
        new.mkdir(parents=True)
        for source in [run / name for name in _RECORDED if (run / name).exists()]:
            shutil.copy(source, new / source.name)
        page.write(new, found, report_spec(study, found))
        if old.exists():
            shutil.rmtree(old)
        new.replace(old)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise UserError(f"cannot write {old}: {error.strerror or error}") from error
    typer.echo(f"recorded: {old}, of seed{'' if len(found.seeds) == 1 else 's'} {', '.join(map(str, found.seeds))}")


def doctor(study: Study, options: Options) -> None:
    """Print the checks; exit code 3 when a needed thing is missing."""
    from alignment_core import doctor as checks
    from alignment_core.pipeline.environment import prepare_process

    config, folder = target(study, options)
    prepare_process()
    own = load(study.needs)(config) if study.needs else []
    found = checks.examine(config, folder, checks.needs_of(config, own))
    for line in checks.lines(found):
        typer.echo(line)
    if any(check.state == "fails" for check in found):
        raise typer.Exit(3)
