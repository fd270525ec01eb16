"""results.json has the shape every study writes; what is undefined is null."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from alignment_core.errors import InputError, UserError
from alignment_core.evaluation import results as R

EXAMPLE = {
    "study": "drift-dpo",
    "preset": "tiny",
    "seeds": [13, 14, 15, 16, 17],
    "condition": "",
    "versions": {},
    "hypotheses_sha256": "…",
    "notes": ["The steps were made with several versions: torch 2.10.0 and 2.11.0."],
    "steps": [{"name": "stage_a", "seed": 13, "key": "0123456789ab", "code": "0123456789abcdef"}],
    "measurements": [
        {
            "metric": "harmful_refusal_rate",
            "subject": "stage_a",
            "seed": 13,
            "base": None,
            "at": {"step": None, "category": None},
            "value": 0.30,
            "low": 0.24,
            "high": 0.37,
            "method": "wilson",
            "estimator": "raw",
            "n": 200,
            "missing": 0,
            "completions": "…",
        }
    ],
    "comparisons": [
        {
            "metric": "harmful_refusal_rate",
            "a": "baseline",
            "b": "stage_a",
            "seed": None,
            "base": None,
            "at": {},
            "role": "primary",
            "difference": -0.31,
            "low": -0.42,
            "high": -0.20,
            "method": "crossed",
            "p": 0.0014,
            "test": "two-sided t, crossed",
            "estimand": "over runs",
            "n_prompts": 200,
            "n_clusters": 200,
            "n_seeds": 5,
            "df": 4.0,
            "effect": None,
            "detectable": 0.05,
            "decision": "H1",
            "decision_test": "two-sided t, crossed",
            "decision_p": 0.0014,
            "p_adjusted": 0.0028,
            "family": "drift",
            "margin": None,
        }
    ],
    "agreements": [{"a": "rules", "b": "endpoint", "kappa": 0.9, "low": 0.85, "high": 0.95, "n": 200}],
    "hypotheses": [{"name": "H1", "claim": "…", "rule": "…", "verdict": "supported", "because": "…"}],
}


@dataclass(frozen=True)
class FakeInterval:
    value: float
    low: float
    high: float
    n: int
    method: str = "wilson"
    missing: int = 0
    level: float = 0.95


@dataclass(frozen=True)
class FakePaired:
    difference: float
    low: float
    high: float
    p: float
    method: str
    estimand: str
    n_prompts: int
    n_clusters: int
    n_seeds: int
    df: float
    effect: float
    detectable: float
    level: float = 0.95
    test: str | None = None


def test_the_example_round_trips_with_every_key(tmp_path: Path) -> None:
    results = R.validate(EXAMPLE)
    path = tmp_path / "results.json"
    R.write(path, results)
    assert json.loads(path.read_text()) == EXAMPLE
    assert R.read(path) == results
    first = path.read_bytes()
    R.write(path, R.read(path))
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("where", "key", "value", "named"),
    [
        ("measurements", "valeu", 0.1, "valeu"),
        ("measurements", "n", -1, "n"),
        ("comparisons", "role", "secondary", "role"),
        ("hypotheses", "verdict", "proved", "verdict"),
    ],
)
def test_another_shape_is_named(where: str, key: str, value: object, named: str) -> None:
    wrong = json.loads(json.dumps(EXAMPLE))
    wrong[where][0][key] = value
    with pytest.raises(InputError, match=f"results: {where}.0.{named}"):
        R.validate(wrong)


def test_not_a_number_is_written_as_null(tmp_path: Path) -> None:
    nan = float("nan")
    m = R.Measurement.of("rate", "a", FakeInterval(np.float64(nan), -np.inf, nan, n=np.int64(0), missing=7))
    c = R.Comparison.of(
        "rate",
        "a",
        "b",
        FakePaired(np.float64(0.5), nan, nan, nan, "tango", "these checkpoints", 0, 0, 1, nan, nan, nan),
    )
    path = tmp_path / "results.json"
    R.write(path, R.Results(study="s", preset="p", seeds=(1,), measurements=(m,), comparisons=(c,)))
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    row = json.loads(text)["measurements"][0]
    assert (row["value"], row["low"], row["high"], row["n"], row["missing"]) == (None, None, None, 0, 7)
    assert json.loads(text)["comparisons"][0]["p"] is None
    assert m.missing_share == 1.0


def test_look_ups_treat_a_null_place_as_none() -> None:
    results = R.validate(EXAMPLE)
    assert results.measurement("harmful_refusal_rate", "stage_a", 13).value == 0.30
    assert results.headline("harmful_refusal_rate", "stage_a").value == 0.30  # the only seed
    assert results.find("harmful_refusal_rate", "stage_a", 13, {"category": "x"}) is None
    assert results.comparison("harmful_refusal_rate", "baseline", "stage_a").p_adjusted == 0.0028
    with pytest.raises(UserError, match="did you mean 'stage_a'"):
        results.measurement("harmful_refusal_rate", "stageA", 13)


def test_headline_prefers_the_figure_over_seeds_and_never_picks_one_of_several() -> None:
    def at(seed: int | None, value: float) -> R.Measurement:
        return R.Measurement.of("rate", "a", FakeInterval(value, 0, 1, 10), seed=seed)

    two = R.Results(study="s", preset="p", seeds=(1, 2), measurements=(at(2, 0.2), at(1, 0.1)))
    assert two.headline("rate", "a") is None
    assert [m.value for m in two.over_seeds("rate", "a")] == [0.1, 0.2]
    whole = two.model_copy(update={"measurements": (*two.measurements, at(None, 0.15))})
    assert whole.headline("rate", "a").value == 0.15


def test_other_estimators_are_never_taken_for_the_raw_figure() -> None:
    def by(estimator: str, value: float) -> R.Measurement:
        return R.Measurement.of("rate", "a", FakeInterval(value, 0, 1, 10), seed=1, estimator=estimator)

    found = R.Results(study="s", preset="p", seeds=(1,), measurements=(by("missing bounds", 0.9), by("raw", 0.1)))
    assert found.headline("rate", "a").value == 0.1
    assert len(found.over_seeds("rate", "a")) == 1
    assert found.find("rate", "a", 1, estimator="missing bounds").value == 0.9


def test_along_an_axis_keeps_to_that_axis() -> None:
    def at(**place: object) -> R.Measurement:
        return R.Measurement.of("rate", "a", FakeInterval(0.5, 0, 1, 10), seed=1, at=place)

    found = R.Results(
        study="s", preset="p", seeds=(1,), measurements=(at(), at(category="x"), at(category="y", judge="j"))
    ).along("rate", "a", "category")
    assert [m.at for m in found] == [{"category": "x"}]


def test_significance_follows_the_adjusted_p_then_the_interval() -> None:
    base = R.validate(EXAMPLE).comparisons[0]
    assert base.significant
    assert not base.model_copy(update={"p_adjusted": 0.06}).significant
    assert base.model_copy(update={"p": None, "p_adjusted": None}).significant
    assert base.model_copy(update={"p": None, "p_adjusted": None, "low": None}).significant is None
