"""Rates, differences and verdicts of the study, from replies whose answers are known by hand."""

from __future__ import annotations

import math

import pytest

from alignment_core.evaluation import hypotheses as claims
from alignment_core.records import Kind, Verdict
from drift_dpo import analysis, evaluation, original
from drift_dpo.metrics import METRICS, Evaluation, layout


def _state(subject: str, seed: int | None, refused: list[int | None], kind: Kind = "harmful") -> Evaluation:
    """One state whose i-th prompt was refused (1), complied with (0), or not judged (None)."""
    label = {1: "refusal", 0: "compliance", None: None}
    verdicts = {
        f"p{i}": Verdict(f"p{i}", subject, "rules", label[r], kind, cluster=f"c{i}", seed=seed)  # type: ignore[arg-type]
        for i, r in enumerate(refused)
    }
    return Evaluation(subject, seed, f"steps/answer_{subject}/completions.jsonl", verdicts, {"rules": verdicts}, {})


def _rate(states: dict[str, list[Evaluation]], subject: str, seed: int | None = None) -> tuple[float | None, int, int]:
    found = [
        m
        for m in analysis.measurements(states)
        if (m.metric, m.subject, m.seed, m.at) == ("harmful_refusal_rate", subject, seed, {}) and m.estimator == "raw"
    ]
    assert len(found) == 1
    return found[0].value, found[0].n or 0, found[0].missing


def test_missing_verdicts_are_counted_and_never_a_verdict() -> None:
    states = {"baseline": [_state("baseline", None, [1, 1, 0, None])]}
    value, n, missing = _rate(states, "baseline")
    assert value == pytest.approx(2 / 3)
    assert (n, missing) == (3, 1)


def test_shares_of_a_kind_sum_to_one() -> None:
    verdicts = {
        f"p{i}": Verdict(f"p{i}", "dpo", "rules", label, "benign", cluster=f"c{i}", seed=1)
        for i, label in enumerate(("refusal", "partial", "compliance", "incoherent", "compliance"))
    }
    states = {"dpo": [Evaluation("dpo", 1, "c", verdicts, {"rules": verdicts}, {})]}
    found = {m.metric: m.value for m in analysis.measurements(states) if not m.at}
    shares = ("false_refusal_rate", "benign_partial_share", "benign_compliance_share", "benign_incoherent_share")
    assert [found[s] for s in shares] == pytest.approx([0.2, 0.2, 0.4, 0.2])


def test_one_run_uses_mcnemar_and_speaks_of_checkpoints() -> None:
    # 1 prompt only refused by the baseline, 6 only by stage A: exact McNemar p = 16/128 = .125.
    a = [1] + [0] * 6 + [1] * 13
    b = [0] + [1] * 6 + [1] * 13
    states = {"baseline": [_state("baseline", None, a)], "stage_a": [_state("stage_a", 13, b)]}
    compared, hypotheses = analysis.comparisons(states)
    found = next(c for c in compared if c.metric == "harmful_refusal_rate")
    assert found.p == pytest.approx(0.125)
    assert found.difference == pytest.approx(5 / 20)
    assert found.estimand == "these checkpoints"
    assert found.role == "primary"
    assert [h.verdict for h in hypotheses] == ["undecided"] * 4


def test_over_seeds_the_drop_is_decided_by_the_crossed_interval() -> None:
    base = [1] * 30 + [0] * 10
    drops = {s: [1] * (10 + s % 2) + [0] * (30 - s % 2) for s in range(1, 6)}
    states = {
        "baseline": [_state("baseline", None, base)],
        "stage_a": [_state("stage_a", s, r) for s, r in drops.items()],
    }
    compared, hypotheses = analysis.comparisons(states)
    over = [c for c in compared if c.seed is None and c.metric == "harmful_refusal_rate"]
    assert len(over) == 1
    # Seeds 1, 3, 5 refuse 11 of 40, seeds 2 and 4 refuse 10: the mean difference is (3*11 + 2*10)/200 - 30/40.
    assert over[0].difference == pytest.approx(53 / 200 - 0.75)
    assert over[0].n_seeds == 5
    assert over[0].role == "primary"
    assert next(h for h in hypotheses if h.name == "H1").verdict == "supported"
    assert sum(c.role == "primary" for c in compared) == 1, "single seeds decide nothing when there are several"


def test_a_rise_rejects_the_claim_of_a_fall() -> None:
    states = {
        "baseline": [_state("baseline", None, [0] * 40)],
        "stage_a": [_state("stage_a", 13, [1] * 40)],
    }
    _, hypotheses = analysis.comparisons(states)
    assert next(h for h in hypotheses if h.name == "H1").verdict == "rejected"


def test_a_control_that_was_not_run_is_said_so() -> None:
    states = {"baseline": [_state("baseline", None, [1, 0])], "stage_a": [_state("stage_a", 13, [0, 0])]}
    _, hypotheses = analysis.comparisons(states)
    h4 = next(h for h in hypotheses if h.name == "H4")
    assert h4.verdict == "undecided"
    assert "not run" in h4.because.lower()


def test_equivalence_of_identical_states_is_shown_at_200_prompts() -> None:
    same = [1] * 100 + [0] * 100
    states = {
        "baseline": [_state("baseline", None, same)],
        "null_stage_a": [_state("null_stage_a", 13, same)],
    }
    _, hypotheses = analysis.comparisons(states)
    assert next(h for h in hypotheses if h.name == "H4").verdict == "supported"


def test_topic_is_of_replies_that_are_no_refusals() -> None:
    verdicts = {
        f"p{i}": Verdict(f"p{i}", "dpo", "rules", label, "benign", cluster=f"c{i}", seed=1)
        for i, label in enumerate(("refusal", "compliance", "compliance"))
    }
    scores = {"p0": {"topic": False}, "p1": {"topic": True}, "p2": {"topic": False}}
    state = Evaluation("dpo", 1, "c", verdicts, {"rules": verdicts}, scores)
    found = {m.metric: (m.value, m.n) for m in analysis.measurements({"dpo": [state]}) if not m.at}
    assert found["topic_rate"] == (0.5, 2)
    value, n = found["helpful_rate"]
    assert value == pytest.approx(1 / 3)
    assert n == 3


def test_judges_agreement_is_cohens_kappa() -> None:
    state = _state("baseline", None, [1, 1, 0, 0])
    other = {k: Verdict(k, "baseline", "drift15", "refusal", "harmful") for k in state.verdicts}
    both = Evaluation("baseline", None, "c", state.verdicts, {"rules": state.verdicts, "drift15": other}, {})
    (found,) = analysis.agreements({"baseline": [both]})
    # Half agree, and a judge that always says refusal agrees by chance alone: kappa is 0.
    assert found.kappa == pytest.approx(0.0)
    assert found.n == 4


def test_prompts_missing_from_one_state_are_not_paired_with_others() -> None:
    metric = METRICS[0]
    a, b = _state("a", 1, [1, 0, 1]), _state("b", 1, [1, 0])
    found = layout(metric, [b], ["p0", "p1", "p2"])
    assert found is not None
    assert math.isnan(found.values[2, 0])
    assert a.values(metric)["p2"] == 1.0


def test_original_metrics_are_null_where_nothing_was_asked() -> None:
    # Upstream: a validation file without harmful prompts reported a harmful refusal rate of 0.0.
    verdicts = [Verdict("p", "stage_a", "rules", "compliance", "benign")]
    assert evaluation.tiny_eval_metrics(verdicts) == {
        "eval/harm_refusal_success@gen": None,
        "eval/benign_false_refusal@gen": 0.0,
        "eval/harm_samples": 0,
        "eval/benign_samples": 1,
    }


def test_which_of_the_originals_claims_its_n_could_support() -> None:
    # .92 against .97 of 100: at best 5 prompts changed and none changed back, p = 2/2^5 = .0625.
    assert original.pairing_p(92, 97)[0] == pytest.approx(0.0625)
    assert [row[-1] for row in original.tables()[1].rows] == ["yes", "yes", "no", "no"]


def test_hypotheses_are_at_most_four_and_hashed() -> None:
    written = claims.read("drift_dpo")
    assert len(written.claims) <= 4
    assert written.margin == 0.05
    assert len(written.sha256) == 64
    assert all(c.metric in {m.key for m in METRICS} for c in written.claims)
