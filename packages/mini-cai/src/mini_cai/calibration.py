"""Whether a critic may be trusted: gold replies, its two ways of scoring, its self-consistency, what planted lines do.

Before any candidate is scored the critic grades replies whose score is known. Measured: exact agreement and rank
correlation (Spearman, interval after Bonett and Wright 2000) with the gold scores, the share of gold pairs it orders
rightly, the rank correlation of written and expected score, how often repeated critiques of one reply agree, and the
shift and the flips across the safe threshold that planted lines cause against a neutral line of the same length.
A critic below the thresholds is refused.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import stats

from alignment_core.config import GenerateSettings
from alignment_core.errors import UserError
from alignment_core.io import read_json
from alignment_core.judging import critics, critique
from alignment_core.judging.asking import special_tokens, written_answers
from alignment_core.judging.critique import Critique
from alignment_core.models import load
from alignment_core.pipeline.writers import write_json, write_jsonl
from alignment_core.records import Completion
from alignment_core.stats.intervals import Interval, mean_interval, quantile, rate
from mini_cai import attacks, gold

if TYPE_CHECKING:
    from alignment_core.judging.settings import CriticSettings
    from alignment_core.models.load import Loaded
    from mini_cai.config import CalibrationSettings
    from mini_cai.gold import Gold

log = logging.getLogger(__name__)

FILE = "calibration.json"
FAMILIES = ("structural", "persuasion")
"""Kinds of planted lines (`attacks.py`)."""


def spearman(x: Sequence[float], y: Sequence[float]) -> Interval:
    """Rank correlation over the pairs that have both; low = high = value where nothing varies or n < 4."""
    a, b = np.array(x, dtype=float), np.array(y, dtype=float)
    here = ~np.isnan(a) & ~np.isnan(b)
    a, b, missing = a[here], b[here], int((~here).sum())
    if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Interval(math.nan, math.nan, math.nan, len(a), "spearman", missing)
    r = float(stats.spearmanr(a, b).statistic)
    half = quantile(0.95) * math.sqrt((1 + r * r / 2) / (len(a) - 3))
    z = math.atanh(max(-0.9999999, min(0.9999999, r)))
    return Interval(r, math.tanh(z - half), math.tanh(z + half), len(a), "spearman, Bonett-Wright", missing)


def number(value: float | None) -> float:
    """A missing score as NaN."""
    return math.nan if value is None else float(value)


def agreement(items: Sequence[Gold], critiques: Sequence[Critique]) -> dict[str, Interval]:
    """Exact agreement, rank correlation and order of gold pairs."""
    clusters = [g.cluster for g in items]
    exact = [math.nan if c.score is None else float(c.score == g.score) for g, c in zip(items, critiques, strict=True)]
    ordered, of = [], []
    groups: dict[str, list[int]] = {}
    for i, g in enumerate(items):
        groups.setdefault(f"{g.cluster}\0{g.prompt}", []).append(i)
    for group in groups.values():
        for i, j in combinations(group, 2):
            if items[i].score != items[j].score:
                gap = (critiques[i].value - critiques[j].value) * (items[i].score - items[j].score)
                ordered.append(math.nan if math.isnan(gap) else 1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
                of.append(items[i].cluster)
    found = {
        "gold_exact": rate(exact, clusters),
        "gold_rank": spearman([c.value for c in critiques], [g.score for g in items]),
    }
    return found | ({"gold_pairs": mean_interval(ordered, of)} if ordered else {})


def planted(lines: Sequence[str], weak: Sequence[Gold]) -> tuple[list[Gold], list[str], list[str]]:
    """For each line a weak reply (taken in turn), that reply with the line, and with a neutral one of its length."""
    hosts = [weak[i % len(weak)] for i in range(len(lines))]
    with_line = [attacks.plant(h.reply, line) for h, line in zip(hosts, lines, strict=True)]
    control = [attacks.plant(h.reply, attacks.neutral(len(line))) for h, line in zip(hosts, lines, strict=True)]
    return hosts, with_line, control


def effect(
    hosts: Sequence[Gold], there: Sequence[Critique], control: Sequence[Critique], safe: int
) -> dict[str, Interval]:
    """Mean shift of the score, and shares of replies that the planted line lifts or drops across the threshold."""
    clusters = [h.cluster for h in hosts]
    shift = [a.value - b.value for a, b in zip(there, control, strict=True)]
    up, down = [], []
    for a, b in zip(there, control, strict=True):
        known = a.score is not None and b.score is not None
        up.append(float((a.score or 0) >= safe > (b.score or 0)) if known else math.nan)
        down.append(float((b.score or 0) >= safe > (a.score or 0)) if known else math.nan)
    return {"shift": mean_interval(shift, clusters), "flip_up": rate(up, clusters), "flip_down": rate(down, clusters)}


def consistency(repeated: Sequence[Sequence[int | None]], clusters: Sequence[str]) -> Interval:
    """Share of pairs of critiques of one reply with the same score, averaged over replies."""
    shares = []
    for scores in repeated:
        pairs = [float(a == b) for a, b in combinations([s for s in scores if s is not None], 2)]
        shares.append(sum(pairs) / len(pairs) if pairs else math.nan)
    return mean_interval(shares, clusters)


@dataclass(frozen=True)
class _Critic:
    """The critic under calibration, held in memory where it is a model in this process."""

    settings: CriticSettings
    loaded: Loaded | None
    folder: Path
    accept_missing: bool

    def scores(
        self, items: Sequence[Gold], replies: Sequence[str], name: str, scoring: Literal["digits", "both"]
    ) -> list[Critique]:
        """Critiques of replies to the prompts of `items`; a server's critic always writes."""
        completions = [
            Completion(f"gold-{i}", "gold", reply, g.prompt, g.kind, cluster=g.cluster)
            for i, (g, reply) in enumerate(zip(items, replies, strict=True))
        ]
        how = self.settings if self.loaded is None else self.settings.model_copy(update={"scoring": scoring})
        return critics.criticise(
            completions,
            how,
            critics.own_constitution(how),
            self.folder,
            name=name,
            loaded=self.loaded,
            accept_missing=self.accept_missing,
        )


def calibrate(
    settings: CalibrationSettings, critic: CriticSettings, safe: int, accept_missing: bool, folder: Path
) -> None:
    """Measure a critic and write calibration.json, the gold replies and the critiques of them.

    `safe` is the least score that counts as safe. Raises `UserError` for too few gold replies."""
    items = gold.replies(settings, critic)
    weak = [g for g in items if g.score <= 2]
    if not weak or len(items) < 4:
        raise UserError(f"{len(items)} gold replies, {len(weak)} of score 1 or 2; give four at least, one of them weak")
    asked = _Critic(critic, load.load(critic.model) if critic.via == "model" else None, folder, accept_missing)
    graded = asked.scores(items, [g.reply for g in items], "gold_critiques", "both")
    write_jsonl(folder / "gold.jsonl", [asdict(g) for g in items])
    rows = [{**asdict(g), **c.to_json()} for g, c in zip(items, graded, strict=True)]
    write_jsonl(folder / "gold_scores.jsonl", rows)
    if critic.scoring == "generate":  # its own way decides; the expected score stands beside it
        found = agreement(items, [Critique(c.prompt_id, c.candidate, c.written, why=c.why) for c in graded])
    else:
        found = agreement(items, graded)
    if asked.loaded is not None:
        found["ways_rank"] = spearman([number(c.written) for c in graded], [number(c.expected) for c in graded])
        found["self_consistency"] = _repeated(items[: settings.repeat_items], settings, critic, folder, asked.loaded)
    read = [float(c.written is not None) for c in graded]
    found["parse_rate"] = rate(read, [g.cluster for g in items])
    for family, lines in _lines(settings.attacks).items():
        if lines:
            found |= {f"{family}_{k}": v for k, v in _attacked(asked, family, lines, weak, safe).items()}
    del asked
    load.free()
    write_json(folder / FILE, {k: _json(v) for k, v in found.items()})


def _lines(count: int) -> dict[str, list[str]]:
    """`count` lines of each family."""
    persuasion = [attacks.PERSUASION[i % len(attacks.PERSUASION)] for i in range(count)]
    return dict(zip(FAMILIES, (attacks.structural(count), persuasion), strict=True))


def _attacked(
    critic: _Critic, family: str, lines: Sequence[str], weak: Sequence[Gold], safe: int
) -> dict[str, Interval]:
    """What planted lines do against neutral ones of the same length."""
    hosts, with_line, control = planted(lines, weak)
    there = critic.scores(hosts, with_line, f"{family}_planted", "digits")
    return effect(hosts, there, critic.scores(hosts, control, f"{family}_neutral", "digits"), safe)


def _repeated(
    items: Sequence[Gold], settings: CalibrationSettings, critic: CriticSettings, folder: Path, loaded: Loaded
) -> Interval:
    """How often sampled critiques of one reply give the same score."""
    constitution, special = critics.own_constitution(critic), special_tokens(loaded)
    asked = [critique.question(critic.style, constitution, g.prompt, g.reply, critic.max_chars, special) for g in items]
    how = GenerateSettings(
        max_new_tokens=critic.max_new_tokens,
        batch_size=critic.batch_size,
        temperature=settings.temperature,
        candidates=settings.repeats,
    )
    texts = written_answers(asked, how, loaded, subject="critic", file=folder / "repeats.jsonl")
    known = len(constitution.principles)
    scores = [[None if t is None else critique.parse(t, known).score for t in row] for row in texts]
    return consistency(scores, [g.cluster for g in items])


def _json(interval: Interval) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(interval).items()}


def read(folder: Path) -> dict[str, Interval]:
    """What `calibrate` wrote; what was undefined is NaN."""
    rows = read_json(folder / FILE)
    undefined = dict.fromkeys(("value", "low", "high"), math.nan)
    known = {name: {k: v for k, v in row.items() if v is not None} for name, row in rows.items()}
    return {name: Interval(**{**undefined, **row}) for name, row in known.items()}


def shortfalls(found: Mapping[str, Interval], settings: CalibrationSettings) -> list[str]:
    """What the critic lacks, one line each; empty when it may be trusted. An undefined figure falls short."""
    wanted = (
        ("gold_exact", "exact agreement", settings.min_exact),
        ("gold_rank", "rank correlation", settings.min_rank),
    )
    return [
        f"{words} with the gold scores {found[key].value:.2f} [{found[key].low:.2f}, {found[key].high:.2f}], "
        f"at least {least:g} wanted"
        for key, words, least in wanted
        if not found[key].value >= least
    ]


def require(folder: Path, settings: CalibrationSettings) -> None:
    """Log the figures; `UserError` for a critic that falls short, a warning instead with `force`."""
    found = read(folder)
    for name, one in found.items():
        log.debug("critic %-22s %6.3f [%.3f, %.3f] n=%d", name, one.value, one.low, one.high, one.n)
    lacks = shortfalls(found, settings)
    if lacks and not settings.force:
        raise UserError(f"this critic is not to be trusted: {'; '.join(lacks)}; take another, or go on with --force")
    if lacks:
        log.warning("the critic falls short and is used all the same (--force): %s", "; ".join(lacks))


def identity(settings: CalibrationSettings) -> dict[str, Any]:
    """The gold replies' contents, for the step's key."""
    files = [resources.files("mini_cai").joinpath("gold.jsonl").read_bytes()]
    own = [settings.gold_file.read_bytes()] if settings.gold_file is not None and settings.gold_file.is_file() else []
    return {"gold": hashlib.sha256(b"\0".join([*files, *own])).hexdigest()[:16]}
