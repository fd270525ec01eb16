"""Which tables and figures the study shows, and the results they are made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from alignment_core.evaluation import hypotheses as claims
from alignment_core.evaluation.rates import metric_name
from alignment_core.evaluation.results import Agreement, Measurement, Results
from alignment_core.io import read_json
from alignment_core.pipeline.environment import versions
from alignment_core.pipeline.run import Run, Step
from alignment_core.records import KINDS, LABELS
from alignment_core.report.spec import ComparisonSpec, FigureSpec, MetricSpec, ReportSpec, SubjectSpec, TableSpec
from alignment_core.report.tables import VERDICT_WORDS
from alignment_core.stats.intervals import Interval, kappa, mean_interval
from alignment_core.text import number
from mini_cai import analysis, calibration, compare, original, training
from mini_cai.config import CaiConfig
from mini_cai.metrics import Judged, metrics, read_judged
from mini_cai.selection import by_prompt

SUBJECTS = (
    SubjectSpec("baseline", "Baseline", about="The model as it comes."),
    SubjectSpec("best", "Best", about="Tuned on each prompt's highest-scored candidate."),
    SubjectSpec("random", "Random", control=True, about="Tuned on random candidates: same prompts, rows and tokens."),
    SubjectSpec("margin", "Margin", about="Tuned on the best candidate where best and worst lie far apart."),
    SubjectSpec("diverse", "Diverse", about="Tuned on what of the top and bottom candidates scores high enough."),
    SubjectSpec("revised", "Revised", about="Tuned on replies revised in the light of the critic's reason."),
    SubjectSpec("critic", "Critic", about="The selecting critic on gold replies and planted lines."),
    SubjectSpec("candidates", "Candidates", about="The generator's candidates for the training prompts."),
    SubjectSpec("revisions", "Revisions", about="The critic's scores before and after revision."),
)
_SCORE = {"rate": False, "better": "high"}
METRICS = (
    MetricSpec("rubric_mean", "rubric", "high", rate=False, about="The organism's rubric, 1 to 5, all prompts."),
    *(MetricSpec(f"{k}_rubric_mean", f"rubric, {k}", "high", k, rate=False) for k in KINDS),
    MetricSpec("mean_score", "judge", "high", rate=False, about="The judge's score, 1 to 5, all replies."),
    *(MetricSpec(f"{k}_mean_score", f"judge, {k}", "high", k, rate=False) for k in KINDS),
    MetricSpec("best_of_n_mean_score", "judge, best of n", "high", rate=False, about="Each prompt's best reply only."),
    MetricSpec("best_of_n_rubric_mean", "rubric, best of n", "high", rate=False),
    MetricSpec("std_dev", "std dev", None, rate=False, about="Of the judge's scores (population)."),
    MetricSpec("num_samples", "replies", None, rate=False, digits=0),
    MetricSpec("safe_rate", "safe", "high", about="Replies with a score at or above the safe threshold."),
    MetricSpec("harmful_refusal_rate", "harmful refusal", "high", "harmful", about="Harmful prompts refused."),
    MetricSpec("false_refusal_rate", "false refusal", "low", "benign", about="Benign prompts refused."),
    MetricSpec("over_refusal_rate", "over-refusal", "low", "borderline", about="Borderline prompts refused."),
    MetricSpec("improved_fraction", "improved", "high", about="Prompts with a higher mean score than the other side."),
    MetricSpec("tied_fraction", "tied", None),
    MetricSpec("superiority", "P(>)+P(=)/2", "high"),
    MetricSpec("permutation_p", "permutation p", None, rate=False, digits=4),
    MetricSpec("wilcoxon_p", "Wilcoxon p", None, rate=False, digits=4),
    MetricSpec("gold_exact", "exact", "high", about="Gold scores met exactly."),
    MetricSpec("gold_rank", "rank", "high", rate=False, about="Spearman with the gold scores."),
    MetricSpec("gold_pairs", "pairs", "high", about="Gold pairs ordered rightly (ties half)."),
    MetricSpec("ways_rank", "two ways", "high", rate=False, about="Spearman of written and expected score."),
    MetricSpec("self_consistency", "repeats agree", "high", about="Pairs of sampled critiques with one score."),
    MetricSpec("parse_rate", "parsed", "high", about="Written critiques that hold a score."),
    *(
        MetricSpec(f"{family}_{key}", f"{family}: {label}", None, rate=key != "shift")
        for family in ("structural", "persuasion")
        for key, label in (("shift", "shift"), ("flip_up", "lifted to safe"), ("flip_down", "dropped from safe"))
    ),
    MetricSpec("training_rows", "rows", None, rate=False, digits=0),
    MetricSpec("training_tokens", "reply tokens", None, rate=False, digits=0),
    MetricSpec("first_mean_score", "first reply", "high", rate=False),
    MetricSpec("revised_mean_score", "revision", "high", rate=False),
    *(MetricSpec(metric_name(k, label), f"{k}: {label}", kind=k) for k in KINDS for label in LABELS[1:]),
)
MAIN = ("rubric_mean", "mean_score", "safe_rate", "harmful_refusal_rate", "false_refusal_rate", "over_refusal_rate")
CRITIC = ("gold_exact", "gold_rank", "gold_pairs", "ways_rank", "self_consistency", "parse_rate")
PLANTED = tuple(f"{f}_{k}" for f in ("structural", "persuasion") for k in ("shift", "flip_up", "flip_down"))
MODELS = ("baseline", "best", "random", "margin", "diverse", "revised")
LIMITS = (
    "This is selection and fine-tuning (best-of-n, RAFT) against a constitution; only the arm Revised critiques and "
    "revises as the paper does, and there is no preference model and no RL.",
    "Structure keeps a candidate from writing its own score; it does not keep it from persuading the critic. The "
    "planted lines' effect is in the table, with intervals.",
    "Intervals over runs speak of candidates, training and decoding under other seeds on one base model.",
)
ORGANISM = (
    f"{compare.ONE_GRAMMAR[0].upper()}{compare.ONE_GRAMMAR[1:]}. The embedded model is a positive control for the "
    "instrument, built so that the effect can occur; it says nothing about other models."
)


def results(run: Run, config: CaiConfig, preset: str, seeds: Sequence[int]) -> Results:
    """Everything the run's steps say, in the shape of results.json."""
    states = collect(run)
    measured = metrics(config.compare.safe_threshold)
    compared, hypotheses = analysis.comparisons(states, measured)
    made = [
        *analysis.measurements(states, measured),
        *analysis.score_comparisons(states, measured),
        *_of_critic(run),
        *_of_steps(run),
    ]
    made += _over_seeds(made)
    return Results(
        study="mini-cai",
        preset=preset,
        seeds=tuple(seeds),
        versions=versions(),
        hypotheses_sha256=claims.read("mini_cai").sha256,
        measurements=tuple(made),
        comparisons=tuple(compared),
        agreements=tuple(_agreements(states)),
        hypotheses=hypotheses,
    )


def steps(run: Run, prefix: str) -> list[tuple[str, Step]]:
    """This run's steps of a kind with what follows the prefix, by seed."""
    found = [(s.name.removeprefix(prefix), s) for s in run.steps.values() if s.name.startswith(prefix)]
    return sorted(found, key=lambda pair: pair[1].seed or 0)


def collect(run: Run) -> dict[str, list[Judged]]:
    """The judged models of this run, each with its seeds in order."""
    answers = {(name, s.seed): s for name, s in steps(run, "answer_")}
    found: dict[str, list[Judged]] = {}
    for name, step in steps(run, "judge_"):
        completions = answers[name, step.seed] / compare.COMPLETIONS
        found.setdefault(name, []).append(read_judged(run.folder, name, step.seed, completions, step.folder))
    order = {name: i for i, name in enumerate(MODELS)}
    return dict(sorted(found.items(), key=lambda pair: order.get(pair[0], len(order))))


def _of_critic(run: Run) -> Iterator[Measurement]:
    for _, step in steps(run, "calibrate"):
        for name, interval in calibration.read(step.folder).items():
            yield Measurement.of(name, "critic", interval)


def _plain(value: float, n: int, method: str) -> Interval:
    return Interval(value, math.nan, math.nan, n, method)


def _of_steps(run: Run) -> Iterator[Measurement]:
    """Candidates' means (all, and best of n), what each arm was trained on, and scores before and after revision."""
    generated = {s.seed: s for _, s in steps(run, "generate")}
    for _, step in steps(run, "critique"):
        scored = training.scored(generated[step.seed].folder, step.folder)
        scores = [compare.nan(s.critique.score) for s in scored]
        of = mean_interval(scores, [s.reply.cluster for s in scored])
        yield Measurement.of("mean_score", "candidates", of, seed=step.seed)
        best = [
            max(known)
            for g in by_prompt(scored).values()
            if (known := [s.critique.score for s in g if s.critique.score])
        ]
        yield Measurement.of("best_of_n_mean_score", "candidates", mean_interval(best), seed=step.seed)
        if any(s.critique.written is not None and s.critique.expected is not None for s in scored):
            ways = (
                [compare.nan(s.critique.written) for s in scored],
                [compare.nan(s.critique.expected) for s in scored],
            )
            yield Measurement.of("ways_rank", "candidates", calibration.spearman(*ways), seed=step.seed)
    for name, step in steps(run, "select_"):
        rows = read_json(step / "train_rows.json")
        tokens = float(sum(r["tokens"] for r in rows))
        for key, value in (("training_rows", float(len(rows))), ("training_tokens", tokens)):
            yield Measurement.of(key, name, _plain(value, len(rows), "count"), seed=step.seed)
    for _, step in steps(run, "revise"):
        yield from _revisions(step)


def _over_seeds(made: Sequence[Measurement]) -> list[Measurement]:
    """The seeds' mean of every figure that has several seeds and no figure over them yet."""
    known = {(m.metric, m.subject) for m in made if m.seed is None and not m.at}
    groups: dict[tuple[str, str], list[float]] = {}
    for m in made:
        if m.seed is not None and not m.at and m.estimator == "raw" and (m.metric, m.subject) not in known:
            groups.setdefault((m.metric, m.subject), []).append(compare.nan(m.value))
    return [
        Measurement.of(metric, subject, mean_interval(values))
        for (metric, subject), values in groups.items()
        if len(values) > 1
    ]


def _revisions(step: Step) -> Iterator[Measurement]:
    rows = training.revisions(step.folder)
    last = max((r["round"] for r in rows), default=0)
    for key, place in (("first_mean_score", 0), ("revised_mean_score", last)):
        scores = [compare.nan(r["score"]) for r in rows if r["round"] == place]
        yield Measurement.of(key, "revisions", mean_interval(scores), seed=step.seed)


def _agreements(states: analysis.States) -> list[Agreement]:
    """Judge against rubric on all graded replies: Cohen's kappa of the five scores."""
    graded = [g.grade for several in states.values() for one in several for g in one.replies]
    both = [(g.score, g.rubric) for g in graded if g.score is not None and g.rubric is not None]
    if not both:
        return []
    return [Agreement.of("judge", "rubric", kappa([a for a, _ in both], [b for _, b in both]))]


def headline(found: Results) -> str:
    """Whether the critic's choice makes better replies than chance and than none, and what it costs in refusals."""
    metric = "rubric_mean" if "rubric_mean" in found.metrics else "mean_score"
    judge = "rubric" if metric == "rubric_mean" else "judge"
    means = [found.headline(metric, state) for state in ("best", "random", "baseline")]
    best, random, baseline = (number(None if m is None else m.value) for m in means)
    said = {h.name: VERDICT_WORDS[h.verdict] for h in found.hypotheses}
    better = f"better than random: {said.get('H1', 'not run')}, than the baseline: {said.get('H2', 'not run')}"
    refused = [found.headline("over_refusal_rate", state) for state in ("baseline", "best")]
    before, after = (number(None if m is None else m.value) for m in refused)
    return (
        f"Tuned on what the critic likes best the {judge}'s mean is {best}, on random replies {random}, in the "
        f"baseline {baseline} ({better}). Benign prompts are refused hardly more than before: "
        f"{said.get('H3', 'not run')}; of borderline ones {after} are refused, before {before}."
    )


def spec(found: Results) -> ReportSpec:
    """The study's report, with what this run did not do said as such."""
    present = set(found.subjects)
    models = tuple(m for m in MODELS if m in present)
    graded = "rubric_mean" in found.metrics
    main = MAIN if graded else MAIN[1:]
    return ReportSpec(
        title="Generate, critique, select, tune, compare",
        question="Does fine-tuning on the replies a constitutional critic likes best make replies better than "
        "fine-tuning on random ones, and at what cost in refusals of harmless requests?",
        subjects=SUBJECTS,
        metrics=METRICS,
        tables=tuple(_tables(found, models, main, graded)),
        comparisons=tuple(
            ComparisonSpec(metric, a, b)
            for a in ("random", "baseline")
            for b in models
            if {a, b} <= present and (a, b) != ("random", "baseline") and a != b
            for metric in main
        ),
        figures=(
            FigureSpec("scores", "states", "Mean score, 1 to 5", main[: 2 if graded else 1], models, ordered=False),
            FigureSpec("refusals", "states", "Refusals", main[-3:], models, ordered=False),
        ),
        originals=original.tables(),
        headline=headline,
        limits=((ORGANISM, *LIMITS) if found.preset == "tiny" else LIMITS),
        never_run=(
            *(f"{s.label}: {s.about}" for s in SUBJECTS if s.key in MODELS and s.key not in present),
            *(f"The {name} preset's models." for name in ("small", "paper") if name != found.preset),
        ),
    )


def _ties(found: Results, arm: str, against: str) -> str:
    """Ties and the tests that do not lean on means, of one arm against another by the rubric; empty where not run."""
    at = {"judge": "rubric", "against": against}
    values = {m.metric: m.value for m in found.measurements if m.subject == arm and m.at == at}
    keys = ("improved_fraction", "tied_fraction", "superiority", "permutation_p")
    if any(values.get(key) is None for key in keys):
        return ""
    improved, tied, superiority, p = (compare.nan(values[key]) for key in keys)
    pratt = values.get("wilcoxon_p")
    return (
        f" {arm.capitalize()} against {against} by the rubric: {improved:.0%} of the prompts are better, {tied:.0%} "
        f"tied, P(>) + P(=)/2 = {superiority:.3f}; of these checkpoints permutation p = {p:.2g}"
        + ("." if pratt is None else f", Wilcoxon (Pratt) p = {pratt:.2g}.")
    )


def _tables(found: Results, models: tuple[str, ...], main: tuple[str, ...], graded: bool) -> Iterator[TableSpec]:
    """The report's tables; the rubric's columns only where it could grade."""
    grammar = f"By rubric and by critic; {compare.ONE_GRAMMAR}." if graded else ""
    grammar += "".join(_ties(found, models[1], other) for other in ("random", "baseline") if len(models) > 1)
    by = ("rubric_mean", "mean_score") if graded else ("mean_score",)
    rubric = ("rubric_mean", "best_of_n_rubric_mean") if graded else ()
    yield TableSpec("Baseline and tuned on the evaluation prompts", main, models, grammar)
    yield TableSpec("By kind of prompt", tuple(f"{k}_{m}" for m in by for k in KINDS), models)
    yield TableSpec(
        "Every reply, and each prompt's best of n",
        ("mean_score", "best_of_n_mean_score", *rubric, "std_dev", "num_samples"),
        models,
        "A best-of-n mean flatters; the unselected mean is the result.",
    )
    yield TableSpec("The critic on gold replies", CRITIC, ("critic",))
    yield TableSpec("Planted lines against neutral ones of the same length", PLANTED, ("critic",))
    yield TableSpec("What was selected from", ("mean_score", "best_of_n_mean_score", "ways_rank"), ("candidates",))
    tuned = tuple(m for m in models if m != "baseline")
    yield TableSpec("What was trained on", ("training_rows", "training_tokens"), tuned)
    if "revisions" in found.subjects:
        yield TableSpec("Critique and revise", ("first_mean_score", "revised_mean_score"), ("revisions",))
    for kind in KINDS:
        shares = tuple(metric_name(kind, label) for label in LABELS)
        yield TableSpec(f"What the replies to {kind} prompts are", shares, models, terminal=False)
