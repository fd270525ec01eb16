"""Claims written before a run, and the rule that decides each: from a study's hypotheses.toml to verdicts.

The file stands beside the study's code: `family`, perhaps a `margin`, and of each hypothesis its name, claim and
`test`, with the metric and the two subjects (b - a) that a paired test reads. Holm runs over the claims' own tests.

| test | shown where |
|---|---|
| above, below | the two-sided 95% interval excludes 0 on that side |
| noninferior | the one-sided 95% bound lies above -margin |
| below_margin | the one-sided 95% bound lies below the margin |
| equivalent | the 90% interval lies within ±margin (TOST at .05) |
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from alignment_core.evaluation.results import Comparison, Hypothesis
from alignment_core.stats.paired import PairedResult, equivalence, holm, noninferiority

Verdict = Literal["supported", "rejected", "undecided"]
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


def span(r: PairedResult) -> str:
    """The difference, its 95% interval and what it is about."""
    return f"{r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}] {r.estimand}"


def with_p(because: str, p: float | None, adjusted: float) -> str:
    """A reason with the p of its test, alone and by Holm."""
    return because if p is None else f"{because} (p = {p:.2g}, Holm-adjusted {adjusted:.2g})"


def by_side(r: PairedResult, test: str) -> tuple[Verdict, str]:
    """The verdict and reason of `above` or `below`; missing values that could change the sign leave it undecided."""
    hit, contrary = (r.low > 0, r.high < 0) if test == "above" else (r.high < 0, r.low > 0)
    if r.undecided or not (hit or contrary):
        return "undecided", span(r)
    return "supported" if hit else "rejected", span(r)


def by_margin(r: PairedResult, test: str, margin: float) -> tuple[Verdict, str, float | None]:
    """The verdict, reason and p of a test against a margin; the contrary is shown where the 90% interval lies
    beyond it."""
    if test == "equivalent":
        same = equivalence(r, margin)
        outside = r.low90 > margin or r.high90 < -margin
        verdict: Verdict = "supported" if same.equivalent else "rejected" if outside else "undecided"
        return verdict, f"{span(r)}; {same.because}", same.p
    higher = test == "noninferior"
    kept = noninferiority(r, margin, higher_is_better=higher)
    beyond = r.high90 < -margin if higher else r.low90 > margin
    verdict = "supported" if kept.noninferior else "rejected" if beyond else "undecided"
    against = -margin if higher else margin
    return verdict, f"{span(r)}; one-sided bound {kept.bound:+.3f} against {against:g}", kept.p


@dataclass(frozen=True)
class Decided:
    """The verdicts in the claims' order; of each claim its own test's p, alone and by Holm."""

    written: Written
    hypotheses: tuple[Hypothesis, ...]
    tests: Mapping[Key, tuple[Claim, float | None, float]]

    def marked(
        self, found: Iterable[Comparison], several: bool, primary: Collection[str] | None = None
    ) -> list[Comparison]:
        """`found`, with the comparisons that decide a claim marked as such: the family, the margin, the test's p and
        Holm's. With `several` seeds those over the seeds decide. `primary`: the claims whose comparison has that role
        (None: all); the others keep theirs."""
        return [self._mark(c, primary) if c.seed is None or not several else c for c in found]

    def _mark(self, c: Comparison, primary: Collection[str] | None) -> Comparison:
        if (c.metric, c.a, c.b) not in self.tests:
            return c
        claim, p, adjusted = self.tests[c.metric, c.a, c.b]
        return c.model_copy(
            update={
                "role": "primary" if primary is None or claim.name in primary else c.role,
                "family": self.written.family,
                "margin": self.written.margin if claim.test in WITH_MARGIN else None,
                "p": c.p if p is None else p,
                "p_adjusted": None if p is None else adjusted,
            }
        )


def decide(written: Written, result: Callable[[Claim], PairedResult | str]) -> Decided:
    """Every claim by its rule. `result` gives b - a of a claim, or says in words why there is none: undecided."""
    found = [_one(claim, result(claim), written.margin) for claim in written.claims]
    adjusted = holm_adjusted([p for _, p in found])
    hypotheses = tuple(
        h.model_copy(update={"because": with_p(h.because, p, q)}) for (h, p), q in zip(found, adjusted, strict=True)
    )
    each = zip(written.claims, found, adjusted, strict=True)
    return Decided(written, hypotheses, {claim.key: (claim, p, q) for claim, (_, p), q in each})


def holm_adjusted(p: Sequence[float | None]) -> list[float]:
    """Holm over the tests there were; NaN for None."""
    adjusted: list[float] = holm([math.nan if x is None else x for x in p]).tolist()
    return adjusted


def _one(claim: Claim, r: PairedResult | str, margin: float) -> tuple[Hypothesis, float | None]:
    verdict: Verdict = "undecided"
    p: float | None = None
    if isinstance(r, str):
        because = r
    elif claim.test in WITH_MARGIN:
        verdict, because, p = by_margin(r, claim.test, margin)
    else:
        (verdict, because), p = by_side(r, claim.test), r.p
    return Hypothesis(name=claim.name, claim=claim.claim, rule=claim.rule(margin), verdict=verdict, because=because), p
