"""`<study> prune`: what no run of the study needs any more, shown first and deleted with --yes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from alignment_core.cli.guard import guarded
from alignment_core.cli.study import Study
from alignment_core.errors import UserError

_RUNS = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
_YES = Annotated[bool, typer.Option("--yes", help="Delete what is shown.")]


def command(study: Study) -> Callable[..., None]:
    """The command of one study."""

    @guarded
    def prune(runs: _RUNS = Path("runs"), yes: _YES = False) -> None:
        """Show the steps that no run needs any more and their size; delete them with --yes.

        A step that some run's list holds stays, and so does an unfinished one younger than 14 days."""
        from alignment_core.pipeline import runlist
        from alignment_core.pipeline.locks import locked
        from alignment_core.pipeline.store import Store, leftovers

        folder = runs / study.name
        store = Store(folder)
        if not store.steps.is_dir():
            raise UserError(f"{folder}: no steps of {study.name}; choose the folder of its runs with --runs")
        with locked(store.steps / ".lock"):
            found = leftovers(store, runlist.held(folder))
            for one in found:
                typer.echo(f"{one.folder.name}  {one.bytes / 1e6:.1f} MB  {one.why}")
                if yes:
                    shutil.rmtree(one.folder)
        total = f"{len(found)} step{'' if len(found) == 1 else 's'}, {sum(one.bytes for one in found) / 1e6:.1f} MB"
        if not found:
            typer.echo("nothing to delete: every step is held by a run, or was touched in the last 14 days")
        else:
            typer.echo(f"deleted: {total}" if yes else f"{total}; nothing was deleted yet, --yes deletes them")

    return prune
