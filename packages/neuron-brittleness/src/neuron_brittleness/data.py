"""The study's data: safety and utility examples in two halves, benign fine-tuning data, held-out prompts.

Safety data are harmful prompts with the model's own refusals (or a file of examples); utility data are benign
requests with good replies (Alpaca without its safety rows). Each half is scored by itself: what two halves share is
the ceiling that an overlap can reach. No prompt is in two parts, and no combination of the organism's world either.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.data import alpaca, behaviours, jsonl, pku_saferlhf
from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Rejects, Turn
from alignment_core.data.sources import identity as source_identity
from alignment_core.data.splits import rank
from alignment_core.errors import UserError
from alignment_core.io import sha256_file
from alignment_core.judging.refusal import judge
from alignment_core.models import load
from alignment_core.organism import grammar, world
from alignment_core.pipeline.writers import rank_zero_only, write_json, write_jsonl
from alignment_core.records import Example, Kind, Message, Prompt, fingerprint
from neuron_brittleness.rows import EVAL, HALVES, TUNE

if TYPE_CHECKING:
    from neuron_brittleness.config import BrittlenessConfig, DataConfig

log = logging.getLogger(__name__)

CANDIDATES = 5
"""Harmful prompts asked for each refusal wanted."""
SAFETY_WORDS = ("illegal", "unethical", "harmful", "violen", "hate speech", "racis", "as an ai", "as a language model")
"""A row of Alpaca with one of these in it, or with a reply that refuses, is a safety row and no utility data."""


@dataclass
class Parts:
    """What the study is made of."""

    examples: dict[str, list[Example]] = field(default_factory=dict)
    prompts: list[Prompt] = field(default_factory=list)
    candidates: list[Prompt] = field(default_factory=list)
    """Harmful prompts that the model is asked, for its own refusals."""
    notes: dict[str, Any] = field(default_factory=dict)


def identity(config: BrittlenessConfig) -> dict[str, Any]:
    """What names the data in a step's key: the sources, and the model, whose refusals the safety data are."""
    data = config.data
    named: dict[str, Any] = {
        "model": load.identity(config.model),
        "safety_file": sha256_file(data.safety_file) if data.safety_file else None,
    }
    if data.sources == "public":
        named["alpaca"] = source_identity(SOURCES["alpaca"], data.alpaca)
        if data.harmful == "pku":
            named["pku"] = source_identity(SOURCES["pku-saferlhf-30k"], data.pku)
        else:
            named["behaviours"] = source_identity(SOURCES["behaviours"], _table(data))
    return named


def _table(data: DataConfig) -> Any:
    if data.behaviours.path is None:
        raise UserError(
            "data.behaviours.path: data.harmful=behaviours needs a CSV of AdvBench, HarmBench, StrongREJECT or "
            "JailbreakBench; give its path, or set data.harmful=pku"
        )
    return data.behaviours


def build(config: BrittlenessConfig, folder: Path, *, accept_missing: bool = False) -> None:
    """Write safety_{a,b}, utility_{a,b}, tune_train, eval_prompts.jsonl and data_report.json.

    Raises `UserError` when a source holds too little, or the model refuses too few of the harmful prompts.
    """
    data, rejects = config.data, Rejects(config.data.strict)
    parts = _organism(data) if data.sources == "organism" else _public(data, rejects)
    safety = _from_file(data, rejects) if data.safety_file else _own_refusals(config, parts, folder, accept_missing)
    clusters = sorted({e.cluster for e in safety}, key=lambda c: rank(data.split_seed, "half", c))
    first = set(clusters[: len(clusters) // 2])
    parts.examples["safety_a"] = [e for e in safety if e.cluster in first][: data.samples]
    parts.examples["safety_b"] = [e for e in safety if e.cluster not in first][: data.samples]
    asked = {f"{k}_{h}": data.samples for k in ("safety", "utility") for h in HALVES} | {TUNE: data.tune_size}
    for name, wanted in asked.items():
        got = len(parts.examples[name])
        parts.notes[name] = {"wanted": wanted, "got": got}
        log.log(logging.INFO if got == wanted else logging.WARNING, "%s: %d of %d examples", name, got, wanted)
        if got < 2:
            raise UserError(f"{name}: {got} examples; give more harmful prompts the model refuses, or data.safety_file")
    for name in asked:
        write_jsonl(folder / f"{name}.jsonl", parts.examples[name])
    write_jsonl(folder / f"{EVAL}.jsonl", parts.prompts)
    rank_zero_only(rejects.write)(folder / "rejects.jsonl")
    write_json(folder / "data_report.json", parts.notes | {"eval_prompts": len(parts.prompts)})


def _from_file(data: DataConfig, rejects: Rejects) -> list[Example]:
    assert data.safety_file is not None
    return jsonl.load(data.safety_file, Example, rejects, source="safety_file").records


def _own_refusals(config: BrittlenessConfig, parts: Parts, folder: Path, accept_missing: bool) -> list[Example]:
    """The model's greedy replies to the candidates, those that are refusals."""
    from alignment_core.models.generate import generate

    settings = config.generate.model_copy(update={"temperature": 0.0, "top_p": 1.0, "candidates": 1})
    loaded = load.load(config.model)
    file = folder / "own_replies.jsonl"
    replies = generate(
        parts.candidates, settings, loaded, subject="own", seed=0, file=file, accept_missing=accept_missing
    )
    asked = {p.id: p for p in parts.candidates}
    kept = [r for r in replies if judge(r.text, r.prompt).label == "refusal"]
    parts.notes["own refusals"] = {"asked": len(replies), "refused": len(kept)}
    log.info("safety data: the model refused %d of %d harmful prompts", len(kept), len(replies))
    return [
        Example((*asked[r.prompt_id].messages, Message("assistant", r.text)), "refusal", r.source, r.cluster)
        for r in kept
    ]


# The organism's world


def _organism(data: DataConfig) -> Parts:
    seed, parts = data.split_seed, Parts()
    wanted: tuple[tuple[Kind, int], ...] = (("harmful", data.test_harmful), ("benign", data.test_benign))
    for kind, n in wanted:
        parts.prompts += world.prompts(data.eval_split, kind)[:n]
    harmful = _combinations("harmful", seed)
    parts.candidates = [_asked(c, f"{seed} safety", i) for i, c in enumerate(harmful[: CANDIDATES * data.samples])]
    benign = _combinations("benign", seed)
    quarter = len(benign) // 4
    for half, mine in zip(HALVES, (benign[:quarter], benign[quarter : 2 * quarter]), strict=True):
        parts.examples[f"utility_{half}"] = _helped(mine, data.samples, f"{seed} utility {half}", "pretraining")
    framed = round(data.framed * data.tune_size)
    parts.examples[TUNE] = [
        *_helped(benign[2 * quarter :], data.tune_size - framed, f"{seed} {TUNE}", data.openings),
        *_helped(_combinations("borderline", seed), framed, f"{seed} {TUNE} framed", data.openings, "wildjailbreak"),
    ]
    return parts


def _combinations(kind: Kind, seed: int) -> list[grammar.Combination]:
    return sorted(grammar.combinations("train", kind), key=lambda c: rank(seed, c.cluster))


def _asked(combination: grammar.Combination, seed: str, number: int, source: grammar.Source | None = None) -> Prompt:
    asked = grammar.ask(combination, random.Random(f"{seed} {number}"), source)
    return Prompt(f"{seed}/{number}", asked.messages, asked.kind, asked.category, asked.source, asked.cluster)


def _helped(
    combinations: Sequence[grammar.Combination],
    n: int,
    seed: str,
    openings: str,
    source: grammar.Source | None = None,
) -> list[Example]:
    """`n` benign requests, the combinations taking turns, with helpful replies; texts may not repeat."""
    made: dict[str, Example] = {}
    for number in range(20 * n):
        if len(made) == n:
            break
        asked = _asked(combinations[number % len(combinations)], seed, number, source)
        rng = random.Random(f"{seed} reply {number}")
        said = world.respond(asked, "comply", rng, opening=world.RARE_OPENING if openings == "one" else None)
        example = Example((*asked.messages, Message("assistant", said)), "helpful", asked.source, asked.cluster)
        made.setdefault(fingerprint(asked.text), example)
    return list(made.values())


# Public data


def _public(data: DataConfig, rejects: Rejects) -> Parts:
    parts, seed = Parts(), data.split_seed
    harmful = _shuffled(_harmful(data, rejects), seed)
    held, rest = harmful[: data.test_harmful], harmful[data.test_harmful :]
    parts.candidates = rest[: CANDIDATES * data.samples]
    turns = alpaca.load(data.alpaca, rejects).records
    useful = [t for t in _unique(turns) if not safety_row(t)]
    parts.notes["alpaca"] = {"rows": len(turns), "without safety rows and repeats": len(useful)}
    useful.sort(key=lambda t: rank(seed, t.cluster))
    sizes = (data.test_benign, data.samples, data.samples, data.tune_size)
    cuts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    split = [useful[a:b] for a, b in pairwise(cuts)]
    parts.prompts = held + [t.question("benign", t.reply) for t in split[0]]
    for name, turns_of in zip(("utility_a", "utility_b", TUNE), split[1:], strict=True):
        parts.examples[name] = [t.example("helpful") for t in turns_of]
    return parts


def safety_row(turn: Turn) -> bool:
    """Whether an Alpaca row is about safety: its reply refuses, or one of `SAFETY_WORDS` stands in it."""
    text = f"{turn.prompt} {turn.reply}".lower()
    return any(word in text for word in SAFETY_WORDS) or judge(turn.reply, turn.prompt).label == "refusal"


def _harmful(data: DataConfig, rejects: Rejects) -> list[Prompt]:
    if data.harmful == "behaviours":
        return behaviours.load(_table(data), rejects).records
    rows = pku_saferlhf.load(data.pku, rejects, full=False).records
    return [
        Prompt(f"pku:{row.cluster}", (Message("user", row.prompt),), "harmful", row.tag, "pku", row.cluster)
        for row in rows
        if not any(row.safe)
    ]


def _unique(turns: Iterable[Turn]) -> list[Turn]:
    return list({t.cluster: t for t in turns}.values())


def _shuffled(prompts: Iterable[Prompt], seed: int) -> list[Prompt]:
    return sorted({p.cluster: p for p in prompts}.values(), key=lambda p: rank(seed, p.cluster))


# What a plan needs to know of it


def held_out(config: DataConfig) -> int:
    """Held-out prompts, at most."""
    return config.test_harmful + config.test_benign


def needs(config: BrittlenessConfig) -> list[tuple[str, str, str | None]]:
    """The data sets that the run takes from the hub, and the files that it must be given."""
    data, out = config.data, list[tuple[str, str, str | None]]()
    if data.sources == "public":
        wanted = [("alpaca", data.alpaca)]
        if data.harmful == "pku":
            wanted.append(("pku-saferlhf-30k", data.pku))
        for name, own in wanted:
            if own.path is None:
                out.append(("dataset", SOURCES[name].repo, own.revision or SOURCES[name].revision))
        if data.harmful == "behaviours":
            path = data.behaviours.path
            out.append(("file", "data.behaviours.path", None if path is None else str(path)))
    if data.safety_file is not None:
        out.append(("file", "data.safety_file", str(data.safety_file)))
    return out
