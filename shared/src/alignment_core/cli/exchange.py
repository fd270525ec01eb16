"""Other tools' files: a run's replies and verdicts written for them, and their evaluations judged here."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from alignment_core import io
from alignment_core.config import Settings, parse_overrides, validate
from alignment_core.data import exchange
from alignment_core.data.exchange import Imported
from alignment_core.errors import UserError
from alignment_core.evaluation.files import VERDICTS
from alignment_core.evaluation.inputs import read
from alignment_core.evaluation.rates import rates
from alignment_core.evaluation.state import judged_texts, read_index
from alignment_core.judging.judges import check_judges, judge_all, judge_names, judges_identity
from alignment_core.judging.settings import JudgeSettings
from alignment_core.records import KINDS, Verdict
from alignment_core.text import number

FORMATS = ("inspect", "lm-eval")
PLAN, REJECTS, WORK = "judge.json", "rejects.jsonl", "judges"
"""In the folder of verdicts: what was asked for, the rows that could not be read, each judge's own files."""


class _Judged(Settings):
    """What `judge` takes as KEY=VALUE."""

    judging: JudgeSettings = JudgeSettings()
    """How model judges are asked, as in every study."""


def export(run: Path, out: Path, form: str, *, overwrite: bool = False) -> list[Path]:
    """Write a finished run's replies and verdicts as Inspect logs or lm-eval samples; returns the files."""
    completions, verdicts = judged_texts(read_index(run))
    study = str(io.read_object(run / "results.json").get("study", "study"))
    write = exchange.to_inspect if form == "inspect" else exchange.to_lm_eval
    return write(out, completions, verdicts, task=study, overwrite=overwrite)


def judge(
    path: Path,
    out: Path,
    judges: str,
    *,
    overrides: Sequence[str] = (),
    kind: str = "",
    subject: str = "",
    names: Mapping[str, str] | None = None,
    accept_missing: bool = False,
    overwrite: bool = False,
) -> Iterator[str]:
    """Judge the replies in a file, write verdicts.jsonl and rejects.jsonl in `out`, and say the rates, line by line.

    A second start of the same command goes on where the first stopped; verdicts of another one are replaced only with
    `overwrite`. Raises `UserError` in one line."""
    if kind and kind not in KINDS:
        raise UserError(f"--kind {kind}: one of {', '.join(KINDS)}")
    settings = validate(_Judged, parse_overrides(overrides), "command line").judging
    judge_names(judges)
    found = read(path, kind=kind, subject=subject, names=names)
    if not found.completions:
        alone = f"; it holds {len(found.verdicts)} verdicts without their replies"
        raise UserError(f"{path}: no reply could be read{_first_reason(found)}{alone}")
    plan = {"judges": judges_identity(judges, settings), "replies": _hash(found)}
    if not (_same(out, plan) and (out / VERDICTS).is_file()):
        check_judges(judges, settings)
    _begin(out, plan, overwrite)
    if found.rejected:
        rows = ({"where": e.where, "line": e.line, "reason": e.reason} for e in found.rejected)
        io.write_jsonl(out / REJECTS, rows)
        yield f"{len(found.rejected)} rows could not be read: {out / REJECTS}"
    verdicts = judge_all(judges, found.completions, out / WORK, settings, accept_missing=accept_missing)
    io.write_jsonl(out / VERDICTS, verdicts)
    for name in dict.fromkeys(v.judge for v in verdicts):
        yield from _rates(name, [v for v in verdicts if v.judge == name])
    yield f"verdicts: {out / VERDICTS}"


def _first_reason(found: Imported) -> str:
    return f"; the first of {len(found.rejected)} reasons: {found.rejected[0].reason}" if found.rejected else ""


def _hash(found: Imported) -> str:
    text = "\n".join(io.canonical(completion.to_json()) for completion in found.completions)
    return hashlib.sha256(text.encode()).hexdigest()


def _same(out: Path, plan: Mapping[str, object]) -> bool:
    """Whether an earlier start of the same command left its work in `out`."""
    return (out / PLAN).is_file() and io.read_json(out / PLAN) == plan


def _begin(out: Path, plan: Mapping[str, object], overwrite: bool) -> None:
    """Say in `out` what is judged there, and by whom; `UserError` where it holds another command's verdicts."""
    ours = [file for file in (out / PLAN, out / REJECTS, out / VERDICTS) if file.exists()]
    if (ours or (out / WORK).exists()) and not _same(out, plan):
        if not overwrite:
            raise UserError(
                f"{out}: holds verdicts on other replies or by other judges; pass --overwrite, or name another --out"
            )
        for file in ours:
            file.unlink()
        shutil.rmtree(out / WORK, ignore_errors=True)
    io.write_json(out / PLAN, plan)
    (out / WORK).mkdir(exist_ok=True)


def _rates(name: str, verdicts: list[Verdict]) -> Iterator[str]:
    for m in rates(verdicts):
        if not m.at and m.estimator == "raw":
            seed = "" if m.seed is None else f", seed {m.seed}"
            span = f"{number(m.value)} [{number(m.low)}, {number(m.high)}]"
            yield f"{name}: {m.subject}{seed}: {m.metric} {span}, n={m.n}, {m.missing} missing"
