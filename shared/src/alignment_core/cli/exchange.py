"""Other tools' files: a run's replies and verdicts written for them, and their evaluations judged here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alignment_core import io
from alignment_core.data import exchange
from alignment_core.data.exchange import Imported
from alignment_core.errors import InputError, UserError
from alignment_core.evaluation.label import read_run
from alignment_core.evaluation.rates import rates
from alignment_core.judging.judges import judge_all
from alignment_core.records import KINDS, Completion, Kind, Verdict
from alignment_core.text import number

FORMATS = ("inspect", "lm-eval")


def export(run: Path, out: Path, form: str) -> list[Path]:
    """Write a finished run's replies and verdicts as Inspect logs or lm-eval samples; returns the files."""
    write = exchange.to_inspect if form == "inspect" else exchange.to_lm_eval
    completions, verdicts = read_run(run)
    return write(out, completions, verdicts, task=str(io.read_json(run / "results.json")["study"]))


def read(path: Path, kind: str, subject: str) -> Imported:
    """Replies from an Inspect log (.eval, .json), lm-eval's samples, or our own completions, told apart by content."""
    if kind and kind not in KINDS:
        raise UserError(f"--kind {kind}: one of {', '.join(KINDS)}")
    asked: Kind | None = next((k for k in KINDS if k == kind), None)
    if path.suffix in (".eval", ".json"):
        return exchange.from_inspect(path, kind=asked, subject=subject or None)
    first = next((row for _, row, reason in io.read_rows(path) if reason is None), None)
    if isinstance(first, dict) and "resps" in first:
        return exchange.from_lm_eval(path, kind=asked, subject=subject or None)
    rejected: list[InputError] = []
    own = list(io.read_jsonl(path, Completion.from_json, lambda problem, _: rejected.append(problem)))
    if not own:
        raise UserError(
            f"{path}: no reply could be read; it takes an Inspect log, lm-eval's samples or completions"
            + (f"; the first reason: {rejected[0].reason}" if rejected else "")
        )
    return Imported(tuple(own), (), tuple(rejected))


def judge(path: Path, out: Path, judges: str, kind: str, subject: str) -> Iterator[str]:
    """Judge the replies in a file, write verdicts.jsonl and rejects.jsonl in `out`, and say the rates, line by line."""
    found = read(path, kind, subject)
    out.mkdir(parents=True, exist_ok=True)
    verdicts = judge_all(judges, found.completions, out)
    io.write_jsonl(out / "verdicts.jsonl", verdicts)
    if found.rejected:
        io.write_jsonl(out / "rejects.jsonl", [{"where": e.where, "reason": e.reason} for e in found.rejected])
        yield f"{len(found.rejected)} rows could not be read: {out / 'rejects.jsonl'}"
    for name in dict.fromkeys(v.judge for v in verdicts):
        yield from _rates(name, [v for v in verdicts if v.judge == name])
    yield f"verdicts: {out / 'verdicts.jsonl'}"


def _rates(name: str, verdicts: list[Verdict]) -> Iterator[str]:
    for m in rates(verdicts):
        if not m.at and m.estimator == "raw":
            seed = "" if m.seed is None else f", seed {m.seed}"
            span = f"{number(m.value)} [{number(m.low)}, {number(m.high)}]"
            yield f"{name}: {m.subject}{seed}: {m.metric} {span}, n={m.n}, {m.missing} missing"
