"""Judges by name: their entries, how they are opened before a run, what decides their verdicts, how they are run.

A judge is one module, whose `ENTRIES` holds an `Entry` under the judge's name, and its line in `registry.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.errors import UserError, nearest
from alignment_core.judging.registry import JUDGES
from alignment_core.judging.verdicts import Entry, Judge, require_verdicts
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Completion, Verdict

if TYPE_CHECKING:
    from alignment_core.judging.settings import JudgeSettings


def entry(name: str) -> Entry:
    """The entry of a judge of the registry; imports the judge's own module and no other judge's."""
    found: Entry = import_module(JUDGES[name]).ENTRIES[name]
    return found


def judge_names(names: str) -> list[str]:
    """`"rules, gcg31"` to its parts; `UserError` for an unknown or repeated name, with the nearest one or a way on."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in JUDGES:
            hint = nearest(name, JUDGES) or (
                f"; a model behind a URL is judge=endpoint judging.endpoint.model={name}, a local one is judge=model "
                f"judging.model.name={name}"
            )
            raise UserError(f"no judge {name!r}{hint}; there are {', '.join(JUDGES)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"judge={names!r}: name each judge once, for example rules,gcg31")
    return wanted


def check_judges(names: str, settings: JudgeSettings) -> None:
    """Open each judge before a run, without loading weights; `UserError` says which could not judge, and why.

    An endpoint is asked for one tiny completion; a local model's folder and settings are resolved.
    """
    for name in judge_names(names):
        try:
            entry(name).check(settings)
        except UserError as error:
            raise UserError(f"judge {name}: {error}") from error


def judge_code(names: str) -> list[str]:
    """The modules that hold the entries of these judges, each once: what a step that judges needs of our code."""
    return list(dict.fromkeys(JUDGES[name] for name in judge_names(names)))


def make_judges(names: str, settings: JudgeSettings) -> list[Judge]:
    """Judges by name, in that order. Loads no model yet."""
    return [entry(name).make(settings) for name in judge_names(names)]


def judges_identity(names: str, settings: JudgeSettings) -> dict[str, Any]:
    """What decides the verdicts beside the judges' code, as JSON for a step's key; no weights are loaded, and no key
    is in it."""
    return {name: entry(name).identity(settings) for name in judge_names(names)}


def judge_all(
    names: str,
    completions: Sequence[Completion],
    folder: Path,
    settings: JudgeSettings,
    *,
    accept_missing: bool = False,
) -> list[Verdict]:
    """Verdicts of every named judge, the first judge's first; each judge's own stand in `folder` as
    `verdicts_<judge>.jsonl`. Of several processes all work on a local model's, the first on the others.

    Raises `NoVerdicts` when all of a judge's are missing, and `Unfinished` when calls to a server failed in passing,
    unless `accept_missing`.
    """
    out: list[Verdict] = []
    for judge in make_judges(names, settings):
        file = folder / f"verdicts_{judge.name}.jsonl"
        work = partial(judge.judge, completions, file, accept_missing=accept_missing)
        given = work() if entry(judge.name).together else process_group().broadcast(work)
        require_verdicts(given)
        out += given
    return out
