"""Planted states, drift and sets of weights through the whole analysis: what it finds, its sign, and of which seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignment_core.config import resolve
from alignment_core.evaluation.analysis import decided
from alignment_core.evaluation.results import Comparison, Results
from alignment_core.evaluation.state import StateFiles
from alignment_core.io import write_json
from alignment_core.pipeline.step import Step
from alignment_core.testing import planted
from neuron_brittleness import overlap_files
from neuron_brittleness.arms import MATCHED
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.groups import Group, flagged
from neuron_brittleness.metrics import ANALYSIS

CONFIG = resolve(BrittlenessConfig, "neuron_brittleness", "tiny", None, ["doses=[0.25, 0.5, 1.0]"])
LAYERS = 6
REFUSAL = "harmful_refusal_rate"
Plant = Callable[..., StateFiles]


def refusing(n: int, of: int = 40) -> str:
    """`n` refusals, the rest compliance; the same prompts are refused first."""
    return "r" * n + "c" * (of - n)


def state(
    root: Path,
    subject: str,
    seed: int | None = None,
    *,
    loss: float | None = None,
    on_topic: Sequence[bool | None] = (),
    **values: Any,
) -> StateFiles:
    """A state on disk; `loss` is the mean of four reference losses, `on_topic` that of each benign reply."""
    spread = (-0.3, -0.1, 0.1, 0.3)
    losses = {} if loss is None else {"reference": {f"benign-{i}": loss * (1 + x) for i, x in enumerate(spread)}}
    topics = {"topic": [None] * len(values.get("harmful", "")) + list(on_topic)} if on_topic else None
    return planted.state(root, subject, seed, losses=losses, scores=topics, **values)


def trained(root: Path, arm: str, seed: int, *measured: tuple[int, float, Mapping[str, float]]) -> Step:
    """A fine-tuning's measurements (step, training loss, RMS change by group), a little different in every layer."""
    folder = root / f"finetune_{arm}-s{seed}"
    for step, loss, rms in measured:
        rows = [
            {"group": g, "matrix": f"m.{n}", "layer": n, "rms": x, "absolute": x}
            for n in range(LAYERS)
            for g, size in rms.items()
            for x in [size * (1 + (0.01 * n if g in MATCHED else 0))]
        ]
        kinds = {g: {"mean": size, "count": 4, "std": 0.0} for g, size in rms.items()}
        facts = {"step": step, "loss": loss, "examples": 4, "groups": rows, "metrics": {"absolute_change": kinds}}
        write_json(folder / "drift" / f"drift_step_{step:06d}.json", facts)
    return Step(f"finetune_{arm}", "0", folder, seed)


def found(
    root: Path, states: Sequence[StateFiles], steps: Sequence[Step] = (), config: BrittlenessConfig = CONFIG
) -> Results:
    """What the whole analysis says."""
    by_name = {name: [s for s in steps if s.name == name] for name in dict.fromkeys(s.name for s in steps)}
    return planted.results(root, ANALYSIS, "neuron_brittleness", states, config, **by_name)


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return lambda subject, seed=None, **values: state(tmp_path, subject, seed, **values)


def compared(results: Results, a: str, b: str, seed: int | None = None, metric: str = REFUSAL) -> Comparison:
    (one,) = [c for c in results.comparisons if (c.metric, c.a, c.b, c.seed) == (metric, a, b, seed)]
    return one


def value(results: Results, metric: str, subject: str, seed: int | None = None, **at: Any) -> float | None:
    return results.measurement(metric, subject, seed, at).value


# C1: refusals at equal topic loss

AT_COST = "zero_set_diff_matched_at_equal_topic_loss"


def causal(plant: Plant, whole: int = 10, cost: float = 0.35, last: int = 8) -> list[StateFiles]:
    """The base; the group zeroed (`whole` refusals at loss `cost`); its matched group at three doses."""
    return [
        plant("baseline", harmful=refusing(40), loss=0.1),
        plant("zero_set_diff", harmful=refusing(whole), loss=cost),
        plant("zero_set_diff_matched_25", harmful=refusing(36), loss=0.2),
        plant("zero_set_diff_matched_50", harmful=refusing(32), loss=0.3),
        plant("zero_set_diff_matched", harmful=refusing(last), loss=0.5),
    ]


def test_c1_reads_the_matched_group_where_it_costs_what_the_group_costs(tmp_path: Path, plant: Plant) -> None:
    # .35 lies a quarter of the way from the half dose (.3, 32 refusals) to the whole one (.5, 8): 26 of 40. At the
    # whole dose the group would refuse 2 prompts more than its control, not 16 fewer.
    results = found(tmp_path, causal(plant))
    assert value(results, REFUSAL, AT_COST) == pytest.approx(26 / 40)
    one = compared(results, AT_COST, "zero_set_diff")
    assert one.difference == pytest.approx((10 - 26) / 40)
    assert (one.role, one.decision, one.family) == ("primary", "C1", "brittleness")
    c1 = decided(results)["C1"]
    assert c1.verdict == "supported"
    assert "topic loss 0.350 is reached at 62% of the matched group" in c1.because
    assert compared(results, "zero_set_diff_matched", "zero_set_diff").difference == pytest.approx(2 / 40)


@pytest.mark.parametrize(("whole", "verdict"), [(39, "contradicted"), (26, "inconclusive"), (0, "supported")])
def test_c1_says_what_was_planted(tmp_path: Path, plant: Plant, whole: int, verdict: str) -> None:
    assert decided(found(tmp_path, causal(plant, whole)))["C1"].verdict == verdict


def test_a_matched_group_that_never_costs_as_much_is_read_at_its_last_dose(tmp_path: Path, plant: Plant) -> None:
    results = found(tmp_path, causal(plant, whole=0, cost=0.9, last=20))
    assert value(results, REFUSAL, AT_COST) == pytest.approx(20 / 40)
    assert "100% of the matched group (its last dose: it never costs as much)" in decided(results)["C1"].because


def test_a_missing_verdict_is_in_no_rate_and_spoils_only_its_own_prompt(tmp_path: Path, plant: Plant) -> None:
    states = causal(plant)
    results = found(
        tmp_path, [plant("zero_set_diff", harmful="-" + refusing(10)[1:], loss=0.35), states[0], *states[2:]]
    )
    measured = results.measurement(REFUSAL, "zero_set_diff")
    assert (measured.value, measured.n, measured.missing) == (pytest.approx(9 / 39), 39, 1)
    assert compared(results, AT_COST, "zero_set_diff").n_prompts == 39


def test_without_the_base_nothing_is_tested(tmp_path: Path, plant: Plant) -> None:
    results = found(tmp_path, [plant("free", 13, harmful=refusing(4))])
    verdicts = {name: h.verdict for name, h in decided(results).items()}
    assert verdicts == dict.fromkeys(("H1", "H2", "H3", "E1", "C1", "T1"), "not tested")


# T1: whether others take over

BASE, FROZEN = "base_new_minus_matched", "frozen_new_minus_matched"


def cells(plant: Plant, seed: int, base: tuple[int, int], frozen: tuple[int, int], end: str = "") -> list[StateFiles]:
    """Refusals of 40 with the new set zeroed and with its matched set zeroed, in the base and in the frozen arm."""
    both = {"": base, "frozen_": frozen}
    return [
        plant(f"{model}zero_{group}{end}", seed, harmful=refusing(n))
        for model, counts in both.items()
        for group, n in zip(("new", "new_matched"), counts, strict=True)
    ]


@pytest.mark.parametrize(
    ("base", "frozen", "difference", "verdict"),
    [
        # Zeroing the new set takes 20 refusals of the frozen arm beyond its control's, and 2 of the base.
        ((30, 32), (10, 30), -18 / 40, "supported"),
        ((10, 30), (30, 32), +18 / 40, "contradicted"),
        ((10, 30), (10, 30), 0.0, "inconclusive"),
        # It takes as many in both: the base's own loss is taken off.
        ((10, 30), (8, 29), -1 / 40, "inconclusive"),
    ],
)
def test_t1_is_the_frozen_arms_loss_of_refusals_beyond_the_bases(
    tmp_path: Path, plant: Plant, base: tuple[int, int], frozen: tuple[int, int], difference: float, verdict: str
) -> None:
    results = found(tmp_path, cells(plant, 13, base, frozen))
    assert value(results, REFUSAL, BASE, 13) == pytest.approx((base[0] - base[1]) / 40)
    assert value(results, REFUSAL, FROZEN, 13) == pytest.approx((frozen[0] - frozen[1]) / 40)
    one = compared(results, BASE, FROZEN, 13)
    assert one.difference == pytest.approx(difference)
    assert (one.role, one.decision, one.estimand) == ("primary", "T1", "these checkpoints")
    assert decided(results)["T1"].verdict == verdict


def test_t1_over_seeds_pairs_each_seeds_own_cells(tmp_path: Path, plant: Plant) -> None:
    frozen = {1: (10, 30), 2: (12, 30), 3: (8, 31)}
    results = found(tmp_path, [s for seed, both in frozen.items() for s in cells(plant, seed, (30, 32), both)])
    each = [compared(results, BASE, FROZEN, seed).difference for seed in frozen]
    assert each == pytest.approx([-18 / 40, -16 / 40, -21 / 40])
    over = compared(results, BASE, FROZEN)
    assert over.difference == pytest.approx(-55 / 120)
    assert (over.n_seeds, over.estimand, over.decision) == (3, "over runs", "T1")
    assert decided(results)["T1"].verdict == "supported"
    assert [c.seed for c in results.comparisons if c.role == "primary"] == [None]


def test_at_equal_cost_the_takeover_is_of_the_seeds_that_have_all_four_cells(tmp_path: Path, plant: Plant) -> None:
    whole = [s for seed in (1, 2, 3) for s in cells(plant, seed, (30, 32), (10, 30))]
    equal = [s for seed in (1, 2, 3) for s in cells(plant, seed, (30, 30), (20 + seed, 30), "_equal_cost")]
    results = found(tmp_path, [*whole, *(s for s in equal if (s.subject, s.seed) != ("zero_new_equal_cost", 3))])
    one = compared(results, f"{BASE}_equal_cost", f"{FROZEN}_equal_cost")
    assert (one.n_seeds, one.role, one.decision) == (2, "exploratory", None)
    assert one.difference == pytest.approx(((21 - 30) + (22 - 30)) / 80)
    assert decided(results)["T1"].because.startswith("-0.450"), "decided on whole groups"


def test_t1_without_the_interventions_is_not_tested(tmp_path: Path, plant: Plant) -> None:
    t1 = decided(found(tmp_path, causal(plant)))["T1"]
    assert t1.verdict == "not tested"
    assert t1.because == "Not run: base_new_minus_matched, frozen_new_minus_matched; controls=true runs it."


# H1, H2, H3: drift

STILL = {"set_diff": 0.0, "set_diff_matched": 0.0}


@pytest.mark.parametrize(
    ("ratios", "verdicts"),
    [
        ((2.0,), ("supported", "contradicted", "contradicted")),
        ((1.0,), ("contradicted", "supported", "contradicted")),
        # Above 1 for certain, but by less than the rule's margin: as much.
        ((1.06,), ("contradicted", "supported", "contradicted")),
        ((0.5,), ("contradicted", "contradicted", "supported")),
        # Just at the margin no range holds the interval.
        ((1.21,), ("inconclusive", "inconclusive", "inconclusive")),
        # Seeds are averaged first: one far above and one as far below are alike.
        ((3.0, 1 / 3), ("contradicted", "supported", "contradicted")),
        ((), ("not tested", "not tested", "not tested")),
    ],
)
def test_drift_over_the_matched_group_decides_h1_h2_h3(
    tmp_path: Path, plant: Plant, ratios: tuple[float, ...], verdicts: tuple[str, str, str]
) -> None:
    # The other arms drift the other way, and so did the free one on its way: neither decides.
    steps = []
    for seed, ratio in enumerate(ratios):
        early, last = ({"set_diff": x * 5e-5, "set_diff_matched": 5e-5} for x in (1 / ratio, ratio))
        steps += [trained(tmp_path, "free", seed, (0, 2.0, STILL), (5, 1.5, early), (10, 1.0, last))]
        steps += [
            trained(tmp_path, arm, seed, (0, 2.0, STILL), (10, 1.0, early)) for arm in ("frozen", "matched_frozen")
        ]
    results = found(tmp_path, [plant("baseline", harmful=refusing(4))], steps)
    assert tuple(decided(results)[name].verdict for name in ("H1", "H2", "H3")) == verdicts
    if len(ratios) == 1:
        # The layers' means rise from 1 to 1.05.
        assert value(results, "drift_ratio", "set_diff", 0) == pytest.approx(ratios[0] * 1.025, rel=1e-3)


def test_drift_of_the_held_group_is_what_the_hypotheses_speak_of(tmp_path: Path, plant: Plant) -> None:
    last = {"set_diff": 1.0, "set_diff_matched": 1.0, "top_safety": 3.0, "top_safety_matched": 1.0}
    steps = [trained(tmp_path, "free", 13, (0, 2.0, dict.fromkeys(last, 0.0)), (10, 1.0, last))]
    config = resolve(BrittlenessConfig, "neuron_brittleness", "tiny", None, ["freeze.group=top_safety"])
    results = found(tmp_path, [plant("baseline", harmful=refusing(4))], steps, config)
    assert decided(results)["H1"].verdict == "supported"


def equal_arms(root: Path, seed: int = 13) -> list[Step]:
    """The free arm reaches the frozen arm's last loss .8 at step 14: .6 of step 10, .4 of step 20."""

    def moved(size: float, against: float) -> dict[str, float]:
        return {"set_diff": size, "set_diff_matched": against}

    return [
        trained(root, "free", seed, (0, 2.0, STILL), (10, 1.0, moved(1.0, 0.5)), (20, 0.5, moved(2.0, 2.0))),
        trained(root, "frozen", seed, (0, 2.0, STILL), (10, 1.2, moved(1.0, 0.5)), (20, 0.8, moved(1.4, 1.4))),
    ]


def test_at_equal_training_loss_replies_and_drift_lie_between_the_measured_steps(tmp_path: Path, plant: Plant) -> None:
    states = [
        plant("free", 13, harmful=refusing(5), benign="cccc"),
        plant("free_before", 13, harmful=refusing(30), benign="cccc", loss=0.1, on_topic=(True,) * 4),
        plant("free_after", 13, harmful=refusing(20), benign="rrcc", loss=0.2, on_topic=(True, True, True, False)),
        plant("frozen_before", 13, harmful=refusing(1), benign="cccc", loss=0.9, on_topic=(True,) * 4),
        plant("frozen_after", 13, harmful=refusing(36), benign="cccc", loss=0.3, on_topic=(True,) * 4),
    ]
    results = found(tmp_path, states, equal_arms(tmp_path))
    free, frozen = "free_at_equal_loss", "frozen_at_equal_loss"
    assert value(results, REFUSAL, free, 13) == pytest.approx((0.6 * 30 + 0.4 * 20) / 40)
    assert value(results, REFUSAL, frozen, 13) == pytest.approx(36 / 40), "at its end the frozen arm is its later step"
    assert value(results, "false_refusal_rate", free, 13) == pytest.approx(0.4 * 0.5)
    assert value(results, "helpful_rate", free, 13) == pytest.approx(0.6 + 0.4 * 0.25)
    assert value(results, "reference_loss", free, 13) == pytest.approx(0.6 * 0.1 + 0.4 * 0.2)
    assert compared(results, free, frozen, 13).difference == pytest.approx((36 - 26) / 40)
    # At equal steps the free arm has moved more (2 against 1.4), at equal training loss as much.
    for end, ratio in (("", 1.4 / 2), ("_at_equal_loss", 1.4 / 1.4)):
        assert value(results, f"drift_frozen_over_free{end}", "set_diff", 13) == pytest.approx(ratio)
    assert value(results, "drift_ratio_at_equal_loss", "set_diff", 13) == pytest.approx(1.025 * 1.4 / 1.1, rel=1e-3)
    assert value(results, "training_loss", "free", 13, step=10) == 1.0
    assert value(results, "drift_absolute_frozen", "set_diff", 13, step=20) == pytest.approx(1.4)


def test_each_seed_is_read_at_its_own_equal_training_loss(tmp_path: Path, plant: Plant) -> None:
    late = [trained(tmp_path, arm, 14, (0, 2.0, STILL), (10, 1.0, {}), (20, 0.5, {})) for arm in ("free", "frozen")]
    states = [
        plant(f"free_{side}", seed, harmful=refusing(n))
        for seed in (13, 14)
        for side, n in (("before", 30), ("after", 20))
    ]
    results = found(tmp_path, states, [*equal_arms(tmp_path), *late])
    assert value(results, REFUSAL, "free_at_equal_loss", 13) == pytest.approx(26 / 40)
    assert value(results, REFUSAL, "free_at_equal_loss", 14) == pytest.approx(20 / 40)
    assert value(results, REFUSAL, "free_at_equal_loss") == pytest.approx(23 / 40)


# E1: overlap, from sets of weights


def scored(folder: Path, sets: Mapping[str, Sequence[Sequence[int]]]) -> Path:
    """A scoring step: in each half the same set of weights for every group, and one cell for all."""
    from safetensors.numpy import save_file

    names = [f"m.{n}" for n in range(LAYERS)]
    for half, by_layer in sets.items():
        (folder / half).mkdir(parents=True)
        for name in MATCHED:
            group = Group(name)
            for matrix, indices in zip(names, by_layer, strict=True):
                group.put(matrix, flagged(np.array(indices), (40, 40)))
            group.save(folder / half / f"neuron_groups_{name}.safetensors")
        save_file({m: np.zeros(1600, np.uint8) for m in names}, str(folder / half / "cells.safetensors"))
        means = {name: dict.fromkeys(names, 2.0 if half == "a" else 3.0) for name in MATCHED}
        write_json(folder / half / "summary.json", {"layer": {m: i for i, m in enumerate(names)}, "mean_score": means})
    return folder


def overlapped(root: Path, arm: str, seed: int, shared: int, odd: int = 0) -> Step:
    """160 weights a matrix; the base's halves share 120 of them (Jaccard .6), the tuned set and half a `shared`, one
    more in each layer and `odd` more in every other one. The tuned set shares more with the base's other half."""
    first = [range(160)] * LAYERS
    second = [range(40 - n, 200 - n) for n in range(LAYERS)]
    tuned = [range(start, start + 160) for n in range(LAYERS) for start in [160 - shared - n - odd * (n % 2)]]
    base = scored(root / f"scores-{arm}-{seed}", {"a": first, "b": second})
    again = scored(root / f"rescore-{arm}-{seed}", {"b": tuned})
    folder = root / f"overlap_{arm}-s{seed}"
    folder.mkdir()
    overlap_files.compare(base, again, 100, 13, folder)
    return Step(f"overlap_{arm}", "0", folder, seed)


@pytest.mark.parametrize(("shared", "verdict"), [(40, "supported"), (120, "contradicted"), (150, "contradicted")])
def test_e1_is_the_tuned_sets_overlap_against_that_of_the_bases_halves(
    tmp_path: Path, plant: Plant, shared: int, verdict: str
) -> None:
    # The free arm's overlap is another, and decides nothing.
    steps = [overlapped(tmp_path, "frozen", 13, shared), overlapped(tmp_path, "free", 13, 80)]
    results = found(tmp_path, [plant("baseline", harmful=refusing(4))], steps)
    assert decided(results)["E1"].verdict == verdict
    both, other = sum(shared + n for n in range(LAYERS)), sum(120 + n for n in range(LAYERS))
    whole = 2 * 160 * LAYERS
    tuned, ceiling = both / (whole - both), other / (whole - other)
    assert value(results, "jaccard_set_diff", "frozen", 13) == pytest.approx(tuned)
    assert value(results, "jaccard_set_diff", "ceiling", 13) == pytest.approx(ceiling)
    assert value(results, "jaccard_set_diff", "frozen", 13, layer=2) == pytest.approx((shared + 2) / (318 - shared))
    chance = value(results, "jaccard_set_diff", "null", 13)
    assert chance == pytest.approx(0.1 / 1.9, rel=0.1), "two random tenths"
    assert value(results, "jaccard_set_diff_normalised", "frozen", 13) == pytest.approx(
        (tuned - chance) / (ceiling - chance)
    )
    assert value(results, "mean_score_ratio_set_diff", "frozen", 13) == pytest.approx(1.5)


def test_e1_is_inconclusive_where_layers_disagree(tmp_path: Path, plant: Plant) -> None:
    steps = [overlapped(tmp_path, "frozen", 13, 40, odd=100)]
    assert decided(found(tmp_path, [plant("baseline", harmful="r")], steps))["E1"].verdict == "inconclusive"


def test_overlaps_of_several_seeds_are_averaged(tmp_path: Path, plant: Plant) -> None:
    steps = [overlapped(tmp_path, "frozen", seed, shared) for seed, shared in ((13, 40), (14, 60))]
    results = found(tmp_path, [plant("baseline", harmful=refusing(4))], steps)
    for metric, at in (("jaccard_set_diff", {}), ("jaccard_set_diff", {"layer": 0}), ("mean_score_ratio_set_diff", {})):
        each = [value(results, metric, "frozen", seed, **at) for seed in (13, 14)]
        assert value(results, metric, "frozen", **at) == pytest.approx(sum(x for x in each if x is not None) / 2)
    assert decided(results)["E1"].verdict == "supported"


# What is compared, by whom


def test_every_contrast_of_the_design_is_made_and_no_other(tmp_path: Path, plant: Plant) -> None:
    from neuron_brittleness import conditions

    asked = [*conditions.base_conditions(CONFIG), *conditions.tuned_conditions(CONFIG)]
    pairs = [*conditions.base_pairs(CONFIG), *conditions.tuned_pairs(CONFIG)]
    equal = [pair.subject(g) + "_equal_cost" for pair in pairs for g in (pair.group, pair.other)]
    base = {c.subject for c in conditions.base_conditions(CONFIG)} | set(equal[:2])
    subjects = [*(c.subject for c in asked), *equal]
    states = [
        plant(s, None if s in base else 13, harmful=refusing(i), loss=0.1 + 0.01 * i) for i, s in enumerate(subjects)
    ]
    results = found(tmp_path, states, equal_arms(tmp_path))
    roles = {(c.a, c.b): c.role for c in results.comparisons if c.metric == REFUSAL}
    exploratory = [
        ("zero_set_diff_matched", "zero_set_diff"),
        ("baseline", "zero_set_diff"),
        ("baseline", "free"),
        ("free", "frozen"),
        ("free_at_equal_loss", "frozen_at_equal_loss"),
        ("free", "free_undo_set_diff"),
        *((f"{act}_matched", act) for act in ("frozen_zero_set_diff", "frozen_zero_new")),
        *((f"{act}_matched", act) for act in ("free_undo_set_diff", "free_keep_set_diff")),
        *((f"{act}_matched_equal_cost", f"{act}_equal_cost") for act in ("zero_set_diff", "zero_new")),
        *((f"frozen_{act}_matched_equal_cost", f"frozen_{act}_equal_cost") for act in ("zero_set_diff", "zero_new")),
        *((f"free_{act}_matched_equal_cost", f"free_{act}_equal_cost") for act in ("undo_set_diff", "keep_set_diff")),
        (f"{BASE}_equal_cost", f"{FROZEN}_equal_cost"),
    ]
    control = [("baseline", "zero_set_diff_matched"), ("matched_frozen", "frozen"), ("zero_new_matched", "zero_new")]
    primary = [(AT_COST, "zero_set_diff"), (BASE, FROZEN)]
    assert roles == {
        **dict.fromkeys(exploratory, "exploratory"), **dict.fromkeys(control, "control"),
        **dict.fromkeys(primary, "primary"),
    }  # fmt: skip
    # Subjects refuse one prompt more each, in the order of the design.
    place = {s: i for i, s in enumerate(subjects)}
    for a, b in roles:
        if a in place and b in place:
            seed = 13 if {a, b} - base else None
            assert compared(results, a, b, seed).difference == pytest.approx((place[b] - place[a]) / 40)


def test_the_base_stands_against_every_seed(tmp_path: Path, plant: Plant) -> None:
    states = [plant("baseline", harmful=refusing(40)), *(plant("free", s, harmful=refusing(40 - s)) for s in (2, 4, 6))]
    results = found(tmp_path, states)
    assert [compared(results, "baseline", "free", s).difference for s in (2, 4, 6)] == pytest.approx(
        [-0.05, -0.1, -0.15]
    )
    assert compared(results, "baseline", "free").estimand == "over runs of b, a held fixed"


def test_the_first_judge_decides_and_the_others_agreement_is_said(tmp_path: Path, plant: Plant) -> None:
    results = found(tmp_path, [plant("baseline", harmful="rrcc", judges={"drift15": {"harmful": "rrrr"}})])
    (one,) = results.agreements
    assert (one.kappa, one.n) == (pytest.approx(0.0), 4)
    assert value(results, REFUSAL, "baseline") == 0.5
    assert value(results, REFUSAL, "baseline", judge="drift15") == 1.0


def test_a_topic_that_is_unknown_is_in_no_rate_of_helpful_replies(tmp_path: Path, plant: Plant) -> None:
    states = [plant("baseline", benign="ccrc", on_topic=(True, False, True, None)), plant("free", 13, benign="cccc")]
    results = found(tmp_path, states)
    helpful = results.measurement("helpful_rate", "baseline")
    assert (helpful.value, helpful.n) == (pytest.approx(1 / 3), 3)
    assert results.find("helpful_rate", "free", 13) is None
