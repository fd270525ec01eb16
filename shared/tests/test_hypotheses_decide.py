"""Claims and the rules that decide them: every test's three verdicts, Holm, marks, and what was not run."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignment_core.evaluation import hypotheses as claims
from alignment_core.evaluation.hypotheses import Claim, Written
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


def _decided(test: str, result: PairedResult | str) -> tuple[str, str]:
    (h,) = claims.decide(Written((_claim(test),), "f", 0.05, "-"), lambda _: result).hypotheses
    return h.verdict, h.because


@pytest.mark.parametrize(
    ("test", "supported", "rejected"),
    [
        ("above", (60, 10), (10, 60)),
        ("below", (10, 60), (60, 10)),
        ("noninferior", (10, 10), (10, 60)),
        ("below_margin", (10, 10), (60, 10)),
        ("equivalent", (4, 4), (60, 10)),
    ],
)
def test_each_rule_supports_rejects_and_leaves_open(
    test: str, supported: tuple[int, int], rejected: tuple[int, int]
) -> None:
    assert _decided(test, _result(*supported))[0] == "supported"
    assert _decided(test, _result(*rejected))[0] == "rejected"
    wide = (12, 12) if test in ("above", "below") else (15, 15)
    n = 400 if test in ("above", "below") else 100
    assert _decided(test, _result(*wide, n=n))[0] == "undecided"


def test_missing_values_that_could_change_the_sign_leave_a_claim_open() -> None:
    assert _decided("above", replace(_result(60, 10), undecided=True))[0] == "undecided"


def test_what_was_not_run_is_undecided_in_the_studys_words_and_counts_no_test() -> None:
    written = Written((_claim("above"), _claim("below", "H2", "old", "other")), "f", math.nan, "-")
    found = claims.decide(written, lambda c: "Not run: other." if c.b == "other" else _result(60, 10))
    assert [h.verdict for h in found.hypotheses] == ["supported", "undecided"]
    assert found.hypotheses[1].because == "Not run: other."
    p = found.tests["rate", "old", "new"][1]
    assert p is not None
    assert f"(p = {p:.2g}, Holm-adjusted {p:.2g})" in found.hypotheses[0].because


def test_holm_runs_over_the_claims_own_tests() -> None:
    assert claims.holm_adjusted([0.01, None, 0.04, 0.03])[::2] == pytest.approx([0.03, 0.06])
    assert math.isnan(claims.holm_adjusted([0.01, None])[1])


def test_the_comparison_behind_a_claim_is_marked_and_no_other() -> None:
    written = Written((_claim("equivalent"), _claim("above", "H2", "old", "third")), "fam", 0.05, "-")
    same, other = _result(4, 4), _result(60, 10)
    found = claims.decide(written, lambda c: same if c.b == "new" else other)
    made = [Comparison.of("rate", "old", b, same, role="control") for b in ("new", "third", "elsewhere")]
    first, second, third = found.marked(made, several=False, primary=("H1",))
    assert (first.role, first.family, first.margin) == ("primary", "fam", 0.05)
    assert first.p == found.tests["rate", "old", "new"][1] != same.p  # of the test against the margin
    assert (second.role, second.family, second.margin) == ("control", "fam", None)
    assert second.p_adjusted == pytest.approx(2 * other.p)  # the smaller of two by Holm
    assert (third.role, third.family) == ("control", None)


def test_of_several_seeds_the_comparison_over_them_is_marked() -> None:
    found = claims.decide(Written((_claim("above"),), "fam", math.nan, "-"), lambda _: _result(60, 10))
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
    found = claims.read("some_study")
    assert (found.family, found.margin) == ("f", 0.1)
    assert found.claims == (Claim("H1", "So.", "their_own"),)
    assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()
