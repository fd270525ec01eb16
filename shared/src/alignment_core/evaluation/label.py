"""Hand labels on a finished run, and what they say about the detector on that run.

A sample of replies, stratified by state, kind of prompt and verdict, is labelled blind to the verdict; labelling can
stop and resume at any time. Two-phase (double) sampling then gives each state's corrected refusal rate,
w PPV + (1-w)(1-NPV) for two verdicts, with the variance of both phases (Cochran 1977, ch. 12), and the corrected
difference of two states on replies labelled in both. An error rate from elsewhere would not do: fine-tuning changes
the style of refusals, and with it the detector's error.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, Self

from pydantic.dataclasses import dataclass

from alignment_core.errors import InputError, UserError
from alignment_core.evaluation.metrics import REFUSAL_RATES
from alignment_core.io import append_jsonl, read_rows, recover_jsonl
from alignment_core.records import KINDS, STRICT, Completion, Count, Kind, Label, Verdict, flat, parse
from alignment_core.stats.intervals import Interval, two_phase, wilson

Key = tuple[str, str, int | None, int]
"""Which reply: subject, prompt id, seed, candidate."""
Stratum = tuple[str, str, str]
"""State, kind of prompt, verdict (or `missing`)."""
Answer = Label | Literal["skip", "quit"]


def key_of(record: Completion | Verdict | HandLabel) -> Key:
    """The reply that a completion, a verdict or a hand label is about."""
    return record.subject, record.prompt_id, record.seed, record.candidate


@dataclass(frozen=True, slots=True, config=STRICT)
class HandLabel:
    """What a person said of one reply."""

    subject: str
    prompt_id: str
    seed: int | None
    candidate: Count
    label: Label

    def to_json(self) -> dict[str, Any]:
        return flat(self)

    @classmethod
    def from_json(cls, row: object) -> Self:
        return parse(cls, "label", row)


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
    proportion to the strata's sizes; in an order independent of the verdicts. Larger sizes hold the smaller's."""
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
            raise InputError(str(file), number, f"{reason}; correct or remove that line")


def label_session(
    items: Sequence[Completion], ask: Callable[[Completion, int, int], Answer], file: Path
) -> list[HandLabel]:
    """Ask for every item that has no label yet, and write each answer before the next question.

    `ask(completion, position, total)` gives a label, `skip` or `quit`; it never sees the verdict. Returns every
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
