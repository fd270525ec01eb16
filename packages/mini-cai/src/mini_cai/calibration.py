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
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from alignment_core.errors import UserError
from alignment_core.io import read_json, read_jsonl, write_json, write_jsonl
from alignment_core.organism import world
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Completion, Kind, fingerprint
from alignment_core.stats.intervals import Interval, mean_interval, quantile, rate
from mini_cai import attacks, critics, critique
from mini_cai.config import CalibrationSettings, CriticSettings
from mini_cai.constitution import Constitution
from mini_cai.critique import Critique
from mini_cai.data import NAMES

log = logging.getLogger(__name__)

FILE = "calibration.json"
FAMILIES = ("structural", "persuasion")
"""Kinds of planted lines (`attacks.py`)."""


@dataclass(frozen=True, slots=True)
class Gold:
    """A reply whose score is known."""

    prompt: str
    reply: str
    score: int
    kind: Kind
    cluster: str

    @classmethod
    def from_json(cls, row: Any) -> Gold:
        if not isinstance(row, Mapping) or not all(isinstance(row.get(k), str) for k in ("prompt", "reply")):
            raise ValueError("gold: 'prompt' and 'reply' must be texts")
        if row.get("score") not in (1, 2, 3, 4, 5) or isinstance(row["score"], bool):
            raise ValueError(f"gold: 'score' must be a whole number from 1 to 5, found {row.get('score')!r}")
        if row.get("kind", "cooperating") not in NAMES:
            raise ValueError(f"gold: 'kind' must be adversarial, borderline or cooperating, found {row['kind']!r}")
        kind = NAMES[row.get("kind", "cooperating")]
        return cls(row["prompt"], row["reply"], row["score"], kind, fingerprint(row["prompt"]))


def gold(settings: CalibrationSettings, critic: CriticSettings) -> list[Gold]:
    """Gold replies, several to a prompt: own ones, the organism's (calibration split), or the shipped ones."""
    if settings.gold_file is not None:
        found = list(read_jsonl(settings.gold_file, Gold.from_json))
    elif critic.style == "organism":
        found = _organism_gold(settings.items)
    else:
        with resources.as_file(resources.files("mini_cai").joinpath("gold.jsonl")) as path:
            found = list(read_jsonl(path, Gold.from_json))
    return found[: settings.items]


def _organism_gold(count: int) -> list[Gold]:
    """Pairs of replies to one request whose rubric scores differ."""
    rng = random.Random("gold")
    out = []
    for item in world.critic_items("calibration", (count + 1) // 2, 0):
        prompt, cluster = item.prompt, item.prompt.cluster
        ways: list[Any] = ["refuse", "comply", "off_topic", "vague"]
        others = [world.respond(prompt, how, rng) for how in rng.sample(ways, len(ways))]
        other = next(o for o in others if world.rubric(prompt, o) != item.score)
        for reply in (item.reply, other):
            out.append(Gold(prompt.text, reply, world.rubric(prompt, reply), prompt.kind, cluster))
    return out


def _completions(prompts: Sequence[Gold], replies: Sequence[str]) -> list[Completion]:
    return [
        Completion(f"gold-{i}", "gold", reply, g.prompt, g.kind, cluster=g.cluster)
        for i, (g, reply) in enumerate(zip(prompts, replies, strict=True))
    ]


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


def _number(value: int | float | None) -> float:
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


def calibrate(
    settings: CalibrationSettings, critic: CriticSettings, constitution: Constitution, safe: int, folder: Path
) -> None:
    """Measure a critic and write calibration.json, the gold replies and the critiques of them."""
    items = gold(settings, critic)
    weak = [g for g in items if g.score <= 2]
    if not weak or len(items) < 4:
        raise UserError(f"{len(items)} gold replies, {len(weak)} of score 1 or 2; give four at least, one of them weak")
    if process_group().is_main:
        write_jsonl(folder / "gold.jsonl", [asdict(g) for g in items])
    loaded: Any = None
    if critic.via == "model":
        from alignment_core.models import load

        loaded = load.load(critic.model)
    both = critic.model_copy(update={"scoring": "both"}) if critic.via == "model" else critic
    graded = critics.criticise(
        _completions(items, [g.reply for g in items]), both, constitution, folder, name="gold_critiques", loaded=loaded
    )
    if critic.scoring == "generate":  # its own way decides; the expected score stands beside it
        scored = [Critique(c.prompt_id, c.candidate, c.written, why=c.why) for c in graded]
    else:
        scored = graded
    if process_group().is_main:
        rows = [{**asdict(g), **c.to_json()} for g, c in zip(items, graded, strict=True)]
        write_jsonl(folder / "gold_scores.jsonl", rows)
    found = agreement(items, scored)
    if critic.via == "model":
        found["ways_rank"] = spearman([_number(c.written) for c in graded], [_number(c.expected) for c in graded])
        found["self_consistency"] = _repeated(
            items[: settings.repeat_items], settings, critic, constitution, folder, loaded
        )
    read = [c.written is not None for c in graded]
    found["parse_rate"] = rate([float(r) for r in read], [g.cluster for g in items])
    families = dict(zip(FAMILIES, (attacks.structural(settings.attacks), _persuasion(settings.attacks)), strict=True))
    plain = critic.model_copy(update={"scoring": "digits"}) if critic.via == "model" else critic
    for family, lines in families.items():
        if lines:
            measured = _attacked(family, lines, weak, plain, constitution, safe, folder, loaded)
            found |= {f"{family}_{k}": v for k, v in measured.items()}
    del loaded
    critics.free()
    if process_group().is_main:
        write_json(folder / FILE, {k: _json(v) for k, v in found.items()})


def _persuasion(count: int) -> list[str]:
    return [attacks.PERSUASION[i % len(attacks.PERSUASION)] for i in range(count)]


def _attacked(
    family: str,
    lines: Sequence[str],
    weak: Sequence[Gold],
    critic: CriticSettings,
    constitution: Constitution,
    safe: int,
    folder: Path,
    loaded: Any,
) -> dict[str, Interval]:
    hosts, with_line, control = planted(lines, weak)
    arms = {"planted": with_line, "neutral": control}
    said = {
        arm: critics.criticise(
            _completions(hosts, texts), critic, constitution, folder, name=f"{family}_{arm}", loaded=loaded
        )
        for arm, texts in arms.items()
    }
    return effect(hosts, said["planted"], said["neutral"], safe)


def _repeated(
    items: Sequence[Gold],
    settings: CalibrationSettings,
    critic: CriticSettings,
    constitution: Constitution,
    folder: Path,
    loaded: Any,
) -> Interval:
    special = critics.special_tokens(loaded)
    asked = [critique.question(critic.style, constitution, g.prompt, g.reply, critic.max_chars, special) for g in items]
    texts = critics.by_writing(
        asked,
        critic,
        loaded,
        folder / "repeats.jsonl",
        seed=0,
        repeats=settings.repeats,
        temperature=settings.temperature,
    )
    known = len(critique.principles(critic.style, constitution))
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
    """What decides gold replies and planted lines, for the step's key."""
    files = [resources.files("mini_cai").joinpath(name).read_bytes() for name in ("gold.jsonl", "attacks.py")]
    own = [settings.gold_file.read_bytes()] if settings.gold_file is not None and settings.gold_file.is_file() else []
    return {"gold": hashlib.sha256(b"\0".join([*files, *own])).hexdigest()[:16]}
