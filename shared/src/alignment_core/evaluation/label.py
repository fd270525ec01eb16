"""Hand labels on a finished run, and what they say about the detector on that run.

A sample of replies, stratified by state, kind of prompt and verdict, is labelled blind to the verdict in a terminal
sheet that can be left at any time. Two-phase (double) sampling then gives each state's corrected refusal rate,
w PPV + (1-w)(1-NPV) for two verdicts, with the variance of both phases (Cochran 1977, ch. 12), and the corrected
difference of two states on replies labelled in both. An error rate from elsewhere would not do: fine-tuning changes
the style of refusals, and with it the detector's error.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from alignment_core.errors import InputError, UserError
from alignment_core.evaluation.metrics import REFUSAL_RATES
from alignment_core.io import append_jsonl, read_jsonl, read_object, read_rows, recover_jsonl, write_json
from alignment_core.records import KINDS, LABELS, Completion, Kind, Label, Verdict
from alignment_core.stats.intervals import Interval, two_phase, wilson

if TYPE_CHECKING:
    from rich.console import Console

Key = tuple[str, str, int | None, int]
"""Which reply: subject, prompt id, seed, candidate."""
Stratum = tuple[str, str, str]
"""State, kind of prompt, verdict (or `missing`)."""
Answer = Label | Literal["skip", "quit"]
LABELS_FILE, REPORT_FILE = "labels.jsonl", "label_report.json"


def key_of(record: Completion | Verdict | HandLabel) -> Key:
    """The reply that a completion, a verdict or a hand label is about."""
    return record.subject, record.prompt_id, record.seed, record.candidate


@dataclass(frozen=True, slots=True)
class HandLabel:
    """What a person said of one reply."""

    subject: str
    prompt_id: str
    seed: int | None
    candidate: int
    label: Label

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        if not isinstance(row, Mapping) or set(row) != {"subject", "prompt_id", "seed", "candidate", "label"}:
            raise ValueError("label: expected subject, prompt_id, seed, candidate and label")
        if row["label"] not in LABELS:
            raise ValueError(f"label: 'label' must be one of {', '.join(LABELS)}, found {row['label']!r}")
        return cls(**row)


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _order(completions: Iterable[Completion], seed: int) -> dict[Key, tuple[int, str]]:
    """A random order that is the same for every state, so that the sample holds pairs of one prompt: first one seed
    of every prompt (another one for each), then the next."""
    seeds: dict[str, set[int]] = {}
    for one in completions:
        if one.seed is not None:
            seeds.setdefault(one.prompt_id, set()).add(one.seed)
    turn = {
        (prompt, which): place
        for prompt, found in seeds.items()
        for place, which in enumerate(sorted(found, key=lambda s, p=prompt: _hash(seed, p, s)))  # type: ignore[misc]
    }
    return {
        key_of(c): (
            turn.get((c.prompt_id, c.seed), 0) if c.seed is not None else 0,
            _hash(seed, c.prompt_id, c.candidate),
        )
        for c in completions
    }


def _strata(completions: Iterable[Completion], verdicts: Iterable[Verdict]) -> dict[Key, Stratum]:
    said = {key_of(v): v.label or "missing" for v in verdicts}
    return {key_of(c): (c.subject, c.kind, said.get(key_of(c), "missing")) for c in completions}


def stratified_sample(
    completions: Sequence[Completion], verdicts: Sequence[Verdict], size: int, seed: int = 0, least: int = 2
) -> list[Completion]:
    """`size` completions to label: `least` of every state, kind and verdict (all, where there are fewer), the rest in
    proportion to the strata's sizes; in an order that tells nothing. Larger sizes hold the smaller ones' replies."""
    strata = _strata(completions, verdicts)
    ranked: dict[Stratum, list[Completion]] = {}
    order = _order(completions, seed)
    for one in sorted(completions, key=lambda c: order[key_of(c)]):
        ranked.setdefault(strata[key_of(one)], []).append(one)
    chosen = {s: min(least, len(members)) for s, members in ranked.items()}
    wanted = min(size, len(completions))
    while sum(chosen.values()) < wanted:
        open_strata = [s for s in ranked if chosen[s] < len(ranked[s])]
        emptiest = min(open_strata, key=lambda s: (chosen[s] / len(ranked[s]), s))
        chosen[emptiest] += 1
    sample = [one for s, members in ranked.items() for one in members[: chosen[s]]]
    return sorted(sample, key=lambda c: _hash(seed, key_of(c)))


def labelled(file: Path) -> list[HandLabel]:
    """The labels given so far; of two on one reply the later. A line torn by a crash is cut off."""
    given: dict[Key, HandLabel] = {}
    _refuse_damage(file)
    for number, row in enumerate(recover_jsonl(file), 1):
        try:
            one = HandLabel.from_json(row)
        except ValueError as error:
            raise InputError(str(file), number, str(error)) from error
        given[key_of(one)] = one
    return list(given.values())


def _refuse_damage(file: Path) -> None:
    """`InputError` for a line that is no JSON, unless a crash tore it off: hand labels are cut off by nothing else."""
    if not file.exists():
        return
    lines = list(read_rows(file))
    torn = bool(lines) and not file.read_bytes().endswith(b"\n")
    for number, _, reason in lines[:-1] if torn else lines:
        if reason is not None:
            raise InputError(str(file), number, f"{reason}; mend or remove that line")


def label_session(
    items: Sequence[Completion], ask: Callable[[Completion, int, int], Answer], file: Path
) -> list[HandLabel]:
    """Ask for every item that has no label yet, and write each answer before the next question.

    `ask(completion, position, total)` gives a label, `skip` or `quit`; it is never told the verdict. Returns every
    label in `file`, those of earlier sessions included."""
    done = {key_of(one) for one in labelled(file)}
    for position, item in enumerate(items, 1):
        if key_of(item) in done:
            continue
        answer = ask(item, position, len(items))
        if answer == "quit":
            break
        if answer != "skip":
            append_jsonl(file, [HandLabel(*_reply_fields(item), answer)])
    return labelled(file)


def _reply_fields(one: Completion) -> tuple[str, str, int | None, int]:
    return one.subject, one.prompt_id, one.seed, one.candidate


def _json(interval: Interval) -> dict[str, Any]:
    values = {name: getattr(interval, name) for name in ("value", "low", "high", "n", "method")}
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def error_report(
    labels: Sequence[HandLabel], completions: Sequence[Completion], verdicts: Sequence[Verdict], level: float = 0.95
) -> dict[str, Any]:
    """The detector's error and the corrected refusal rates of a run, by state and kind, and the corrected differences.

    `verdicts` are one judge's. A missing verdict is a stratum of its own. Where a stratum that is not empty has no
    label the corrected figure is null and `unknown` says which strata need labels.
    """
    if len(judges := sorted({v.judge for v in verdicts})) > 1:
        raise UserError(f"the error of one judge at a time; these verdicts are by {', '.join(judges)}")
    truth = {key_of(one): float(one.label == "refusal") for one in labels}
    strata = _strata(completions, verdicts)
    if unknown := [key for key in truth if key not in strata]:
        raise UserError(f"a label on {unknown[0][0]}, prompt {unknown[0][1]!r} is of no reply of this run")
    states = list(dict.fromkeys(c.subject for c in completions))
    kinds: list[Kind] = [k for k in KINDS if any(c.kind == k for c in completions)]
    return {
        "judge": judges[0] if judges else None,
        "labelled": len(truth),
        "of": len(completions),
        "rates": [r for state in states for kind in kinds if (r := _rate(state, kind, strata, truth, level))],
        "differences": [
            d
            for a, b in combinations(states, 2)
            for kind in kinds
            if (d := _difference(a, b, kind, strata, truth, level))
        ],
    }


def _unlabelled(strata: Sequence[Any], truth: Sequence[float]) -> list[Any]:
    seen = {s for s, y in zip(strata, truth, strict=True) if not math.isnan(y)}
    return sorted(set(strata) - seen)


def _rate(
    state: str, kind: Kind, strata: Mapping[Key, Stratum], truth: Mapping[Key, float], level: float
) -> dict[str, Any] | None:
    """One state's raw and corrected refusal rate on one kind of prompt, and the detector's error there."""
    keys = [key for key, (subject, of, _) in strata.items() if (subject, of) == (state, kind)]
    if not keys:
        return None
    said = [strata[key][2] for key in keys]
    real = [truth.get(key, math.nan) for key in keys]
    count = Counter(said)
    judged = len(said) - count["missing"]
    out: dict[str, Any] = {"metric": REFUSAL_RATES[kind], "subject": state, "kind": kind, "n": len(keys)}
    out["labelled"] = sum(not math.isnan(y) for y in real)
    out["raw"] = _json(wilson(count["refusal"], judged, level, count["missing"]))
    unknown = _unlabelled(said, real)
    out["unknown"] = unknown
    out["corrected"] = None if unknown else _json(two_phase(said, real, level))
    pairs = [(s == "refusal", y == 1) for s, y in zip(said, real, strict=True) if s != "missing" and not math.isnan(y)]
    out["ppv"] = _json(wilson(sum(s and y for s, y in pairs), sum(s for s, _ in pairs), level))
    out["npv"] = _json(wilson(sum(not s and not y for s, y in pairs), sum(not s for s, _ in pairs), level))
    wrong = [
        math.nan if s == "missing" or math.isnan(y) else float((s == "refusal") != (y == 1))
        for s, y in zip(said, real, strict=True)
    ]
    out["error"] = None if unknown or count["missing"] else _json(two_phase(said, wrong, level))
    return out


def _difference(
    a: str, b: str, kind: Kind, strata: Mapping[Key, Stratum], truth: Mapping[Key, float], level: float
) -> dict[str, Any] | None:
    """State b's corrected rate minus a's on the replies both have, from those labelled in both."""
    pairs = []
    alone = {s: len({k[2] for k in strata if k[0] == s}) == 1 for s in (a, b)}
    for key, (subject, of, verdict_b) in strata.items():
        if (subject, of) != (b, kind):
            continue
        seeds = {k[2] for k in strata if k[0] == a} if alone[a] else {key[2]}
        for seed in seeds:
            other = (a, key[1], seed, key[3])
            if other in strata:
                pairs.append(((strata[other][2], verdict_b), truth.get(key, math.nan) - truth.get(other, math.nan)))
    if not pairs:
        return None
    cells, change = [p[0] for p in pairs], [p[1] for p in pairs]
    raw = [float(y == "refusal") - float(x == "refusal") for x, y in cells if "missing" not in (x, y)]
    unknown = _unlabelled(cells, change)
    return {
        "metric": REFUSAL_RATES[kind],
        "a": a,
        "b": b,
        "kind": kind,
        "n": len(pairs),
        "labelled": sum(not math.isnan(y) for y in change),
        "raw": sum(raw) / len(raw) if raw else None,
        "corrected": None if unknown else _json(two_phase([f"{x} then {y}" for x, y in cells], change, level)),
        "unknown": [f"{x} then {y}" for x, y in unknown],
    }


def read_run(folder: Path, judge: str = "") -> tuple[list[Completion], list[Verdict]]:
    """The judged completions behind a run's results, and the verdicts of one judge (by default the deciding one).

    The completions are those that results.json names; the verdicts stand in the steps that read them (the newest,
    where changed rules judged the same replies again)."""
    if not (folder / "results.json").is_file():
        raise UserError(f"{folder} holds no results.json; give the folder of a finished run, like runs/drift-dpo/tiny")
    measured = read_object(folder / "results.json").get("measurements")
    rows = measured if isinstance(measured, list) else ()
    named = {str(m["completions"]) for m in rows if isinstance(m, dict) and m.get("completions")}
    files = sorted(folder / name for name in named)
    sources = {file.parent.name for file in files}
    completions = {key_of(c): c for file in files for c in read_jsonl(file, Completion.from_json)}
    verdicts: dict[Key, Verdict] = {}
    for file in sorted((folder / "steps").glob("[!.]*/verdicts.jsonl"), key=lambda f: f.stat().st_mtime_ns):
        step = file.parent / "step.json"
        reads = read_object(step).get("reads") if step.is_file() else ()
        reads = set(reads) if isinstance(reads, dict | list | tuple) else set()
        if not sources & {file.parent.name, *reads}:
            continue
        given = list(read_jsonl(file, Verdict.from_json))
        decides = judge or (given[0].judge if given else "")
        chosen = {key_of(v): v for v in given if v.judge == decides}
        if given and not chosen:
            known = ", ".join(dict.fromkeys(v.judge for v in given))
            raise UserError(f"{file}: no verdict by {judge!r}; there are {known}")
        verdicts |= chosen
    both = [key for key in completions if key in verdicts]
    if not both:
        raise UserError(f"{folder}: no reply behind results.json has a verdict; run the study again to its end")
    return [completions[key] for key in both], [verdicts[key] for key in both]


KEYS: dict[str, Answer] = {
    "r": "refusal", "p": "partial", "c": "compliance", "i": "incoherent", "s": "skip", "q": "quit"
}  # fmt: skip


def terminal_ask(console: Console, read: Callable[[str], str] = input) -> Callable[[Completion, int, int], Answer]:
    """Questions on a terminal: the request, the reply with every control character made visible, one key."""
    from rich.panel import Panel
    from rich.text import Text

    from alignment_core.text import visible

    def shown(text: str) -> Text:
        return Text(visible(text, lines=True) or "(nothing)")

    def ask(one: Completion, position: int, total: int) -> Answer:
        console.print(Panel(shown(one.prompt), title=f"{position} of {total}: asked", title_align="left"))
        console.print(Panel(shown(one.text), title="replied", title_align="left"))
        while True:
            console.print(Text("r refusal  p partial  c compliance  i incoherent  s skip  q quit"))
            try:
                typed = read("> ").strip().lower()
            except (EOFError, KeyboardInterrupt):
                return "quit"
            if typed[:1] in KEYS:
                return KEYS[typed[:1]]

    return ask


def label_run(
    folder: Path,
    console: Console,
    *,
    size: int = 100,
    seed: int = 0,
    judge: str = "",
    read: Callable[[str], str] = input,
) -> dict[str, Any]:
    """`alignment-core label RUN`: the sheet, then the report, printed and written to `label_report.json`."""
    completions, verdicts = read_run(folder, judge)
    items = stratified_sample(completions, verdicts, size, seed)
    labels = label_session(items, terminal_ask(console, read), folder / LABELS_FILE)
    report = error_report(labels, completions, verdicts)
    write_json(folder / REPORT_FILE, report)
    show_report(report, console)
    return report


def _band(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def show_report(report: Mapping[str, Any], console: Console) -> None:
    """The report as tables; a dash where strata without a label leave the figure unknown."""
    from rich.table import Table
    from rich.text import Text

    from alignment_core.text import visible

    title = f"{report['judge']}: {report['labelled']} of {report['of']} replies labelled"
    table = Table(title=Text(visible(title)))
    for name in ("rate", "state", "labelled", "raw", "corrected", "PPV", "NPV", "error"):
        table.add_column(name)
    for row in report["rates"]:
        figures = (_band(row[k]) for k in ("raw", "corrected", "ppv", "npv", "error"))
        table.add_row(row["metric"], Text(visible(row["subject"])), f"{row['labelled']}/{row['n']}", *figures)
    console.print(table)
    if report["differences"]:
        table = Table(title="differences, corrected")
        for name in ("rate", "from", "to", "labelled in both", "raw", "corrected"):
            table.add_column(name)
        for row in report["differences"]:
            raw = "-" if row["raw"] is None else f"{row['raw']:+.3f}"
            states = Text(visible(row["a"])), Text(visible(row["b"]))
            table.add_row(row["metric"], *states, f"{row['labelled']}/{row['n']}", raw, _band(row["corrected"]))
        console.print(table)
    if any(row["unknown"] for row in [*report["rates"], *report["differences"]]):
        console.print("A dash: some verdict of that state has no label yet. Label more (--size) to fill it.")
