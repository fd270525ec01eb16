"""Claims and the rules that decide them: every test's three verdicts, Holm, marks, and what was not run."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignment_core.evaluation import hypotheses
from alignment_core.evaluation.hypotheses import Claim, Outcome, Written
from alignment_core.evaluation.results import Comparison
from alignment_core.stats.paired import PairedResult, one_run


def _result(gained: int, lost: int, n: int = 400) -> PairedResult:
    """One run of n pairs of 0/1 values, `gained` 1 only in b and `lost` only in a."""
    a, b = np.zeros(n), np.zeros(n)
    b[:gained] = 1
    a[gained : gained + lost] = 1
    return one_run(a, b)


def _claim(test: str, name: str = "H1", a: str = "old", b: str = "new") -> Claim:
    return Claim(name, "It is so.", test, "rate", a, b)


def _outcome(test: str, result: PairedResult) -> Outcome:
    return hypotheses.outcome(_claim(test), result, 0.05)


@pytest.mark.parametrize(
    ("test", "supported", "contradicted"),
    [
        ("above", (60, 10), (10, 60)),
        ("below", (10, 60), (60, 10)),
        ("noninferior", (10, 10), (10, 60)),
        ("below_margin", (10, 10), (60, 10)),
        ("equivalent", (4, 4), (60, 10)),
    ],
)
def test_each_rule_supports_contradicts_and_leaves_open(
    test: str, supported: tuple[int, int], contradicted: tuple[int, int]
) -> None:
    assert _outcome(test, _result(*supported)).verdict == "supported"
    assert _outcome(test, _result(*contradicted)).verdict == "contradicted"
    wide = (12, 12) if test in ("above", "below") else (15, 15)
    n = 400 if test in ("above", "below") else 100
    assert _outcome(test, _result(*wide, n=n)).verdict == "inconclusive"


def test_missing_values_that_could_change_the_sign_leave_a_claim_open() -> None:
    found = _outcome("above", replace(_result(60, 10), undecided=True))
    assert found.verdict == "inconclusive"
    assert "missing values could change the sign" in found.because


@pytest.mark.parametrize("test", ["above", "below", "noninferior", "below_margin", "equivalent"])
@pytest.mark.parametrize("shift", [0.0, 0.2, -0.2])
def test_an_interval_of_width_zero_supports_nothing(test: str, shift: float) -> None:
    # T8: eight equal values on both sides gave [0, 0] and `supported`.
    flat = one_run(np.full(8, 0.5), np.full(8, 0.5 + shift))
    assert flat.low == flat.high
    found = _outcome(test, flat)
    assert (found.verdict, found.p) == ("inconclusive", None)
    assert "width zero" in found.because


def test_each_p_carries_the_name_of_its_test() -> None:
    result = _result(10, 10)
    assert result.test == "exact McNemar"
    assert _outcome("above", result).test == "exact McNemar"
    assert _outcome("equivalent", result).test == "TOST against ±0.05"
    assert _outcome("noninferior", result).test == "one-sided, against -0.05"
    clustered = one_run(np.arange(6) % 2, (np.arange(6) + 1) % 3 % 2, clusters=[1, 1, 2, 2, 3, 3])
    assert clustered.test == "two-sided t, t over clusters"


def test_what_was_not_run_is_not_tested_and_counts_no_test() -> None:
    written = Written((_claim("above"), _claim("below", "H2", "old", "other")), "f", math.nan, "-")
    tested = _outcome("above", _result(60, 10))
    found = hypotheses.decide(
        written, [(written.claims[0], tested), (written.claims[1], Outcome("not tested", "Not run: other."))]
    )
    assert [h.verdict for h in found.hypotheses] == ["supported", "not tested"]
    assert found.hypotheses[1].because == "Not run: other."
    assert f"(p = {tested.p:.2g}, Holm-adjusted {tested.p:.2g})" in found.hypotheses[0].because


def test_holm_runs_over_the_claims_own_tests() -> None:
    assert hypotheses.holm_adjusted([0.01, None, 0.04, 0.03])[::2] == pytest.approx([0.03, 0.06])
    assert math.isnan(hypotheses.holm_adjusted([0.01, None])[1])


def _decide(written: Written, **results: PairedResult) -> hypotheses.Decided:
    said = [(c, hypotheses.outcome(c, results[c.b], written.margin)) for c in written.claims]
    return hypotheses.decide(written, said)


def test_the_comparison_behind_a_claim_is_marked_and_no_other() -> None:
    written = Written((_claim("equivalent"), _claim("above", "H2", "old", "third")), "fam", 0.05, "-")
    same, other = _result(4, 4), _result(60, 10)
    found = _decide(written, new=same, third=other)
    made = [Comparison.of("rate", "old", b, same, role="control") for b in ("new", "third", "elsewhere")]
    first, second, third = found.marked(made, several=False, primary=("H1",))
    assert (first.role, first.family, first.margin, first.decision) == ("primary", "fam", 0.05, "H1")
    assert (first.p, first.test) == (same.p, "exact McNemar")  # T9: its own p stays beside its own test
    assert first.decision_test == "TOST against ±0.05"
    assert first.decision_p != same.p
    assert (second.role, second.family, second.margin, second.decision) == ("control", "fam", None, "H2")
    assert second.p_adjusted == pytest.approx(2 * other.p)  # the smaller of two by Holm
    assert (third.role, third.family, third.decision) == ("control", None, None)


def test_of_several_seeds_the_comparison_over_them_is_marked() -> None:
    found = _decide(Written((_claim("above"),), "fam", math.nan, "-"), new=_result(60, 10))
    made = [Comparison.of("rate", "old", "new", _result(60, 10), seed=seed) for seed in (13, None)]
    assert [c.family for c in found.marked(made, several=True)] == [None, "fam"]
    assert [c.family for c in found.marked(made, several=False)] == ["fam", "fam"]


def test_a_file_is_read_with_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'family = "f"\nmargin = 0.1\n[[hypothesis]]\nname = "H1"\nclaim = "So."\ntest = "their_own"\n'
    package = tmp_path / "some_study"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "hypotheses.toml").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = hypotheses.read("some_study")
    assert (found.family, found.margin) == ("f", 0.1)
    assert found.claims == (Claim("H1", "So.", "their_own"),)
    assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()
