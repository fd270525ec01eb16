"""Which candidates are trained on: best, margin, diverse, revised, and a random control that knows no score.

best     the highest score of each prompt (RAFT, arXiv 2304.06767; best-of-n fine-tuning)
margin   best and worst of the prompts whose scores differ by at least `margin`; also preference pairs
diverse  the top k and bottom k of each prompt; also preference pairs
random   for the rows of another policy, as many candidates of the same prompts, drawn without looking at scores, with
         as many reply tokens in all

Every policy gives the same flat rows, so that each can be trained on. Candidates without a score are never selected by
score; among equal scores the earlier candidate goes first.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from alignment_core.errors import UserError
from alignment_core.judging.critique import contradicts
from alignment_core.records import Message, PreferencePair
from mini_cai.rows import Role, Row
from mini_cai.scored import Scored, by_prompt

if TYPE_CHECKING:
    from mini_cai.config import Policy, SelectionSettings


def row(one: Scored, role: Role = "best") -> Row:
    """A scored candidate as a flat row."""
    reply, said = one.reply, one.critique
    return Row(
        id=reply.prompt_id,
        prompt=reply.prompt,
        candidate=reply.text,
        score=said.score,
        reason=said.reason,
        role=role,
        number=reply.candidate,
        tokens=reply.tokens,
        cluster=reply.cluster,
        kind=reply.kind,
    )


def replied(one: Scored) -> bool:
    """Whether there is a reply at all: some text, and no failure of the server that was to write it."""
    return not one.reply.failure and bool(one.reply.text.strip())


def usable(scored: Sequence[Scored], settings: SelectionSettings, safe: int) -> list[Scored]:
    """Candidates that may be selected by score: with a score and a reply, and (by setting) no contradiction."""
    return [
        s
        for s in scored
        if s.critique.score is not None
        and replied(s)
        and not (settings.drop_contradictions and contradicts(s.critique, safe))
    ]


def ranked(group: Sequence[Scored]) -> list[Scored]:
    """Highest value first; equal ones in their own order."""
    return sorted(group, key=lambda s: (-s.value, s.reply.candidate))


@dataclass(frozen=True)
class Selected:
    """What a policy took: flat rows, and for margin and diverse the pairs of a better and a worse reply."""

    rows: tuple[Row, ...]
    pairs: tuple[PreferencePair, ...] = ()

    def included(self, include: Literal["both", "best", "worst"]) -> Selected:
        """Only the rows of one side."""
        return replace(self, rows=tuple(r for r in self.rows if include in ("both", r.role)))


def pair(better: Scored, worse: Scored, policy: str) -> PreferencePair:
    """A preference of one reply over another to the same prompt."""
    asked = Message("user", better.reply.prompt)
    chosen, rejected = (Message("assistant", s.reply.text) for s in (better, worse))
    return PreferencePair((asked, chosen), (asked, rejected), "mini-cai", policy, better.reply.cluster)


def select(policy: Policy, scored: Sequence[Scored], settings: SelectionSettings, safe: int = 4) -> Selected:
    """The rows that a policy takes by score, prompts in order. `random` and `revised` are made elsewhere."""
    rows: list[Row] = []
    tops: list[Scored]
    bottoms: list[Scored]
    pairs: list[PreferencePair] = []
    for group in by_prompt(usable(scored, settings, safe)).values():
        order = ranked(group)
        if policy == "best":
            tops, bottoms = order[:1], []
        elif policy == "margin":
            wide = len(order) > 1 and _gap(order) >= settings.margin
            tops, bottoms = (order[:1], order[-1:]) if wide else ([], [])
        elif policy == "diverse":
            tops = order[: settings.top_k]
            bottoms = order[max(len(tops), len(order) - settings.bottom_k) :]
        else:
            raise ValueError(f"no selection by score under the policy {policy!r}")
        rows += [*(row(s, "best") for s in tops), *(row(s, "worst") for s in bottoms)]
        pairs += [pair(a, b, policy) for a in tops for b in bottoms if _preferred(a, b)]
    return Selected(tuple(rows), tuple(pairs))


def _gap(order: Sequence[Scored]) -> int:
    first, last = order[0].critique.score, order[-1].critique.score
    return 0 if first is None or last is None else first - last


def _preferred(a: Scored, b: Scored) -> bool:
    return a.value > b.value and a.reply.text != b.reply.text


def kept(rows: Sequence[Row], min_score: int) -> list[Row]:
    """The rows that are trained on."""
    return [r for r in rows if r.score is not None and r.score >= min_score]


def matched_random(wanted: Sequence[Row], scored: Sequence[Scored], seed: int, draws: int = 64) -> list[Row]:
    """As many candidates of the same prompts as `wanted`, blind to scores, with nearly as many tokens in all.

    Each candidate's weight is exp(t * tokens), with t such that the expected total is `wanted`'s: the least informed
    distribution with that many tokens. Of `draws` draws the one nearest in tokens is taken.
    """
    groups = by_prompt([s for s in scored if replied(s)])
    counts: dict[str, int] = {}
    for r in wanted:
        counts[r.id] = counts.get(r.id, 0) + 1
    total = sum(r.tokens for r in wanted)
    tilt = _tilt([([s.reply.tokens for s in groups[i]], n) for i, n in counts.items()], total)
    rng = random.Random(f"random selection {seed}")
    tries = [[s for i, n in counts.items() for s in _draw(groups[i], n, tilt, rng)] for _ in range(draws)]
    if not tries or not tries[0]:
        return []
    nearest = min(tries, key=lambda t: abs(sum(s.reply.tokens for s in t) - total))
    return [row(s) for s in nearest]


def _weights(tokens: Sequence[int], tilt: float) -> list[float]:
    top = max(tilt * t for t in tokens)
    return [math.exp(tilt * t - top) for t in tokens]


def _expected(tokens: Sequence[int], tilt: float) -> float:
    weights = _weights(tokens, tilt)
    return sum(w * t for w, t in zip(weights, tokens, strict=True)) / sum(weights)


def _tilt(groups: Sequence[tuple[Sequence[int], int]], total: int) -> float:
    """The t at which the expected total of tokens is `total`, by bisection; at most 2 either way."""
    low, high = -2.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        if sum(n * _expected(tokens, middle) for tokens, n in groups) < total:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _draw(group: Sequence[Scored], count: int, tilt: float, rng: random.Random) -> list[Scored]:
    """`count` different candidates, each drawn by weight from what is left."""
    left = list(group)
    out = []
    for _ in range(count):
        chosen = rng.choices(range(len(left)), _weights([s.reply.tokens for s in left], tilt))[0]
        out.append(left.pop(chosen))
    return out


def sft_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The original's SFT rows; the instruction is the prompt, and the output is the reply alone."""
    return [
        {"instruction": r.prompt, "output": r.candidate, "meta": {"score": r.score, "reason": r.reason}} for r in rows
    ]


def split(rows: Sequence[Row], ratio: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows for training and validation; a prompt's rows stay together. `UserError` when nothing is left to train."""
    ids = list(dict.fromkeys(r.id for r in rows))
    random.Random(f"validation {seed}").shuffle(ids)
    held = max(1, int(len(ids) * ratio)) if ratio > 0 else 0
    if len(ids) - held < 1:
        raise UserError(
            f"{len(ids)} prompts have a selected reply, too few to train on with selection.val_ratio={ratio:g}; lower "
            "selection.min_score or selection.margin, or give more prompts or candidates"
        )
    chosen = set(ids[:held])
    return [r for r in rows if r.id not in chosen], [r for r in rows if r.id in chosen]
