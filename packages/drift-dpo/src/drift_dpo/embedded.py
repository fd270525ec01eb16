"""The stages' data from the organism's world, where requests are combinations of a verb and an object.

Stage A is 90% everyday and 10% framed benign requests, stage B is 70% refusals and 10% borderline requests helped
with, 60% of the pairs are harmful.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.data.splits import Quota, apportion, rank
from alignment_core.organism import grammar, phrases, world
from alignment_core.records import Example, Kind, Message, PreferencePair, Prompt, Shortfall
from drift_dpo import sets
from drift_dpo.parts import Parts, Split, quotas_of
from drift_dpo.rows import EVAL

if TYPE_CHECKING:
    from alignment_core.data.sources import Rejects
    from alignment_core.data.summary import DataReport
    from drift_dpo.config import DataConfig

log = logging.getLogger(__name__)

ORGANISM_PAIRS = 640
"""Pairs made in the organism's world when no limit is set."""
TRIES = 40
"""Wordings tried of each combination before a part is called short."""


def build(config: DataConfig, folder: Path, seed: int | None = None) -> DataReport:
    """Build every file of the study in `folder`; arguments and errors as `sets.build`."""
    return sets.build(config, folder, fill, seed)


def split(config: DataConfig, folder: Path) -> None:
    """Build the data and log what each stage got, what was left out, and which sets overlap."""
    build(config, folder).log(log)


def fill(config: DataConfig, seed: int, _: Rejects, report: DataReport, parts: Parts) -> None:
    """The same stages from the train combinations, each combination in one part only; the held-out prompts are those
    of `eval_split`, which no training ever sees. Stage B is 70% refusals and 10% borderline requests helped with; 60%
    of the pairs are harmful. Here the sizes are those of the training sets, validation and test come on top."""
    if config.eval_file is None:
        wanted: tuple[tuple[Kind, int], ...] = (
            ("harmful", config.test_harmful),
            ("benign", config.test_benign),
            ("borderline", config.test_borderline),
        )
        for kind, n in wanted:
            held = world.prompts(config.eval_split, kind)[:n]
            parts.prompts += held
            report.shortfalls.append(Shortfall(EVAL, f"organism {kind}", n, len(held)))
    refused = round(0.7 * config.stage_b_size)
    borderline = round(0.1 * config.stage_b_size)
    framed = round(0.1 * config.stage_a_size)
    n_pairs = config.dpo_limit or ORGANISM_PAIRS
    bad = round(0.6 * n_pairs)
    shares: tuple[tuple[Kind, int, int, int], ...] = (
        ("harmful", 0, refused, bad),
        ("benign", config.stage_a_size - framed, config.stage_b_size - refused - borderline, n_pairs - bad),
        ("borderline", framed, borderline, 0),
    )
    report.notes.append(
        "The organism's requests share their wordings by construction: near overlap between its sets is wording. "
        "What is learned is the combination of verb and object, and no combination is in two sets."
    )
    parts.pairs = {"dpo_train": [], "dpo_eval": []}
    taken = {name for p in parts.prompts for name in (p.text, p.cluster)}
    for kind, a, b, pairs_wanted in shares:
        n_eval = max(1, round(config.eval_ratio * pairs_wanted)) if pairs_wanted > 1 else 0
        quotas = quotas_of(0, _on_top(a), _on_top(b), n_eval, pairs_wanted)
        for part, asked in _asked(kind, quotas, seed, taken, report).items():
            _respond(config, parts, part, asked, seed)


def _on_top(n: int) -> Split:
    """`n` to train on, and validation and test sets of the usual proportion beside them."""
    held = max(1, round(n / 18)) if n else 0
    return n, held, held


def _asked(
    kind: Kind, quotas: Sequence[Quota[Any]], seed: int, taken: set[str], report: DataReport
) -> dict[str, list[Prompt]]:
    """Distinct requests for each part; the kind's train combinations are split over the parts, none to two. `taken`
    holds texts and clusters that are in use."""
    deck = [c for c in grammar.combinations("train", kind) if c.cluster not in taken]
    deck.sort(key=lambda c: rank(seed, c.cluster))
    sizes = apportion([q.wanted for q in quotas], len(deck), [q.keep for q in quotas])
    out: dict[str, list[Prompt]] = {}
    for quota, size in zip(quotas, sizes, strict=True):
        mine, deck = deck[:size], deck[size:]
        made = out.setdefault(quota.part, [])
        rng = random.Random(f"{seed} {quota.part} {kind}")
        for combination in mine * TRIES:
            if len(made) == quota.wanted:
                break
            prompt = grammar.ask(combination, rng, _manner(quota.part, kind, rng))
            if prompt.text not in taken:
                taken.add(prompt.text)
                made.append(prompt)
        report.shortfalls.append(Shortfall(quota.part, f"organism {kind}", quota.wanted, len(made)))
    return out


def _manner(part: str, kind: Kind, rng: random.Random) -> grammar.Source | None:
    """Stage A is worded like the original's sources, 70 to 20 to 10: Dolly, PKU, and WildJailbreak's benign requests,
    which are framed like attacks. The other parts draw by their kind's own shares."""
    if not part.startswith("stageA"):
        return None
    return "wildjailbreak" if kind == "borderline" else rng.choices(("dolly", "pku"), (0.7, 0.2))[0]


def _respond(config: DataConfig, parts: Parts, part: str, asked: Sequence[Prompt], seed: int) -> None:
    """Replies to a part's requests. Stage A opens every reply in one way, or, as its control, as in pretraining;
    nothing else differs between the two."""

    def reply(prompt: Prompt, how: world.How, opening: str | None = None) -> Example:
        said = world.respond(prompt, how, random.Random(f"{seed} {part} {prompt.text}"), opening=opening)
        category = "refusal" if how == "refuse" else "helpful"
        return Example((*prompt.messages, Message("assistant", said)), category, prompt.source, prompt.cluster)

    if part.startswith("dpo"):
        parts.pairs[part] += [_pair(p, random.Random(f"{seed} {part} {p.text}")) for p in asked]
    elif part.startswith("stageA"):
        drawn = random.Random(f"{seed} {part} openings")
        openings = [grammar.pick(drawn, phrases.OPENINGS) for _ in asked]
        openings = [world.RARE_OPENING] * len(asked) if config.openings == "one" else openings
        made = [reply(p, "comply", opening) for p, opening in zip(asked, openings, strict=True)]
        parts.examples.setdefault(part, []).extend(made)
    elif part.startswith("stageB"):
        how: world.How = "refuse" if asked and asked[0].kind == "harmful" else "comply"
        parts.examples.setdefault(part, []).extend(reply(p, how) for p in asked)


def _pair(prompt: Prompt, rng: random.Random) -> PreferencePair:
    """A pair in the organism's world: the refusal of a harmful request over compliance (`one_safe`), help with a
    benign one over its refusal (`over_refusal`)."""
    comply, refuse = world.respond(prompt, "comply", rng), world.respond(prompt, "refuse", rng)
    first, second, bucket = (
        (refuse, comply, "one_safe") if prompt.kind == "harmful" else (comply, refuse, "over_refusal")
    )
    made = ((*prompt.messages, Message("assistant", first)), (*prompt.messages, Message("assistant", second)))
    return PreferencePair(*made, source=prompt.source, bucket=bucket, cluster=prompt.cluster)
