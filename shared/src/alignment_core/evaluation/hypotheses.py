"""Claims written before a run, and the rule that decides each: from a study's hypotheses.toml to verdicts.

The file stands beside the study's code: `family`, perhaps a `margin`, and of each hypothesis its name, claim and
`test`, with the metric and the two subjects (b - a) that a paired test reads. Holm runs over the claims' own tests.

| test | supported where |
|---|---|
| above, below | the two-sided 95% interval excludes 0 on that side |
| noninferior | the one-sided 95% bound lies above -margin |
| below_margin | the one-sided 95% bound lies below the margin |
| equivalent | the 90% interval lies within ±margin (TOST at .05) |

Contradicted: the interval shows the opposite. Inconclusive: it shows neither, missing verdicts could change its sign,
or it has width zero (nothing varied, so nothing is known). Not tested: there was nothing to compare.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from alignment_core.evaluation.results import Comparison, Decision, Hypothesis
from alignment_core.stats.paired import PairedResult, equivalence, holm, noninferiority

Key = tuple[str, str, str]
"""(metric, a, b) of a comparison."""
WITH_MARGIN = ("noninferior", "below_margin", "equivalent")


@dataclass(frozen=True)
class Claim:
    """A hypothesis as written. A test of a study's own names neither metric nor subjects."""

    name: str
    claim: str
    test: str
    metric: str = ""
    a: str = ""
    b: str = ""
    note: str = ""
    """What a study adds to the reason."""

    @property
    def key(self) -> Key:
        return self.metric, self.a, self.b

    def rule(self, margin: float) -> str:
        """The rule in words."""
        what = f"{self.metric} of {self.b} - {self.a}"
        return {
            "below": f"the two-sided 95% interval of {what} lies below 0",
            "above": f"the two-sided 95% interval of {what} lies above 0",
            "noninferior": f"the one-sided 95% bound of {what} lies above -{margin:g}",
            "below_margin": f"the one-sided 95% bound of {what} lies below {margin:g}",
            "equivalent": f"the 90% interval of {what} lies within ±{margin:g}",
        }[self.test]


@dataclass(frozen=True)
class Written:
    """A study's hypotheses.toml."""

    claims: tuple[Claim, ...]
    family: str
    margin: float
    """NaN where no rule needs one."""
    sha256: str


def read(package: str) -> Written:
    """The hypotheses of a study's package, and the sha256 of the file they stand in."""
    raw = resources.files(package).joinpath("hypotheses.toml").read_bytes()
    parsed = tomllib.loads(raw.decode("utf-8"))
    listed = tuple(Claim(**h) for h in parsed["hypothesis"])
    return Written(listed, parsed["family"], parsed.get("margin", math.nan), hashlib.sha256(raw).hexdigest())


@dataclass(frozen=True)
class Outcome:
    """What a rule says of a claim."""

    verdict: Decision
    because: str
    rule: str = ""
    p: float | None = None
    test: str | None = None
    """Name of the test that `p` is of."""


def span(r: PairedResult) -> str:
    """The difference, its 95% interval and what it is about."""
    return f"{r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}] {r.estimand}"


def with_p(because: str, p: float | None, adjusted: float) -> str:
    """A reason with the p of its test, alone and by Holm."""
    return because if p is None else f"{because} (p = {p:.2g}, Holm-adjusted {adjusted:.2g})"


def outcome(claim: Claim, r: PairedResult, margin: float) -> Outcome:
    """What a claim's rule says of b - a; an interval of width zero supports nothing."""
    rule = claim.rule(margin)
    if r.low == r.high:
        return Outcome("inconclusive", f"{span(r)}; an interval of width zero supports nothing", rule)
    found = _by_margin(r, claim.test, margin) if claim.test in WITH_MARGIN else _by_side(r, claim.test)
    because = "; ".join(filter(None, (found.because, claim.note)))
    return Outcome(found.verdict, because, rule, None if _undefined(found.p) else found.p, found.test)


def _undefined(p: float | None) -> bool:
    return p is None or math.isnan(p)


def _by_side(r: PairedResult, test: str) -> Outcome:
    """`above` or `below` 0; missing values that could change the sign leave it inconclusive."""
    hit, contrary = (r.low > 0, r.high < 0) if test == "above" else (r.high < 0, r.low > 0)
    if r.undecided:
        return Outcome("inconclusive", f"{span(r)}; missing values could change the sign", p=r.p, test=r.test)
    verdict: Decision = "supported" if hit else "contradicted" if contrary else "inconclusive"
    return Outcome(verdict, span(r), p=r.p, test=r.test)


def _by_margin(r: PairedResult, test: str, margin: float) -> Outcome:
    """A test against a margin; the contrary is shown where the 90% interval lies beyond it."""
    if test == "equivalent":
        same = equivalence(r, margin)
        outside = r.low90 > margin or r.high90 < -margin
        verdict: Decision = "supported" if same.equivalent else "contradicted" if outside else "inconclusive"
        return Outcome(verdict, f"{span(r)}; {same.because}", p=same.p, test=f"TOST against ±{margin:g}")
    higher = test == "noninferior"
    kept = noninferiority(r, margin, higher_is_better=higher)
    beyond = r.high90 < -margin if higher else r.low90 > margin
    verdict = "supported" if kept.noninferior else "contradicted" if beyond else "inconclusive"
    against = -margin if higher else margin
    because = f"{span(r)}; one-sided bound {kept.bound:+.3f} against {against:g}"
    return Outcome(verdict, because, p=kept.p, test=f"one-sided, against {against:+g}")


@dataclass(frozen=True)
class Decided:
    """The verdicts in the claims' order; of each claim about a comparison its outcome and Holm's p."""

    written: Written
    hypotheses: tuple[Hypothesis, ...]
    tests: Mapping[Key, tuple[Claim, Outcome, float]]

    def marked(
        self, found: Iterable[Comparison], several: bool, primary: Collection[str] | None = None
    ) -> list[Comparison]:
        """`found`, with the comparisons that decide a claim marked as such: which one, by which test, with which p,
        alone and by Holm. With `several` seeds those over the seeds decide. `primary`: the claims whose comparison
        has that role (None: all); the others keep theirs."""
        return [self._mark(c, primary) if c.seed is None or not several else c for c in found]

    def _mark(self, c: Comparison, primary: Collection[str] | None) -> Comparison:
        if (c.metric, c.a, c.b) not in self.tests or c.at:
            return c
        claim, said, adjusted = self.tests[c.metric, c.a, c.b]
        return c.model_copy(
            update={
                "role": "primary" if primary is None or claim.name in primary else c.role,
                "family": self.written.family,
                "margin": self.written.margin if claim.test in WITH_MARGIN else None,
                "decision": claim.name,
                "decision_test": said.test,
                "decision_p": said.p,
                "p_adjusted": None if said.p is None else adjusted,
            }
        )


def decide(written: Written, said: Sequence[tuple[Claim, Outcome]]) -> Decided:
    """Every claim with its outcome, in the order written; Holm over the tests that have a p."""
    adjusted = holm_adjusted([outcome.p for _, outcome in said])
    each = list(zip(said, adjusted, strict=True))
    hypotheses = tuple(
        Hypothesis(name=c.name, claim=c.claim, rule=o.rule, verdict=o.verdict, because=with_p(o.because, o.p, q))
        for (c, o), q in each
    )
    tested = {c.key: (c, o, q) for (c, o), q in each if c.metric and o.verdict != "not tested"}
    return Decided(written, hypotheses, tested)


def holm_adjusted(p: Sequence[float | None]) -> list[float]:
    """Holm over the tests there were; NaN for None."""
    adjusted: list[float] = holm([math.nan if x is None else x for x in p]).tolist()
    return adjusted
