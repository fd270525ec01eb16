"""Which tables and figures the study shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from alignment_core.evaluation.analysis import decided
from alignment_core.evaluation.metrics import REFUSAL_RATES, metric_name
from alignment_core.evaluation.results import Results
from alignment_core.records import KINDS, LABELS
from alignment_core.report.spec import ComparisonSpec, FigureSpec, ReportSpec, SubjectSpec, TableSpec
from alignment_core.text import number
from mini_cai import grading, metrics, original

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
REFUSALS = tuple(REFUSAL_RATES.values())
MAIN = ("rubric_mean", "mean_score", "safe_rate", *REFUSALS)
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
    f"{grading.ONE_GRAMMAR[0].upper()}{grading.ONE_GRAMMAR[1:]}. The embedded model is a positive control for the "
    "instrument, built so that the effect can occur; it says nothing about other models."
)


def headline(found: Results) -> str:
    """Whether the critic's choice makes better replies than chance and than none, and what it costs in refusals."""
    said = {name: hypothesis.verdict for name, hypothesis in decided(found).items()}
    refused = [found.headline("over_refusal_rate", state) for state in ("baseline", "best")]
    before, after = (number(None if m is None else m.value) for m in refused)
    return (
        f"{_scores(found, said)}False refusals of benign prompts within the margin: {said['H3']}; over-refusal of "
        f"borderline prompts is {before} before and {after} after."
    )


def _scores(found: Results, said: Mapping[str, str]) -> str:
    """The mean scores of best, random and baseline, with what the hypotheses say; empty where nothing scored them."""
    metric = next(iter(_measured(found, ("rubric_mean", "mean_score"))), None)
    if metric is None:
        return ""
    means = [found.headline(metric, state) for state in ("best", "random", "baseline")]
    best, random, baseline = (number(None if m is None else m.value) for m in means)
    judge = "rubric" if metric == "rubric_mean" else "critic"
    return (
        f"Mean score by the {judge}: {best} after fine-tuning on what the critic likes best, {random} on random "
        f"replies (above random: {said['H1']}), {baseline} in the baseline (above the baseline: {said['H2']}). "
    )


def _measured(found: Results, keys: Sequence[str]) -> tuple[str, ...]:
    """Those of `keys` that were measured of a model's replies."""
    known = {m.metric for m in found.measurements if m.subject in MODELS}
    return tuple(key for key in keys if key in known)


def spec(found: Results) -> ReportSpec:
    """The study's report, with what this run did not do said as such."""
    present = set(found.subjects)
    models = tuple(m for m in MODELS if m in present)
    main, scores = _measured(found, MAIN), _measured(found, ("rubric_mean", "mean_score"))
    return ReportSpec(
        title="Does best-of-n fine-tuning against a constitution help?",
        question="Does fine-tuning on the replies a constitutional critic likes best make replies better than "
        "fine-tuning on random ones, and at what cost in refusals of harmless requests?",
        subjects=SUBJECTS,
        metrics=metrics.METRICS,
        tables=tuple(_tables(found, models, main)),
        comparisons=tuple(
            ComparisonSpec(metric, a, b)
            for a in ("random", "baseline")
            for b in models
            if {a, b} <= present and (a, b) != ("random", "baseline") and a != b
            for metric in main
        ),
        figures=(
            *((FigureSpec("scores", "states", "Mean score, 1 to 5", scores, models, ordered=False),) if scores else ()),
            FigureSpec("refusals", "states", "Refusals", REFUSALS, models, ordered=False),
        ),
        originals=original.tables(),
        headline=headline,
        limits=((ORGANISM, *LIMITS) if found.preset == "tiny" else LIMITS),
        not_run=(
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
    improved, tied, superiority, p = (values[key] for key in keys)
    pratt = values.get("wilcoxon_p")
    return (
        f" {arm.capitalize()} against {against} by the rubric: {improved:.0%} of the prompts are better, {tied:.0%} "
        f"tied, P(>) + P(=)/2 = {superiority:.3f}; of these checkpoints permutation p = {p:.2g}"
        + ("." if pratt is None else f", Wilcoxon (Pratt) p = {pratt:.2g}.")
    )


def _tables(found: Results, models: tuple[str, ...], main: tuple[str, ...]) -> Iterator[TableSpec]:
    """The report's tables; the columns of rubric and critic only where they scored the replies."""
    grammar = f"By rubric and by critic; {grading.ONE_GRAMMAR}." if "rubric_mean" in main else ""
    grammar += "".join(_ties(found, models[1], other) for other in ("random", "baseline") if len(models) > 1)
    yield TableSpec("Baseline and tuned on the evaluation prompts", main, models, grammar)
    if kinds := _measured(found, [f"{k}_{m}" for m in ("rubric_mean", "mean_score") for k in KINDS]):
        yield TableSpec("By kind of prompt", kinds, models)
    each = ("mean_score", "best_of_n_mean_score", "rubric_mean", "best_of_n_rubric_mean", "std_dev", "num_samples")
    if shown := _measured(found, each):
        note = "A best-of-n mean flatters; the unselected mean is the result."
        yield TableSpec("Every reply, and each prompt's best of n", shown, models, note)
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
