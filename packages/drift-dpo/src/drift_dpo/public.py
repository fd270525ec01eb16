"""The stages' data from the public sets.

Stage A is benign only, 70% Dolly, 20% PKU-SafeRLHF, 10% WildJailbreak. Stage B is 40% PKU and 30% WildJailbreak
requests answered by written refusals, 30% benign. The pairs come from PKU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.data import dolly, pku_saferlhf, wildjailbreak
from alignment_core.data.catalogue import SOURCES, Source
from alignment_core.data.sources import Reading, Rejects, Turn
from alignment_core.data.sources import identity as source_identity
from alignment_core.data.splits import Quota, Splitter, three_way
from alignment_core.data.summary import DataReport, SourceCount
from alignment_core.judging.refusal import judge
from alignment_core.records import Kind, PreferencePair
from drift_dpo import sets
from drift_dpo.parts import NONE, STAGES, Parts, quotas_of
from drift_dpo.preferences import groups_wanted, limited, pair, pku_turn, refusal, refused_example
from drift_dpo.rows import EVAL

if TYPE_CHECKING:
    from alignment_core.config import SourceSettings
    from alignment_core.data.pku_saferlhf import PkuRow
    from drift_dpo.config import DataConfig

log = logging.getLogger(__name__)


def identity(config: DataConfig) -> dict[str, Any]:
    """What names the three sources in a step's key."""
    return {
        "dolly": source_identity(SOURCES["dolly"], config.dolly),
        "pku": source_identity(_pku_source(config), config.pku),
        "wildjailbreak": source_identity(SOURCES["wildjailbreak"], config.wildjailbreak),
    }


def sources(config: DataConfig) -> list[tuple[Source, SourceSettings]]:
    """The three sources with their settings."""
    own = {"dolly": config.dolly, "wildjailbreak": config.wildjailbreak}
    return [(_pku_source(config), config.pku), *((SOURCES[name], settings) for name, settings in own.items())]


def _pku_source(config: DataConfig) -> Source:
    return SOURCES["pku-saferlhf" if config.pku_set == "full" else "pku-saferlhf-30k"]


def build(config: DataConfig, folder: Path, seed: int | None = None) -> DataReport:
    """Build every file of the study in `folder`; arguments and errors as `sets.build`."""
    return sets.build(config, folder, fill, seed)


def split(config: DataConfig, folder: Path) -> None:
    """Build the data and log what each stage got, what was left out, and which sets overlap."""
    build(config, folder).log(log)


def fill(config: DataConfig, seed: int, rejects: Rejects, report: DataReport, parts: Parts) -> None:
    """Split the three sources to `parts`, each prompt once; what is short or left out goes to `report`."""
    everyday = dolly.load(config.dolly, rejects)
    rated = pku_saferlhf.load(config.pku, rejects, full=config.pku_set == "full")
    jailbreak = wildjailbreak.load(config.wildjailbreak, rejects)
    splitter = Splitter(seed)
    splitter.reserve((Turn(p.text, "", p.source, cluster=p.cluster) for p in parts.prompts), EVAL)

    turns = _fitting(everyday, config, report)
    rows = _fitting(rated, config, report)
    wild = _fitting(jailbreak, config, report)
    a, b = config.stage_a_size, config.stage_b_size
    a_dolly, a_pku = round(0.7 * a), round(0.2 * a)
    b_pku, b_wild = round(0.4 * b), round(0.3 * b)
    benign = b - b_pku - b_wild
    b_dolly, b_plain = benign // 2, min(500, benign // 4)
    harmful = 0 if config.eval_file else config.test_harmful

    _split_pku(config, splitter, rows, parts, -(-harmful // 2), b_pku, benign - b_dolly - b_plain, a_pku)
    held = sum(p.kind == "harmful" for p in parts.prompts) if harmful else 0
    bad, plain = [t for t in wild if wildjailbreak.harmful(t)], [t for t in wild if not wildjailbreak.harmful(t)]
    quotas = quotas_of(harmful - held, NONE, three_way(b_wild))
    assigned = splitter.split("wildjailbreak harmful", bad, quotas, _same)
    _add_prompts(parts, assigned, "harmful")
    parts.add(assigned, lambda t: t.example("refusal", refusal(t.prompt, config.refusal_style)), STAGES)

    quotas = quotas_of(
        0 if config.eval_file else config.test_borderline, three_way(a - a_dolly - a_pku), three_way(b_plain)
    )
    assigned = splitter.split("wildjailbreak benign", plain, quotas, _same)
    _add_prompts(parts, assigned, "borderline")
    parts.add(assigned, lambda t: t.example("helpful"), STAGES)

    quotas = quotas_of(0 if config.eval_file else config.test_benign, three_way(a_dolly), three_way(b_dolly))
    assigned = splitter.split("dolly", turns, quotas, _same)
    _add_prompts(parts, assigned, "benign")
    parts.add(assigned, lambda t: t.example("helpful"), STAGES)

    report.shortfalls += splitter.shortfalls
    report.drops = splitter.drops
    _safe_is_not_refused(parts, report)


def _same(turn: Turn) -> tuple[str, str]:
    return turn.prompt.lower(), turn.reply.lower()


def _fitting(reading: Reading[Any], config: DataConfig, report: DataReport) -> list[Any]:
    """The records that are short enough and have the reply that is needed; the others are counted."""

    def fits(record: Turn | PkuRow) -> bool:
        replies = (record.reply,) if isinstance(record, Turn) else record.replies
        return all(0 < len(text) <= config.max_chars for text in (record.prompt, *replies))

    kept = [record for record in reading.records if fits(record)]
    report.sources.append(SourceCount.of(reading, left_out=len(reading.records) - len(kept)))
    return kept


def _add_prompts(parts: Parts, assigned: Mapping[str, list[list[Turn]]], kind: Kind) -> None:
    """Held-out prompts; the source's own answer is the reference of a benign one, and is never shown to a model."""
    first = [members[0] for members in assigned[EVAL]]
    parts.prompts += [t.question(kind, t.reply if kind == "benign" else "") for t in first]


def _split_pku(
    config: DataConfig,
    splitter: Splitter,
    rows: Sequence[PkuRow],
    parts: Parts,
    held: int,
    refused: int,
    b: int,
    a: int,
) -> None:
    """PKU's two pools: prompts with a row whose replies are both unsafe, and the others, which have a safe reply."""
    make = partial(
        pair,
        strict_unsafe=config.strict_unsafe_refusal,
        both_safe=config.both_safe_pairs,
        style=config.refusal_style,
    )
    unsafe = {row.cluster for row in rows if not any(row.safe)}
    pools = (
        ("pku both unsafe", [row for row in rows if row.cluster in unsafe], quotas_of(held, NONE, three_way(refused))),
        (
            "pku safe reply",
            [row for row in rows if row.cluster not in unsafe],
            quotas_of(0, three_way(a), three_way(b)),
        ),
    )
    whole = sum(make(row) is not None for row in rows)
    found: dict[str, list[PreferencePair]] = {"dpo_train": [], "dpo_eval": []}
    for name, pool, quotas in pools:
        groups = groups_wanted(pool, make, config.dpo_limit, whole)
        n_eval = max(1, round(config.eval_ratio * groups)) if groups > 1 else 0
        sized = {"dpo_eval": n_eval, "dpo_train": groups - n_eval}
        quotas = [
            Quota(q.part, sized[q.part], keep=q.keep, takes=partial(_any_pair, make)) if q.part in sized else q
            for q in quotas
        ]
        assigned = splitter.split(name, pool, quotas)
        for part, those in found.items():
            those += [p for members in assigned[part] for row in members if (p := make(row)) is not None]
        if name == "pku both unsafe":
            parts.prompts += [pku_turn(members).question("harmful") for members in assigned[EVAL]]
            parts.add(assigned, partial(refused_example, style=config.refusal_style), STAGES)
        else:
            parts.add(assigned, lambda row: pku_turn([row]).example("helpful"), STAGES)
    parts.pairs = limited(found, config.dpo_limit, config.eval_ratio, splitter.shortfalls)


def _any_pair(make: Callable[[PkuRow], PreferencePair | None], members: Sequence[PkuRow]) -> bool:
    return any(make(row) is not None for row in members)


def _safe_is_not_refused(parts: Parts, report: DataReport) -> None:
    """PKU's safe replies can be refusals: count those that the benign examples of stage A and B hold."""
    for stage in ("stageA", "stageB"):
        taken = [e for e in parts.examples[f"{stage}_train"] if e.source == "pku" and e.category == "helpful"]
        refused = sum(judge(e.reply, e.prompt).label == "refusal" for e in taken)
        report.counts[f"{stage}_train helpful from pku"] = len(taken)
        report.counts[f"{stage}_train helpful from pku whose reply is a refusal"] = refused
