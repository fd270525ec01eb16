"""Rules that a comparison must keep, for CI: `harmful_refusal_rate<-0.05` fails when the difference b - a is shown to
lie below -0.05.

Measured and failed: the whole interval lies beyond the bound. Passed: none of it does. Everything between, an interval
of width zero, and missing values that could carry the interval over the bound are inconclusive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from alignment_core.errors import UserError, nearest
from alignment_core.evaluation.compare import WIDTH_ZERO, Compared
from alignment_core.stats.equivalence import missing_pull

Outcome = Literal["passed", "failed", "inconclusive"]
EXIT: dict[Outcome, int] = {"failed": 3, "inconclusive": 4, "passed": 0}
"""In the order in which one decides over others."""

_RULE = re.compile(r"\s*([^<>\s]+)\s*([<>])\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*")


@dataclass(frozen=True)
class Rule:
    """Fails when the difference of a metric is shown to lie beyond a bound."""

    metric: str
    below: bool
    """Beyond is below; otherwise above."""
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{'<' if self.below else '>'}{self.bound:g}"


@dataclass(frozen=True)
class Decided:
    """A rule, what became of it, and why in words."""

    rule: str
    outcome: Outcome
    because: str


def parse_rule(text: str) -> Rule:
    """`harmful_refusal_rate<-0.05`; `UserError` shows the form."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise UserError(f"cannot read --fail-on {text!r}: write METRIC<BOUND, for example harmful_refusal_rate<-0.05")
    return Rule(found[1], found[2] == "<", float(found[3]))


def decide(rule: Rule, found: Mapping[str, Compared | str]) -> Decided:
    """What the comparisons by metric say of the rule; `UserError` for a metric that is not there or not measurable."""
    one = found.get(rule.metric)
    if one is None:
        hint = nearest(rule.metric, found) or f"; there are {', '.join(found)}"
        raise UserError(f"--fail-on {rule}: no metric {rule.metric!r} here{hint}")
    if isinstance(one, str):
        raise UserError(f"--fail-on {rule}: not measurable: {one}")
    r, beyond = one.result, "below" if rule.below else "above"
    sign = 1 if rule.below else -1
    down, up = missing_pull(r)
    # Mirrored for `>`, so that beyond is always below.
    low, high = (r.low, r.high) if rule.below else (-r.high, -r.low)
    pulled_low, pulled_high = (low + down, high + up) if rule.below else (low - up, high - down)
    bound = sign * rule.bound
    span = f"the interval [{r.low:+.3f}, {r.high:+.3f}]"
    if not r.width > 0:
        return Decided(str(rule), "inconclusive", WIDTH_ZERO)
    if pulled_high < bound:
        return Decided(str(rule), "failed", f"{span} lies {beyond} {rule.bound:g}")
    if pulled_low >= bound:
        return Decided(str(rule), "passed", f"{span} does not reach {beyond} {rule.bound:g}")
    if high < bound or low >= bound:
        return Decided(str(rule), "inconclusive", f"missing values could carry {span} over {rule.bound:g}")
    return Decided(str(rule), "inconclusive", f"{span} holds {rule.bound:g}")


def exit_code(decided: Iterable[Decided]) -> int:
    """3 when a rule failed, else 4 when one is inconclusive, else 0."""
    outcomes = {one.outcome for one in decided}
    return next((EXIT[outcome] for outcome in EXIT if outcome in outcomes), 0)
