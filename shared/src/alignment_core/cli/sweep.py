"""`<study> sweep KEY=a,b --seeds 13-17`: every value with every seed as a job, and one table of what they found.

A job is the user's own `run` with one value and one seed. When the jobs are over, each value's run is finished with
all seeds that are made, which finds every step made. Seeds are the slowest to vary, so that jobs that run at the same
time work on different values.
"""

from __future__ import annotations

import importlib.util
import logging
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from alignment_core.cli.grid import Sweep, Value, plan
from alignment_core.cli.guard import say
from alignment_core.cli.study import Options, Study, report_spec
from alignment_core.errors import UserError, nearest

if TYPE_CHECKING:
    from alignment_core.pipeline.run import Planned
    from alignment_core.pipeline.sweep import Engine, Job, Outcome
    from alignment_core.report.sweep import SweepTable

log = logging.getLogger("alignment_core")

_LAUNCHERS = ("local", "slurm", "print")


def sweep(
    study: Study, options: Options, grid: list[str] | None, launcher: str, gpus: int, slurm: list[str] | None
) -> None:
    """Run the sweep and print its table. Exit code 1 where a job had a fault of ours, 2 where one is open."""
    kind, limit = _launcher(launcher)
    planned = plan(study, options, grid or [])
    engine = _engine(kind, limit, gpus, slurm or [])
    jobs = {(v, seed): planned.job(v, seed, gpus) for seed in planned.seeds for v in planned.values}
    if engine is None and not options.dry_run:
        for job in jobs.values():
            typer.echo(shlex.join(job.words))
        say("when all of them are done, the same sweep with --launcher local:1 prints the table")
        return
    steps = _steps(planned, options)
    if engine is None or options.dry_run:
        _show_plan(planned, steps)
        return
    left = {pair: job for pair, job in jobs.items() if not all(step.kept for step in steps[pair])}
    failed = _run(planned, left, engine, options)
    if failed:
        raise typer.Exit(1 if any(outcome.code == 1 for outcome in failed) else 2)


def _run(planned: Sweep, jobs: Mapping[tuple[Value, int], Job], engine: Engine, options: Options) -> list[Outcome]:
    """Run what is open, finish each value, print and keep the table; what failed."""
    from alignment_core.cli.live import quiet_level, terminal_log
    from alignment_core.pipeline.launchers import Local
    from alignment_core.pipeline.sweep import owned, run_jobs

    importlib.import_module("submitit")
    logging.getLogger("submitit").handlers.clear()  # it writes to stdout
    with terminal_log(("alignment_core", "submitit"), quiet_level(options, True)), owned(planned.folder), _stoppable():
        total = len(planned.values) * len(planned.seeds)
        log.info("sweep of %d jobs, %d of them made already; in %s", total, total - len(jobs), planned.folder)
        outcomes = run_jobs(list(jobs.values()), engine, _Told(len(jobs)))
        failed = [outcome for outcome in outcomes if not outcome.good]
        lost = {outcome.job for outcome in failed}
        made = {v: [s for s in planned.seeds if jobs.get((v, s)) not in lost] for v in planned.values}
        last = {value: planned.last(value, seeds) for value, seeds in made.items() if seeds}
        log.info("finishing %d runs with all their seeds", len(last))
        here = engine if isinstance(engine, Local) else Local(1)
        failed += [o for o in run_jobs(list(last.values()), here, _Told(len(last))) if not o.good]
        finished = {value for value, job in last.items() if job not in {o.job for o in failed}}
        table = _table(planned, made, finished)
        _keep(planned.folder, table, failed)
    _print(planned.folder, table)
    for outcome in failed:
        say(f"failed: {outcome}")
    return failed


class _Told:
    """Says which job ended, and how many have."""

    def __init__(self, total: int) -> None:
        self.total = total

    def __call__(self, outcome: Outcome, ended: int) -> None:
        level, how = (logging.INFO, "done") if outcome.good else (logging.WARNING, f"failed: {outcome.reason}")
        log.log(level, "%d of %d: %s: %s", ended, self.total, outcome.job.label, how)


def _launcher(text: str) -> tuple[str, int]:
    """Its kind, and how many jobs it runs at a time on this machine."""
    kind, colon, count = text.partition(":")
    if kind not in _LAUNCHERS:
        raise UserError(f"no launcher {text!r}{nearest(kind, _LAUNCHERS)}; there are local:N, slurm and print")
    if kind == "local" and not (count.isdecimal() and int(count) > 0):
        raise UserError(f"--launcher {text}: write how many jobs run at a time, at least one, for example local:2")
    if kind != "local" and colon:
        raise UserError(f"--launcher {text}: write {kind}; only local takes a number")
    return kind, int(count or 0)


def _engine(kind: str, limit: int, gpus: int, slurm: Sequence[str]) -> Engine | None:
    """What runs the jobs; None for `print`. `UserError` where it cannot be had."""
    from alignment_core.config import parse_overrides
    from alignment_core.pipeline.launchers import Local, Slurm

    if slurm and kind != "slurm":
        raise UserError(f"--slurm {slurm[0]}: this is for --launcher slurm")
    for item in slurm:
        if not item.partition("=")[2]:
            raise UserError(f"--slurm {item}: write KEY=VALUE, for example --slurm partition=gpu")
    if kind == "print":
        return None
    if importlib.util.find_spec("submitit") is None:
        raise UserError(f"--launcher {kind} needs submitit: pip install submitit; --launcher print does without")
    if kind == "local":
        return Local(limit, gpus)
    return Slurm(parse_overrides(slurm) | ({"gpus_per_node": gpus} if gpus else {}))


def _steps(planned: Sweep, options: Options) -> dict[tuple[Value, int], list[Planned]]:
    """The steps of every job; `UserError` where what they need from outside cannot be had, or where much would be made
    again unasked."""
    from alignment_core.cli.plan import open_all, refuse_costly, walk
    from alignment_core.pipeline.environment import prepare_process

    prepare_process()
    kept = options.keep_changed
    steps = {
        (v, s): walk(planned.study, v.config, (s,), v.folder, keep_changed=kept)
        for s in planned.seeds
        for v in planned.values
    }
    every = list({step.label: step for each in steps.values() for step in each}.values())
    if not (options.remake or kept or options.dry_run):
        refuse_costly(every)
    open_all(every)
    return steps


def _show_plan(planned: Sweep, steps: Mapping[tuple[Value, int], Sequence[Planned]]) -> None:
    """The jobs, and for each what would be made."""
    done = sum(all(step.kept for step in each) for each in steps.values())
    typer.echo(f"sweep folder: {planned.folder}\njobs: {len(steps)}, {done} of them made already")
    for (value, seed), each in steps.items():
        left = [step.name for step in each if not step.kept]
        what = f"{len(left)} of {len(each)} steps to make: {', '.join(left)}" if left else "made already"
        typer.echo(f"  {value.label}, seed {seed}: {what}; run folder {value.folder}")


@contextmanager
def _stoppable() -> Iterator[None]:
    """Inside, a request to end is an interrupt, and further ones do not disturb the end."""
    known = [s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]

    def stop(_: int, __: FrameType | None) -> None:
        for one in known:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {one: signal.signal(one, stop) for one in known}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _table(planned: Sweep, made: Mapping[Value, Sequence[int]], finished: set[Value]) -> SweepTable:
    """What the finished runs found."""
    from alignment_core.evaluation import results
    from alignment_core.report.sweep import SweepRow, SweepTable

    rows = []
    for value in planned.values:
        found = results.read(value.folder / "results.json") if value in finished else None
        rows.append(SweepRow(value.texts, value.folder, tuple(made[value]), found))
    title = f"{planned.study.name}: {', '.join(planned.keys)} ({planned.values[0].options.preset})"
    return SweepTable(title, planned.keys, planned.seeds, tuple(rows), lambda found: report_spec(planned.study, found))


def _keep(folder: Path, table: SweepTable, failed: Sequence[Outcome]) -> None:
    """Write table.txt, table.csv and table.json."""
    from alignment_core import io
    from alignment_core.report import terminal

    io.write_text(folder / "table.txt", terminal.plain_table(table.grid()))
    io.write_text(folder / "table.csv", table.csv())
    lines = [{"job": o.job.label, "exit_code": o.code, "reason": o.reason, "log": o.log.as_posix()} for o in failed]
    io.write_json(folder / "table.json", table.json() | {"failed": lines})


def _print(folder: Path, table: SweepTable) -> None:
    from rich.console import Console

    from alignment_core.report import terminal

    Console(width=None if sys.stdout.isatty() else 140).print(terminal.rich_table(table.grid()))
    typer.echo(f"table: {folder / 'table.txt'}, table.csv and table.json")
