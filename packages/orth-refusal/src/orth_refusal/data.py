"""The study's data: every question in one part, within its topic: refusal adapter, attacks or test.

HarmfulQA's rows are grouped by normalised question (some stand twice) and split topic by topic, so that refusal,
attack and test share no question and each has all topics. Every conversation of a question and every assistant turn
of it becomes a row, with all that was said before as its context. Blue conversations make the refusal adapter, red
ones the attacks and, of held-out questions, the attack loss.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment_core.config import SourceSettings
from alignment_core.data import dolly, harmfulqa, xstest
from alignment_core.data.harmfulqa import Conversation, HarmfulQaRow
from alignment_core.data.overlap import Texts, overlap
from alignment_core.data.sources import SOURCES, Rejects, Source, read
from alignment_core.data.sources import identity as source_identity
from alignment_core.data.splits import Quota, Splitter, rank
from alignment_core.data.summary import DataReport, SourceCount, check_overlaps
from alignment_core.io import read_jsonl, sha256_file, write_jsonl
from alignment_core.judging.refusal import judge
from alignment_core.organism import world
from alignment_core.records import Completion, Example, Message, Prompt, fingerprint
from orth_refusal import embedded
from orth_refusal.config import DataConfig, OrthConfig

log = logging.getLogger(__name__)

CARD = {"blue": 9536, "red": 7356}
"""Conversations of each side by HarmfulQA's data card."""
PARTS = ("refusal", "attack", "benign", "held_out")
EVAL = "eval_prompts"
TURNS = 5
"""Assistant turns of a HarmfulQA conversation, roughly; for the estimate of steps only."""
FEW_REFUSALS = 0.5
"""Below this share of refusals among the blue replies the report warns."""


def identity(config: DataConfig) -> dict[str, Any]:
    """What names the data in a step's key."""
    path = config.synthetic_data_path
    named: dict[str, Any] = {"synthetic": sha256_file(path) if path else None}
    if config.sources == "public":
        for name in ("harmfulqa", "dolly", "xstest"):
            named[name] = source_identity(SOURCES[name], getattr(config, name))
    return named


def needs(config: OrthConfig) -> list[tuple[str, str, str | None]]:
    """The data sets that the run takes from the hub."""
    if config.data.sources == "organism":
        return []
    wanted = [(SOURCES[name], getattr(config.data, name)) for name in ("harmfulqa", "dolly", "xstest")]
    return [("dataset", s.repo, given.revision or s.revision) for s, given in wanted if given.path is None]


def turns(conversations: Iterable[Conversation], row: HarmfulQaRow, category: str) -> list[Example]:
    """One example for every assistant turn that answers somebody, with the conversation up to it."""
    out = []
    for number, talk in enumerate(conversations):
        for at, message in enumerate(talk):
            if message.role == "assistant" and any(m.role == "user" for m in talk[:at]):
                out.append(Example(talk[: at + 1], category, f"harmfulqa:{row.topic}:{number}", row.cluster))
    return out


def split_questions(
    rows: Sequence[HarmfulQaRow], config: DataConfig, report: DataReport
) -> dict[str, list[HarmfulQaRow]]:
    """Rows of `refusal`, `attack` and `test`: topic by topic, a question in one part only."""
    splitter = Splitter(config.split_seed)
    out: dict[str, list[HarmfulQaRow]] = {"refusal": [], "attack": [], "test": []}
    for topic in sorted({row.topic for row in rows}):
        mine = [row for row in rows if row.topic == topic]
        n = len({row.cluster for row in mine})
        first, second = round(config.refusal_share * n), round(config.attack_share * n)
        sizes = {"refusal": first, "attack": second, "test": max(0, n - first - second)}
        quotas: list[Quota[HarmfulQaRow]] = [Quota(part, size, keep=True) for part, size in sizes.items()]
        for part, groups in splitter.split(f"harmfulqa:{topic}", mine, quotas, same=repr).items():
            out[part] += [row for group in groups for row in group]
    report.drops, report.shortfalls = splitter.drops, splitter.shortfalls
    return out


def build(config: DataConfig, folder: Path) -> DataReport:
    """Write `refusal`, `attack`, `red`, `benign`, `held_out`.jsonl, eval_prompts.jsonl and data_report.json.

    `red` holds the red side of the refusal part's questions (for the blue − red direction): the attack's own
    questions stay unseen by the defender. Raises `UserError` for a source that cannot be had or holds nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report, rejects = DataReport(), Rejects(config.strict)
    try:
        made = _public(config, rejects, report) if config.sources == "public" else embedded.build(config, report)
        examples, prompts = made
        if config.synthetic_data_path is not None:
            examples["attack"] += _synthetic(config.synthetic_data_path, examples, prompts, rejects, report)
    finally:
        rejects.write(folder / "rejects.jsonl")
    report.rejects = rejects.reasons()
    for name, rows in examples.items():
        rows.sort(key=lambda e: rank(config.split_seed, "order", e.source, *(m.content for m in e.messages)))
        limit = {"refusal": config.refusal_limit, "attack": config.attack_limit, "red": config.refusal_limit,
                 "benign": config.benign_limit, "held_out": config.test_attack}.get(name, 0)  # fmt: skip
        report.files[f"{name}.jsonl"] = write_jsonl(folder / f"{name}.jsonl", rows[: limit or None])
    report.files[f"{EVAL}.jsonl"] = write_jsonl(folder / f"{EVAL}.jsonl", prompts)
    sets = {name: [e.prompt for e in rows] for name, rows in examples.items()}
    sets[EVAL] = [p.text for p in prompts]
    report.overlaps = check_overlaps(sets, [(EVAL, part) for part in ("refusal", "attack", "red", "benign")])
    report.write(folder / "data_report.json")
    return report


def split(config: DataConfig, folder: Path) -> None:
    """Build the data and log what each part got, what was left out, and which sets overlap."""
    build(config, folder).log(log)


def _public(config: DataConfig, rejects: Rejects, report: DataReport) -> tuple[dict[str, list[Example]], list[Prompt]]:
    reading = harmfulqa.load(config.harmfulqa, rejects)
    report.sources.append(SourceCount.of(reading))
    for side, expected in CARD.items():
        found = sum(len(getattr(row, side)) for row in reading.records)
        report.counts[f"{side} conversations (the card says {expected:,})"] = found
    parts = split_questions(reading.records, config, report)
    examples = {
        "refusal": [e for row in parts["refusal"] for e in turns(row.blue, row, "refusal")],
        "red": [e for row in parts["refusal"] for e in turns(row.red, row, "helpful")],
        "attack": [e for row in parts["attack"] for e in turns(row.red, row, "helpful")],
        "held_out": [e for row in parts["test"] for e in turns(row.red, row, "helpful")],
    }
    examples["refusal"] = blue_side(examples["refusal"], config.blue, report)
    asked = {row.cluster: _question(row) for row in parts["test"]}
    prompts = _taking_turns(list(asked.values()), config.test_harmful, config.split_seed)
    benign = dolly.load(config.dolly, rejects)
    report.sources.append(SourceCount.of(benign))
    rest = sorted(benign.records, key=lambda turn: rank(config.split_seed, turn.prompt))
    held = {t.cluster: t for t in rest}
    chosen = list(held.values())[: config.test_benign]
    prompts += [t.question("benign", t.reply) for t in chosen]
    taken = {t.cluster for t in chosen}
    examples["benign"] = [t.example("helpful") for t in rest if t.cluster not in taken]
    if config.test_borderline:
        safe = xstest.load(config.xstest, rejects)
        report.sources.append(SourceCount.of(safe))
        some = [p for p in safe.records if p.kind == "borderline"]
        prompts += sorted(some, key=lambda p: rank(config.split_seed, p.id))[: config.test_borderline]
    return examples, prompts


def blue_side(rows: list[Example], keep: str, report: DataReport) -> list[Example]:
    """The blue rows, all or those that the rules call refusals; the measured share is said, with a warning when low."""
    refused = [e for e in rows if judge(e.reply, e.prompt).label == "refusal"]
    share = len(refused) / len(rows) if rows else 0.0
    report.counts["blue replies that the rules call refusals, per mille"] = round(1000 * share)
    if share < FEW_REFUSALS:
        note = (
            f"only {share:.1%} of {len(rows):,} blue replies are refusals by the rules; the rest is harmless chat, and "
            "so is most of the direction. data.blue=refusals keeps the refusals alone"
        )
        report.notes.append(f"WARNING: {note}")
        log.warning("%s", note)
    return refused if keep == "refusals" else rows


def _question(row: HarmfulQaRow) -> Prompt:
    name = f"harmfulqa:{fingerprint(row.question)}"
    asked = (Message("user", row.question),)
    return Prompt(name, asked, "harmful", row.topic, "harmfulqa", row.cluster)


def _taking_turns(prompts: Sequence[Prompt], most: int, seed: int) -> list[Prompt]:
    """At most so many prompts, the categories taking turns."""
    by_topic: dict[str, list[Prompt]] = {}
    for prompt in sorted(prompts, key=lambda p: rank(seed, p.id)):
        by_topic.setdefault(prompt.category, []).append(prompt)
    placed = [((i, topic), prompt) for topic, some in by_topic.items() for i, prompt in enumerate(some)]
    ordered = sorted(placed, key=lambda entry: entry[0])
    return [prompt for _, prompt in ordered][:most]


def _synthetic(
    path: Path,
    examples: dict[str, list[Example]],
    prompts: Sequence[Prompt],
    rejects: Rejects,
    report: DataReport,
) -> list[Example]:
    """Rows of a `synthesize` file that touch no evaluation set; how many were left out is counted."""
    found = read(Source("synthetic", "", "", ("*.jsonl",), ""), SourceSettings(path=path), parse_synthetic, rejects)
    held = [p.text for p in prompts] + [e.prompt for e in examples["held_out"]]
    clean = without(found.records, held)
    report.counts["synthetic rows"] = len(clean)
    report.counts["synthetic rows left out: they stand in an evaluation set"] = len(found.records) - len(clean)
    return clean


def parse_synthetic(row: Mapping[str, Any]) -> Example:
    """An attack row as `synthesize` writes it: an example with `provenance`; without one the row is refused."""
    values = dict(row)
    if not isinstance(values.pop("provenance", None), Mapping):
        raise ValueError("'provenance' is missing: who made this row, from what, and how")
    return Example.from_json(values)


def without(rows: Sequence[Example], held: Sequence[str]) -> list[Example]:
    """The rows whose prompt stands in none of the held-out texts, neither exactly nor nearly."""
    vocabulary: dict[str, int] = {}
    against = Texts(held, vocabulary)
    out = []
    for row in rows:
        found = overlap(Texts([row.prompt], vocabulary), against, ("row", "evaluation"))
        if not (found.exact or found.near):
            out.append(row)
    return out


# What a plan and the evaluation need to know of it


def size(config: DataConfig, part: str) -> int:
    """Training rows of `refusal` (and `benign`, `red`, which take as many) or `attack`, at most; of the public set an
    estimate by its card."""
    name = "attack" if part == "attack" else "refusal"
    limit: int = getattr(config, f"{name}_limit")
    if config.sources == "organism":
        return limit or embedded.ROWS[name]
    share, side = (config.attack_share, "red") if name == "attack" else (config.refusal_share, "blue")
    rows = round(CARD[side] * share * TURNS)
    return min(rows, limit or rows)


def held_out(config: DataConfig) -> int:
    """Held-out prompts, at most."""
    return config.test_harmful + config.test_benign + config.test_borderline


def on_topic(replies: Sequence[Completion]) -> list[dict[str, Any]]:
    """Whether each reply is on the topic of its prompt, in the embedded model's world."""
    return [{"topic": world.topic(reply.prompt, reply.text)} for reply in replies]


# Reading what was built


def examples(folder: Path, part: str) -> list[Example]:
    """The rows of a part: refusal, red, attack, benign, held_out."""
    return list(read_jsonl(folder / f"{part}.jsonl", Example.from_json))


def prompts(folder: Path) -> list[Prompt]:
    """The held-out prompts."""
    return list(read_jsonl(folder / f"{EVAL}.jsonl", Prompt.from_json))


def replayed(attack: Sequence[Example], refusals: Sequence[Example], share: float, seed: int) -> list[Example]:
    """The attack's rows with `share` of them replaced by refusals, each where a row stood, so that the order of the
    others is what it was."""
    count = max(1, round(share * len(attack)))
    rng = random.Random(f"replay {seed}")
    out = list(attack)
    for place, row in zip(rng.sample(range(len(out)), count), rng.choices(refusals, k=count), strict=True):
        out[place] = row
    return out


def topics(rows: Iterable[Example]) -> Counter[str]:
    """How many rows each topic has."""
    return Counter(e.source.split(":")[1] if ":" in e.source else e.source for e in rows)
