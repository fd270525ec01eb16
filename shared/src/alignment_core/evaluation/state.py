"""A state: one model with its judged replies, as a study leaves them on disk and as the analysis reads them.

A study returns `StateFiles`; the run folder keeps them in `states.json`, so that reports, labels and exports find the
replies and verdicts behind a figure without knowing the study's steps. `files.py` says which files a state has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from alignment_core.errors import InputError, UserError
from alignment_core.evaluation.files import COMPLETIONS, INDEX, LOSSES, SCORES, VERDICTS, Place
from alignment_core.io import read_jsonl, read_object, read_rows, write_json
from alignment_core.pipeline import runlist
from alignment_core.records import Completion, Kind, Verdict

ReplyKey = tuple[str, int]
"""Prompt id and candidate."""


@dataclass(frozen=True)
class StateFiles:
    """Where one state's files lie."""

    subject: str
    seed: int | None
    """Training seed; None where the state is the same for every seed (the untrained baseline)."""
    answered: Path
    judged: Path
    at: Mapping[str, Place] = field(default_factory=dict)
    """Where on a trajectory, for example `{"step": 40}`; empty for a state that stands for itself."""

    def to_json(self, root: Path) -> dict[str, Any]:
        """With both folders as they are reached from `root`."""
        folders = {"answered": self.answered, "judged": self.judged}
        relative = {name: _from(root, folder) for name, folder in folders.items()}
        return {"subject": self.subject, "seed": self.seed, "at": dict(self.at), **relative}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], root: Path) -> StateFiles:
        """With both folders from `root`."""
        answered, judged = (_inside(root, str(row[name])) for name in ("answered", "judged"))
        return cls(str(row["subject"]), row["seed"], answered, judged, dict(row["at"]))


def _from(root: Path, path: Path) -> str:
    """`path` as it is reached from `root`."""
    return Path(os.path.relpath(path, root)).as_posix()


def _inside(root: Path, name: str) -> Path:
    """`root/name`; `ValueError` for a name that leads out of the folder that holds `root` and the study's steps."""
    path = Path(os.path.normpath(root / name))
    if Path(name).is_absolute() or not path.absolute().is_relative_to(root.absolute().parent):
        raise ValueError(f"{name!r} is no folder of the run or of its study's steps")
    return path


def write_index(run_folder: Path, states: Iterable[StateFiles]) -> None:
    """Write the run folder's `states.json`."""
    write_json(run_folder / INDEX, {"states": [state.to_json(run_folder) for state in states]})


def read_index(run_folder: Path) -> list[StateFiles]:
    """The states of a finished run; `UserError` where the folder has no index, or the run or a step that it rests on
    was changed after it was made, `InputError` where the index is damaged."""
    path = run_folder / INDEX
    runlist.refuse_old(run_folder)
    if not path.is_file():
        raise UserError(f"{run_folder}: no finished run with replies ({INDEX} is missing); run the study to its end")
    if (run_folder / runlist.LIST).exists():
        runlist.check(run_folder)
    try:
        return [StateFiles.from_json(row, run_folder) for row in read_object(path)["states"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(path), None, f"not an index of states: {error}") from error


@dataclass(frozen=True, slots=True)
class JudgedReply:
    """One reply: what each judge said of it, and its further scores."""

    prompt_id: str
    candidate: int
    kind: Kind
    cluster: str
    verdicts: Mapping[str, Verdict]
    """By judge; the first judge decides."""
    scores: Mapping[str, Any]
    """By name; a name that is absent or None does not apply to this reply."""

    @property
    def verdict(self) -> Verdict:
        """The deciding judge's."""
        return next(iter(self.verdicts.values()))


@dataclass(frozen=True)
class State:
    """One model's judged replies in one training seed."""

    subject: str
    seed: int | None
    replies: tuple[JudgedReply, ...]
    judges: tuple[str, ...]
    """The first decides."""
    losses: Mapping[str, Mapping[str, tuple[float, str]]] = field(default_factory=dict)
    """Of each set of rows: (loss in nats a token, cluster) by row id."""
    at: Mapping[str, Place] = field(default_factory=dict)
    completions: str | None = None
    """Path of the completions, relative to the run folder."""

    @cached_property
    def clusters(self) -> dict[str, str]:
        """Each prompt's cluster."""
        return {reply.prompt_id: reply.cluster for reply in self.replies}

    def verdicts(self, judge: str | None = None) -> list[Verdict]:
        """One judge's verdicts (by default the deciding one's), in the replies' order."""
        name = self.judges[0] if judge is None else judge
        return [reply.verdicts[name] for reply in self.replies]


def load(files: StateFiles, root: Path) -> State:
    """Read a state's verdicts, scores and losses; `InputError` where two judges judged other replies."""
    path = files.judged / VERDICTS
    by_judge: dict[str, dict[ReplyKey, Verdict]] = {}
    for verdict in read_jsonl(path, Verdict.from_json):
        mine, key = by_judge.setdefault(verdict.judge, {}), (verdict.prompt_id, verdict.candidate)
        if key in mine:
            raise InputError(str(path), None, f"two verdicts of {verdict.judge} on prompt {verdict.prompt_id!r}")
        mine[key] = verdict
    if not by_judge:
        raise InputError(str(path), None, "no verdict in it")
    first = next(iter(by_judge.values()))
    for judge, mine in by_judge.items():
        if mine.keys() != first.keys():
            raise InputError(str(path), None, f"{judge} has verdicts on other replies than {next(iter(by_judge))}")
    scores = reply_scores(files)
    replies = tuple(_judged(key, {j: mine[key] for j, mine in by_judge.items()}, scores.get(key, {})) for key in first)
    completions = _from(root, files.answered / COMPLETIONS)
    losses = _losses(files.answered / LOSSES)
    return State(files.subject, files.seed, replies, tuple(by_judge), losses, dict(files.at), completions)


def _judged(key: ReplyKey, verdicts: Mapping[str, Verdict], scores: Mapping[str, Any]) -> JudgedReply:
    one = next(iter(verdicts.values()))
    return JudgedReply(*key, one.kind, one.cluster or one.prompt_id, verdicts, scores)


def reply_scores(files: StateFiles) -> dict[ReplyKey, dict[str, Any]]:
    """The further scores of a state's replies, by name."""
    found: dict[ReplyKey, dict[str, Any]] = {}
    for path in (p for p in (files.answered / SCORES, files.judged / SCORES) if p.exists()):
        for number, row, reason in read_rows(path):
            if reason is not None or not isinstance(row, dict) or "prompt_id" not in row:
                raise InputError(str(path), number, reason or "no scores of a reply: prompt_id is missing")
            key = (str(row["prompt_id"]), int(row.get("candidate", 0)))
            named = {name: value for name, value in row.items() if name not in ("prompt_id", "candidate")}
            found.setdefault(key, {}).update(named)
    return found


def _losses(path: Path) -> dict[str, dict[str, tuple[float, str]]]:
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for number, row, reason in read_rows(path) if path.exists() else ():
        if reason is not None or not isinstance(row, dict) or not {"set", "id", "cluster", "loss"} <= row.keys():
            raise InputError(str(path), number, reason or "no loss of a row: it needs set, id, cluster and loss")
        found.setdefault(row["set"], {})[row["id"]] = (float(row["loss"]), row["cluster"])
    return found


def texts(files: StateFiles) -> list[Completion]:
    """The state's completions, those that failed among them."""
    return list(read_jsonl(files.answered / COMPLETIONS, Completion.from_json))


def judged_texts(files: Sequence[StateFiles], judge: str = "") -> tuple[list[Completion], list[Verdict]]:
    """Completions and one judge's verdicts (by default each state's deciding one) of the states that stand for
    themselves, in one order, under each state's own subject and seed; `UserError` names the judges there are when
    `judge` is none of them."""
    completions: list[Completion] = []
    verdicts: list[Verdict] = []
    for one in (f for f in files if not f.at):
        said: dict[str, dict[ReplyKey, Verdict]] = {}
        for v in read_jsonl(one.judged / VERDICTS, Verdict.from_json):
            said.setdefault(v.judge, {})[v.prompt_id, v.candidate] = v
        chosen = said.get(judge or next(iter(said), ""))
        if chosen is None:
            raise UserError(f"{one.judged / VERDICTS}: no verdict by {judge!r}; there are {', '.join(said)}")
        for c in texts(one):
            verdict = chosen.get((c.prompt_id, c.candidate))
            if verdict is not None:
                completions.append(replace(c, subject=one.subject, seed=one.seed))
                verdicts.append(replace(verdict, subject=one.subject, seed=one.seed))
    return completions, verdicts
