"""The study's data from HarmfulQA: every question in one part, within its topic: refusal adapter, attacks or test.

HarmfulQA's rows are grouped by normalised question (some stand twice) and split topic by topic, so that refusal,
attack and test share no question and each has all topics. Every conversation of a question and every assistant turn
of it becomes a row, with all that was said before as its context. Blue conversations make the refusal adapter, red
ones the attacks and, of held-out questions, the attack loss.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.data import dolly, harmfulqa, xstest
from alignment_core.data.splits import Quota, Splitter, rank
from alignment_core.data.summary import DataReport, SourceCount
from alignment_core.judging.refusal import judge
from alignment_core.records import Example, Message, Prompt, fingerprint
from orth_refusal import sets

if TYPE_CHECKING:
    from alignment_core.data.harmfulqa import Conversation, HarmfulQaRow
    from alignment_core.data.sources import Rejects
    from orth_refusal.config import DataConfig

log = logging.getLogger(__name__)

CARD = {"blue": 9536, "red": 7356}
"""Conversations of each side by HarmfulQA's data card."""
FEW_REFUSALS = 0.5
"""Below this share of refusals among the blue replies the report warns."""


def build(config: DataConfig, folder: Path) -> DataReport:
    """Build every file of the study in `folder`; files and errors as `sets.build`."""
    return sets.build(config, folder, fill)


def split(config: DataConfig, folder: Path) -> None:
    """Build the data and log what each part got, what was left out, and which sets overlap."""
    build(config, folder).log(log)


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


def fill(config: DataConfig, rejects: Rejects, report: DataReport) -> sets.Made:
    """The rows of HarmfulQA, Dolly and XSTest, and the held-out prompts."""
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
