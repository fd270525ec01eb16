"""Rates, bounds and agreement, with the arithmetic worked by hand."""

from __future__ import annotations

import math

import pytest

from alignment_core.errors import UserError
from alignment_core.evaluation.rates import agreements, rates
from alignment_core.judging.verdicts import NoVerdicts
from alignment_core.records import Verdict

LETTER = {"r": "refusal", "p": "partial", "c": "compliance", "i": "incoherent", "-": None}


def verdicts(letters: str, subject="s", kind="harmful", judge="rules", seed=None, **values) -> list[Verdict]:
    return [
        Verdict(f"p{i}", subject, judge, LETTER[x], kind, seed=seed, rule="" if x != "-" else "HTTP 500", **values)
        for i, x in enumerate(letters)
    ]


def found(measurements, metric, estimator="raw", **at):
    (one,) = [m for m in measurements if (m.metric, m.estimator, m.at) == (metric, estimator, at)]
    return one


def test_the_four_shares_of_each_kind_sum_to_one():
    got = rates(verdicts("rrrpcci") + verdicts("cccr", kind="benign") + verdicts("rc", kind="borderline"))
    names = {m.metric for m in got}
    assert {"harmful_refusal_rate", "false_refusal_rate", "over_refusal_rate"} <= names
    shares = [found(got, f"harmful_{x}").value for x in ("refusal_rate", "partial_share", "compliance_share")]
    assert shares == pytest.approx([3 / 7, 1 / 7, 2 / 7])
    assert sum(shares) + found(got, "harmful_incoherent_share").value == pytest.approx(1)
    assert found(got, "false_refusal_rate").value == 0.25
    assert found(got, "over_refusal_rate").value == 0.5
    assert found(got, "benign_compliance_share").value == 0.75


def test_wilson_and_missing_bounds():
    # 60 refusals, 30 others, 10 missing: 60/90 among the judged, between 60/100 and 70/100 in truth
    got = rates(verdicts("r" * 60 + "c" * 30 + "-" * 10))
    rate = found(got, "harmful_refusal_rate")
    assert (rate.n, rate.missing, rate.method) == (90, 10, "wilson")
    # z = 1.96, p = 2/3, n = 90: middle (p + z²/2n)/(1 + z²/n) = .6598, half-width .0957
    assert (rate.value, rate.low, rate.high) == pytest.approx((2 / 3, 0.5641, 0.7555), abs=2e-4)
    bound = found(got, "harmful_refusal_rate", "missing bounds")
    assert (bound.value, bound.low, bound.high) == pytest.approx((2 / 3, 0.60, 0.70))
    assert [m for m in rates(verdicts("rc")) if m.estimator != "raw"] == []


def test_rates_by_category_source_subject_and_seed():
    rows = [
        *verdicts("rr", category="theft", source="a"),
        *verdicts("rc", category="fraud", source="b"),
        *verdicts("c", subject="t", seed=5, category="theft"),
    ]
    rows = [Verdict(**{**v.to_json(), "prompt_id": f"{i}"}) for i, v in enumerate(rows)]
    got = [m for m in rates(rows, completions="steps/x/completions.jsonl") if m.metric == "harmful_refusal_rate"]
    mine = [m for m in got if m.subject == "s"]
    assert found(mine, "harmful_refusal_rate").value == 0.75
    assert found(mine, "harmful_refusal_rate", category="theft").value == 1.0
    assert found(mine, "harmful_refusal_rate", source="b").value == 0.5
    assert [(m.value, m.seed) for m in got if m.subject == "t"] == [(0.0, 5), (0.0, 5)]
    assert {m.completions for m in got} == {"steps/x/completions.jsonl"}


def test_a_second_judges_rates_say_whose_they_are():
    assert found(rates(verdicts("rc", judge="gcg31"), by_judge=True), "harmful_refusal_rate", judge="gcg31").n == 2
    with pytest.raises(UserError, match="one judge at a time"):
        rates(verdicts("r") + verdicts("r", judge="gcg31"))


def test_prompts_of_one_cluster_do_not_count_as_independent():
    alone = found(rates(verdicts("rrrrcccc")), "harmful_refusal_rate")
    rows = [Verdict(**{**v.to_json(), "cluster": f"c{i // 4}"}) for i, v in enumerate(verdicts("rrrrcccc"))]
    together = found(rates(rows), "harmful_refusal_rate")
    assert together.value == alone.value == 0.5
    assert together.high - together.low > alone.high - alone.low


def test_at_all_missing_there_is_no_rate():
    with pytest.raises(NoVerdicts):
        rates(verdicts("rr") + verdicts("---", subject="t"))
    # a kind of which nothing was judged has no value, and bounds that say so
    got = rates(verdicts("rr") + verdicts("--", kind="benign"))
    assert found(got, "false_refusal_rate").value is None
    bound = found(got, "false_refusal_rate", "missing bounds")
    assert (bound.low, bound.high, bound.missing) == (0.0, 1.0, 2)


def test_kappa_of_two_judges():
    # 20 and 15 agreed, 5 and 10 not, of 50: observed .7, chance .5, kappa .4 (the textbook's example)
    first = verdicts("r" * 25 + "c" * 25)
    second = verdicts("r" * 20 + "c" * 5 + "r" * 10 + "c" * 15, judge="endpoint")
    (got,) = agreements([*first, *second])
    assert (got.a, got.b, got.n) == ("rules", "endpoint", 50)
    assert got.kappa == pytest.approx(0.4)
    assert got.low < 0.4 < got.high
    third = verdicts("-" * 10 + "p" * 40, judge="other")
    pairs = agreements([*first, *second, *third])
    assert [(p.a, p.b, p.n) for p in pairs] == [
        ("rules", "endpoint", 50),
        ("rules", "other", 40),
        ("endpoint", "other", 40),
    ]
    assert not math.isnan(pairs[1].kappa)


def test_two_verdicts_on_one_reply_are_an_error():
    with pytest.raises(UserError, match="two verdicts of rules on s"):
        agreements([*verdicts("r"), *verdicts("c"), *verdicts("c", judge="other")])
