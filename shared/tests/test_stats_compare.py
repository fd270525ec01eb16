"""Two lists of rows become the right comparison, or one clear line says why not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignment_core.evaluation.align import Options, Side
from alignment_core.evaluation.compare import compare, compare_kinds
from alignment_core.stats.paired import one_run, over_runs

PROMPTS = [f"p{i:02}" for i in range(30)]


def side(name, seeds, rate, rng, **changes):
    rows = [(p, s, bool(rng.random() < rate)) for s in seeds for p in PROMPTS]
    columns = {"prompt_id": [p for p, _, _ in rows], "seed": [s for _, s, _ in rows], "value": [v for *_, v in rows]}
    return Side(name, **{**columns, **changes})


def matrix(one, seeds):
    cells = dict(zip(zip(one.prompt_id, one.seed, strict=True), one.value, strict=True))
    return np.array([[cells[p, s] for s in seeds] for p in PROMPTS], dtype=float)


def test_one_run_each():
    rng = np.random.default_rng(0)
    a, b = side("base", [None], 0.7, rng), side("tuned", [13], 0.3, rng)
    found = compare(a, b)
    assert found.pairing == "one run"
    spelled = one_run(matrix(a, [None])[:, 0], matrix(b, [13])[:, 0])
    assert (found.result.low, found.result.p) == (spelled.low, spelled.p)
    assert found.level_a.value == pytest.approx(matrix(a, [None]).mean())
    assert "not the recipes" in found.notes[0]


def test_row_order_does_not_matter_and_swapping_flips_the_sign():
    rng = np.random.default_rng(1)
    a, b = side("a", [1, 2, 3], 0.7, rng), side("b", [1, 2, 3], 0.3, rng)
    order = rng.permutation(len(b.prompt_id))
    mixed = Side("b", *([column[i] for i in order] for column in (b.prompt_id, b.value, b.seed)))
    one, other, back = compare(a, b), compare(a, mixed), compare(b, a)
    assert one.result == other.result
    assert one.pairing == "paired seeds"
    assert one.result.difference == pytest.approx(-back.result.difference)
    spelled = over_runs(matrix(a, [1, 2, 3]), matrix(b, [1, 2, 3]))
    assert (one.result.low, one.result.high) == pytest.approx((spelled.low, spelled.high))


def test_a_model_without_seeds_is_held_fixed():
    rng = np.random.default_rng(2)
    found = compare(side("base", [None], 0.7, rng, seed=None), side("tuned", [1, 2, 3], 0.3, rng), how=Options(0.05))
    assert (found.pairing, found.result.estimand) == ("a held fixed", "over runs of b, a held fixed")
    assert "base has no seeds" in found.notes[0]
    assert found.equivalence is not None
    assert not found.noninferiority.noninferior
    one_seed = compare(side("base", [13], 0.7, rng), side("tuned", [1, 2, 3], 0.3, rng))
    assert "its own spread over seeds is not in the interval" in one_seed.notes[0]


def test_different_seeds_are_unpaired_and_said_so():
    rng = np.random.default_rng(3)
    found = compare(side("a", [1, 2, 3], 0.7, rng), side("b", [4, 5], 0.3, rng))
    assert found.pairing == "unpaired seeds"
    assert found.notes == ("seeds not paired (1, 2, 3 against 4, 5): each side's own spread is counted",)


def test_partly_shared_seeds_need_a_word():
    rng = np.random.default_rng(4)
    a, b = side("a", [1, 2, 3], 0.7, rng), side("b", [2, 3, 4], 0.3, rng)
    with pytest.raises(ValueError, match="a has seeds 1, 2, 3, b has 2, 3, 4, 2 in common"):
        compare(a, b)
    assert compare(a, b, how=Options(seeds="shared")).result.n_seeds == 2
    assert compare(a, b, how=Options(seeds="unpaired")).pairing == "unpaired seeds"


def test_different_prompts_are_refused_or_cut():
    rng = np.random.default_rng(5)
    a = side("a", [None], 0.7, rng)
    b = Side("b", [*PROMPTS[:20], "new"], [True] * 21)
    counts = "20 prompts in both, 10 only in a, 1 only in b"
    with pytest.raises(ValueError, match=counts):
        compare(a, b)
    found = compare(a, b, how=Options(prompts="shared"))
    assert found.result.n_prompts == 20
    assert counts in found.notes[0]
    with pytest.raises(ValueError, match="no prompt is in both"):
        compare(a, Side("b", ["x"], [1]))


def test_repeated_rows_are_refused_or_averaged():
    a = Side("a", ["p", "p", "q", "q"], [1, 0, 1, 1])
    b = Side("b", ["p", "q"], [0, 0])
    with pytest.raises(ValueError, match="a: 2 rows for prompt 'p'"):
        compare(a, b)
    assert compare(a, b, how=Options(repeats="average")).result.difference == pytest.approx(-0.75)


def test_missing_values_and_absent_rows_are_missing():
    rng = np.random.default_rng(6)
    a, b = side("a", [1, 2], 0.7, rng), side("b", [1, 2], 0.3, rng)
    value = list(b.value)
    value[3], value[4] = None, math.nan
    b = Side("b", b.prompt_id[:-1], value[:-1], b.seed[:-1])
    found = compare(a, b)
    assert found.result.missing == 3
    assert found.result.n_prompts == 27
    assert found.notes[-1] == "b: 1 of its prompt and seed cells have no row; they count as missing"


def test_clusters_are_carried_and_conflicts_refused():
    rng = np.random.default_rng(7)
    cluster = [i // 3 for i in range(30)]
    a, b = side("a", [None], 0.7, rng, cluster=cluster), side("b", [None], 0.3, rng, cluster=cluster)
    assert compare(a, b).result.n_clusters == 10
    assert compare(a, side("b", [None], 0.3, rng)).result.n_clusters == 10
    with pytest.raises(ValueError, match="prompt 'p00' is in cluster 7, elsewhere in '0'"):
        compare(a, side("b", [None], 0.3, rng, cluster=[7, *cluster[1:]]))
    assert compare(side("a", [None], 0.7, rng, cluster=[""] * 30), side("b", [None], 0.3, rng)).result.n_clusters == 30


def test_scores_get_a_mean_difference():
    a, b = Side("a", PROMPTS, [3] * 30), Side("b", PROMPTS, [3, 4, 5] * 10)
    found = compare(a, b, how=Options(value_range=(1, 5)))
    assert (found.result.difference, found.result.effect) == (pytest.approx(1.0), pytest.approx(5 / 6))
    assert found.level_b.method == "t"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Side("a", [], []), "a: no rows"),
        (lambda: Side("a", ["p"], [1, 2]), "1 prompt ids but 2 of value"),
        (lambda: compare(Side("a", ["p"], ["yes"]), Side("b", ["p"], [1])), "found 'yes'"),
        (lambda: compare(Side("a", ["p"], [math.inf]), Side("b", ["p"], [1])), "infinite"),
        (lambda: compare(Side("a", ["p", "p"], [1, 0], [1, None]), Side("b", ["p"], [1])), "some have none"),
    ],
)
def test_bad_rows_are_named(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


def test_kinds_are_compared_by_themselves_and_never_pooled():
    prompts = [f"{kind}{i}" for kind in ("harmful", "benign") for i in range(100)]
    kinds = ["harmful"] * 100 + ["benign"] * 100
    a = Side("a", prompts, [i < 90 for i in range(100)] + [i < 5 for i in range(100)], kind=kinds)
    b = Side("b", prompts, [i < 60 for i in range(100)] + [i < 35 for i in range(100)])  # the kinds are a's
    found = compare_kinds(a, b, str)
    assert {k: round(one.result.difference, 12) for k, one in found.items()} == {"harmful": -0.3, "benign": 0.3}
    pooled = compare_kinds(Side("a", prompts, a.value), b, str)
    assert list(pooled) == ["None"]
    assert pooled["None"].result.difference == pytest.approx(0)


def test_a_prompt_of_two_kinds_and_one_of_none_are_named():
    a, b = Side("a", ["p", "q"], [1, 0], kind=["harmful", None]), Side("b", ["p", "q"], [1, 0], kind=["benign", None])
    with pytest.raises(ValueError, match="b: prompt 'p' is benign, elsewhere harmful"):
        compare_kinds(a, b, str)
    with pytest.raises(ValueError, match="1 prompts have no kind, for example 'q'; pass --kind"):
        compare_kinds(a, Side("b", ["p", "q"], [1, 0]), str)


def test_a_kind_without_values_on_one_side_has_its_reason_beside_the_others():
    kinds = ["harmful", "harmful", "benign", "benign"]
    a = Side("a", ["p", "q", "r", "s"], [1, 0, 1, 1], kind=kinds)
    b = Side("b", ["p", "q", "r", "s"], [1, 0, None, None], kind=kinds)
    found = compare_kinds(a, b, str)
    assert found["harmful"].result.difference == 0
    assert found["benign"] == "every value of b is missing: nothing to compare"


def test_an_interval_of_width_zero_supports_no_margin():
    halves = [0.5, *[1.0] * 7]
    found = compare(Side("a", PROMPTS[:8], halves), Side("b", PROMPTS[:8], halves), how=Options(0.1))
    assert found.result.width == 0
    assert not found.equivalence.equivalent
    assert not found.noninferiority.noninferior
    assert found.equivalence.because == "width zero: supports nothing"


def test_the_metric_says_which_way_is_worse():
    refused = [i < 10 for i in range(30)], [i < 25 for i in range(30)]
    a, b = Side("a", PROMPTS, refused[0]), Side("b", PROMPTS, refused[1])
    assert compare(a, b, "harmful_refusal_rate", "harmful", Options(0.05)).noninferiority.noninferior
    assert not compare(a, b, "false_refusal_rate", "benign", Options(0.05)).noninferiority.noninferior
