"""The self-check can pass, can fail, is deterministic, and agrees with the table in docs/statistics.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alignment_core.stats import selfcheck as module
from alignment_core.stats.layout import crossed_variance
from alignment_core.stats.paired import mcnemar_exact, one_run, over_runs
from alignment_core.stats.selfcheck import main, selfcheck, table
from alignment_core.stats.simulate import (
    crossed_p,
    mcnemar_p,
    t_bounds,
    tango_bounds,
    unit_t_p,
    unpaired_p,
    verdict_tables,
)

DOCS = Path(__file__).parents[2] / "docs" / "statistics.md"
RUNS = 400


@pytest.fixture(scope="module")
def quick():
    return selfcheck(RUNS)


def test_batched_tests_are_the_public_ones():
    a, b = verdict_tables(np.random.default_rng(0), 6, 40, 3, difference=0.1)
    d = b - a
    low, high = t_bounds(crossed_variance(d), 0.90)
    tango_low, _ = tango_bounds(d[..., 0], 0.95)
    for i in range(6):
        public = over_runs(a[i], b[i])
        assert crossed_p(d)[i] == pytest.approx(public.p)
        assert (low[i], high[i]) == pytest.approx((public.low90, public.high90))
        assert unit_t_p(d.mean(axis=1))[i] == pytest.approx(public.seed_p)
        assert unpaired_p(a, b)[i] == pytest.approx(over_runs(a[i], b[i], seeds="unpaired").p)
        assert mcnemar_p(d)[i] == pytest.approx(mcnemar_exact(int((d[i] > 0).sum()), int((d[i] < 0).sum())))
        single = one_run(a[i, :, 0], b[i, :, 0])
        assert (mcnemar_p(d[..., 0])[i], tango_low[i]) == pytest.approx((single.p, single.low))
    assert crossed_p(np.zeros((1, 5, 2)))[0] == over_runs(np.zeros((5, 2)), np.zeros((5, 2))).p == 1.0


def test_simulated_verdicts_have_the_asked_rates_and_spread():
    a, b = verdict_tables(np.random.default_rng(1), 300, 2000, 4, rate=0.6, difference=0.1, seed_sd=0.03)
    assert a.mean() == pytest.approx(0.6, abs=0.005)
    assert b.mean() == pytest.approx(0.7, abs=0.005)
    # Seeds' rates spread by .03 and by the binomial noise of 2000 prompts with a quarter of their variance left.
    spread = a.mean(axis=1).std(axis=1, ddof=1)
    assert np.sqrt(np.square(spread).mean()) == pytest.approx(0.03, abs=0.003)


def test_selfcheck_passes_and_is_deterministic(quick):
    assert quick.ok, [check for check in quick.checks if not check.ok]
    assert selfcheck(RUNS) == quick


def test_pooling_is_the_counter_example(quick):
    wrong = [row for row in quick.rows if row.kind == "wrong" and row.speaks_of == "over runs"]
    assert len(wrong) == 6
    assert all(row.size > 0.1 for row in wrong)


def test_selfcheck_fails_when_the_default_forgets_the_seeds(monkeypatch):
    monkeypatch.setattr(module, "crossed_p", lambda d: unit_t_p(d.mean(axis=2)))
    lines: list[str] = []
    assert main(["--runs", "200"], lines.append) == 3
    assert any(line.startswith("FAILED planted null not found: crossed; 200 prompts, 3 v 3") for line in lines)


def test_selfcheck_fails_when_a_test_finds_nothing(monkeypatch):
    monkeypatch.setattr(module, "crossed_p", lambda d: np.ones(len(d)))
    lines: list[str] = []
    assert main(["--runs", "200"], lines.append) == 3
    assert any(line.startswith("FAILED planted effect found: crossed") for line in lines)


def _cells(text: str) -> dict[tuple[str, str], tuple[str, str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {(row[0], row[2]): (row[3], row[5]) for row in rows if len(row) == 6 and row[0] not in ("test", "---")}


def test_the_table_in_the_docs_agrees(quick):
    recorded, now = _cells(DOCS.read_text(encoding="utf-8")), _cells(table(quick))
    assert now.keys() <= recorded.keys(), "regenerate docs/statistics.md with tests/benchmarks/bench_stats.py"
    for key, figures in now.items():
        for new, old in zip(figures, recorded[key], strict=True):
            if new == "–":
                assert old == "–"
                continue
            p = float(old)
            error = 5 * (max(p * (1 - p), 0.002) * (1 / 80 if "max-T" in key[0] else 1 / RUNS)) ** 0.5
            if "Holm" in key[0]:
                error *= 2
            assert abs(float(new) - p) <= error + 0.005, (key, new, old)


@pytest.mark.slow
def test_ten_thousand_aa_runs_stay_below_the_promise():
    found = selfcheck(10_000)
    assert found.ok, [check for check in found.checks if not check.ok]
    crossed_rows = [row for row in found.rows if row.test == "crossed"]
    assert all(row.size <= 0.065 for row in crossed_rows)
