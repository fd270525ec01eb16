"""A study's run from the command line: plan, steps for every seed, results, report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alignment_core.cli.study import Options, Study, load, parse_seeds, report_spec, target

if TYPE_CHECKING:
    from alignment_core.cli.live import Plan
    from alignment_core.config import Settings
    from alignment_core.evaluation.analysis import SeedOutput
    from alignment_core.evaluation.results import Results
    from alignment_core.pipeline.run import Run


def execute(study: Study, until: str | None, options: Options) -> None:
    """Run the study for every seed, to the end or until the part `until` is complete."""
    from alignment_core.cli import plan as planning
    from alignment_core.cli import torchrun
    from alignment_core.cli.live import Plan, quiet_level, terminal_log
    from alignment_core.pipeline.environment import prepare_process
    from alignment_core.pipeline.process_group import is_main_process
    from alignment_core.pipeline.run import Run
    from alignment_core.pipeline.runlist import refuse_old

    with torchrun.same_user_errors():
        config, folder = target(study, options)
        seeds = parse_seeds(options.seeds)
        check_files(config)
        refuse_old(folder)
        if options.dry_run:
            if is_main_process():
                typer.echo(planning.text(study, config, seeds, folder, keep_changed=options.keep_changed))
            return
        prepare_process()
        _check_trackers(config)
        if is_main_process():
            steps = planning.walk(study, config, seeds, folder, keep_changed=options.keep_changed)
            if not (options.remake or options.keep_changed):
                planning.refuse_costly(steps)
            planning.open_all(steps)
            if not all(step.kept for step in steps):
                planning.check_templates(config)
                load("alignment_core.models.preflight:check")(config)
    parts = [name for name, _ in study.steps]
    plan = Plan(study.name, parts if until is None else parts[: parts.index(until) + 1], seeds)
    results = None
    with (
        terminal_log(("alignment_core", study.package), quiet_level(options, is_main_process()), plan),
        torchrun.join(folder) as group,
        Run.open(
            folder,
            study.name,
            options.preset,
            config,
            seeds,
            group=group,
            accept_missing=options.accept_missing,
            keep_changed=options.keep_changed,
        ) as run,
    ):
        outputs = _every_seed(study, run, config, seeds, until, plan)
        if until is None:
            plan.finishes()
            if run.is_main:
                results = finish(study, run, config, options.preset, seeds, [o for o in outputs if o])
            run.barrier()
    if results is not None:
        show_results(study, folder, results)


def _every_seed(
    study: Study, run: Run, config: Settings, seeds: Sequence[int], until: str | None, plan: Plan
) -> list[SeedOutput | None]:
    """What the study returns for each seed. While another process makes what a seed needs next, the others go on; when
    all of them need what others make, the first one waits."""
    from alignment_core.pipeline.run import Busy

    outputs: dict[int, SeedOutput | None] = {}
    run.waits = False
    while len(outputs) < len(seeds):
        before = len(outputs)
        for seed in [s for s in seeds if s not in outputs]:
            try:
                outputs[seed] = _one_seed(study, run, config, seed, until, plan)
                run.waits = False
            except Busy:
                continue
        run.waits = len(outputs) == before
    run.waits = True
    return [outputs[seed] for seed in seeds]


def _one_seed(study: Study, run: Run, config: Settings, seed: int, until: str | None, plan: Plan) -> SeedOutput | None:
    """What the study returns for a seed; None where it stops after the part `until`."""
    plan.starts(seed)
    parts = load(study.run)(run, config, seed)
    while True:
        try:
            part = next(parts)
        except StopIteration as end:
            output: SeedOutput = end.value
            return output
        plan.completes(part)
        if part == until:
            return None


def finish(
    study: Study, run: Run, config: Settings, preset: str, seeds: Sequence[int], outputs: Sequence[SeedOutput]
) -> Results:
    """What the seeds' states say: states.json, results.json and the report, written in the run folder under its
    lock."""
    from alignment_core import io
    from alignment_core.evaluation import history, results, state
    from alignment_core.evaluation.analysis import Evidence, analyse, every_state
    from alignment_core.pipeline import runlist
    from alignment_core.pipeline.locks import locked
    from alignment_core.report import page

    folder = run.folder
    evidence = Evidence.read(outputs, folder, config)
    found = analyse(evidence, load(study.analysis), study.package, study.name, preset, seeds)
    found = found.model_copy(update=history.of(run.used.values()))
    with locked(folder / ".results.lock"):
        state.write_index(folder, every_state(outputs))
        results.write(folder / "results.json", found)
        io.write_json(folder / "timings.json", run.timings())
        runlist.list_files(folder)
        page.write(folder, found, report_spec(study, found))
        if study.files:
            load(study.files)(folder, evidence, found)
        runlist.list_files(folder)
    return found


def check_files(config: Settings) -> None:
    """`UserError` for a setting that names a file or folder which is not there."""
    from alignment_core.config import named_files
    from alignment_core.errors import UserError

    for setting, path in named_files(config):
        if not path.exists():
            raise UserError(f"{setting}={path}: no such file or folder; name one that is there, or leave it out")


def _check_trackers(config: Settings) -> None:
    """A tracker that cannot be used is reported before the first step, not hours later before the first training."""
    from alignment_core.config import TrainSettings

    names = {name for _, part in config if isinstance(part, TrainSettings) for name in part.report_to}
    if names:
        load("alignment_core.models.trackers:check")(sorted(names))


def show_results(study: Study, folder: Path, results: Any) -> None:
    """Print the tables and where the report is."""
    from rich.console import Console

    from alignment_core.report import terminal

    Console(width=None if sys.stdout.isatty() else 140).print(terminal.render(results, report_spec(study, results)))
    pages = [folder / name for name in ("report.html", "report.md", "results.json") if (folder / name).exists()]
    if pages:
        typer.echo(f"report: {pages[0]}")
