"""Which tables and figures the study shows."""

from __future__ import annotations

from alignment_core.evaluation.analysis import decided
from alignment_core.evaluation.results import Results
from alignment_core.report.spec import ComparisonSpec, FigureSpec, ReportSpec, SubjectSpec, TableSpec
from alignment_core.report.tables import interval
from neuron_brittleness import metrics, original
from neuron_brittleness.conditions import EQUAL_COST
from neuron_brittleness.equal import REFUSAL, TAKEOVER, TOPIC_LOSS

GROUPS = (
    SubjectSpec("set_diff", "set difference", about="Top-q safety weights that are no top-p utility weights."),
    SubjectSpec("top_safety", "top safety", about="Top-k safety weights."),
    SubjectSpec("top_utility", "top utility", about="Top-k utility weights."),
    SubjectSpec("random", "random", control=True, about="A uniformly random share k of each matrix."),
    SubjectSpec("set_diff_matched", "matched to set difference", control=True,
                about="Random, of the same matrix, |W| decile and Wanda decile."),
    SubjectSpec("top_safety_matched", "matched to top safety", control=True),
    SubjectSpec("top_utility_matched", "matched to top utility", control=True),
)  # fmt: skip
STATES = (
    SubjectSpec("baseline", "Base", about="The model as it comes."),
    SubjectSpec("free", "Free", about="Fine-tuned with nothing held."),
    SubjectSpec("frozen", "Frozen", about="Fine-tuned with the safety-critical weights held."),
    SubjectSpec("matched_frozen", "Matched frozen", control=True, about="Fine-tuned with matched random weights held."),
    SubjectSpec("free_at_equal_loss", "Free, equal loss", about="Where both arms have the same training loss."),
    SubjectSpec("frozen_at_equal_loss", "Frozen, equal loss"),
    SubjectSpec("null", "chance", control=True, about="Permuted within matrix, |W| decile and Wanda decile."),
    SubjectSpec("ceiling", "ceiling", control=True, about="The base's own two halves."),
)
MAIN = ("harmful_refusal_rate", "false_refusal_rate", "helpful_rate", "harmful_incoherent_share", TOPIC_LOSS)
RATIOS = ("drift_ratio", "drift_ratio_at_equal_loss", "drift_ratio_frozen", "drift_ratio_frozen_at_equal_loss")
ACROSS = ("drift_frozen_over_free", "drift_frozen_over_free_at_equal_loss")
LEVEL = (
    "The topic loss is the reference loss. Of each pair the side that costs more of it is cut to a random share of its "
    "group, so that both sides cost the same; the replies are those of the models so made. Added after the record: "
    "exploratory."
)
OVERLAPPED = ("free", "frozen", "matched_frozen", "null", "ceiling")
JACCARD = ("jaccard_set_diff", "jaccard_top_safety", "jaccard_top_utility")
OVERLAP = (*JACCARD, "jaccard_set_diff_normalised", "mean_score_ratio_set_diff")
ORGANISM = (
    "The embedded model is a positive control for the instrument, built so that the effect can occur. It says nothing "
    "about Llama."
)
LIMITS = (
    "Groups are scored once on the base; intervals over runs speak of fine-tuning seeds, not of other base models.",
    "Cohen's d is descriptive: weights of one matrix are not independent.",
    "T1 is decided on whole groups, as written before the run; beside it stand the cells at equal topic loss, each "
    "with its own matched group. Across models the topic loss differs: the tuned model's is higher to begin with.",
)


_MINUS = "zero new − zero matched to new"
_EQUAL = "_at_equal_topic_loss"
CONTRASTED = (
    *(SubjectSpec(key, f"{model} ({_MINUS})") for key, model in zip(TAKEOVER, ("Base", "Frozen"), strict=True)),
    *(
        SubjectSpec(key + EQUAL_COST, f"{model} ({_MINUS}, equal topic loss)")
        for key, model in zip(TAKEOVER, ("Base", "Frozen"), strict=True)
    ),
)


def _label(key: str) -> str:
    """`frozen_zero_new_matched` for readers."""
    if key.endswith(EQUAL_COST):
        return f"{_label(key.removesuffix(EQUAL_COST))}, equal topic loss"
    if key.endswith(_EQUAL):
        return f"{_label(key.removesuffix(_EQUAL))} at equal topic loss"
    named = {s.key: s.label for s in GROUPS} | {"new": "new", "new_matched": "matched to new"}
    words = []
    for arm in ("free_", "frozen_"):
        if key.startswith(arm):
            words.append(arm[:-1].capitalize())
            key = key.removeprefix(arm)
    for act in ("zero_", "undo_", "keep_"):
        if key.startswith(act):
            rest = key.removeprefix(act)
            group, _, dose = rest.rpartition("_")
            what = f"{dose}% of {named.get(group, group)}" if dose.isdigit() else named.get(rest, rest)
            words.append({"zero_": "zero", "undo_": "undo", "keep_": "keep only"}[act] + f" {what}")
            return ", ".join(words)
    return ", ".join([*words, key.replace("_", " ")])


_DRIFT = {"H1": "more than", "H2": "as much as", "H3": "less than"}


def headline(found: Results) -> str:
    """How far the safety-critical weights drift, whether refusals hang on them, and whether others take over."""
    verdicts = {name: h.verdict for name, h in decided(found).items()}
    amount = next((words for name, words in _DRIFT.items() if verdicts.get(name) == "supported"), None)
    ratio = found.headline("drift_ratio", "set_diff")
    within = ", within the margin" if amount == _DRIFT["H2"] else ""
    measured = f" (ratio {interval(ratio)}{within})" if ratio is not None else ""
    drift = f"drift {amount} matched random ones{measured}" if amount else f"have no decided drift{measured}"
    zeroed, others = (
        f" {words}: {verdicts[name]}." if name in verdicts else ""
        for name, words in (
            ("C1", "Zeroing them takes more refusals than zeroing matched ones"),
            ("T1", "Others take over when they are frozen"),
        )
    )
    return f"Under fine-tuning the safety-critical weights {drift}.{zeroed}{others}"


def spec(found: Results) -> ReportSpec:
    """The study's report."""
    present = list(found.subjects)
    fixed = {s.key for s in (*GROUPS, *STATES, *CONTRASTED)}
    acted = tuple(
        SubjectSpec(k, _label(k), control="matched" in k) for k in present if k not in fixed and "_at_" not in k
    )
    level = tuple(s.key for s in acted if s.key.endswith(EQUAL_COST))
    shown = [s.key for s in acted if s.key not in level]
    base = ("baseline", *(key for key in shown if key.startswith("zero_")))
    tuned = tuple(
        key for key in shown if key.startswith(("free_", "frozen_")) and not key.endswith(("before", "after"))
    )
    arms = ("baseline", "free", "frozen", "matched_frozen", "free_at_equal_loss", "frozen_at_equal_loss")
    sides = dict.fromkeys(side for c in found.comparisons for side in (c.a, c.b) if side.endswith(_EQUAL))
    equal = tuple(SubjectSpec(k, _label(k), control=True) for k in sides)
    compared = [(c.metric, c.a, c.b) for c in found.comparisons if c.metric in (REFUSAL, TOPIC_LOSS)]
    groups = tuple(s.key for s in GROUPS)
    return ReportSpec(
        title="The weights that safety hangs on",
        question="Do the weights that safety hangs on drift more than others under fine-tuning, and do others take "
        "over when they are frozen?",
        subjects=(*STATES, *GROUPS, *acted, *CONTRASTED, *equal),
        metrics=metrics.METRICS,
        tables=(
            TableSpec("Fine-tuned models", MAIN, arms),
            TableSpec("Drift over the matched random group", RATIOS, groups[:3]),
            TableSpec("Drift of the frozen arm over the free arm", ACROSS, groups, terminal=False),
            TableSpec("Overlap with the base's groups", OVERLAP, OVERLAPPED),
            TableSpec("The causal check: groups zeroed in the base", MAIN, base, terminal=False),
            TableSpec("Interventions on the tuned models", MAIN, tuned, terminal=False),
            TableSpec("Interventions at equal topic loss", MAIN, level, LEVEL, terminal=False),
        ),
        comparisons=tuple(ComparisonSpec(*c) for c in dict.fromkeys(compared)),
        figures=(
            FigureSpec("drift_over_time", "trajectory", "Drift by group, free arm",
                       ("drift_absolute",), groups[:5], "step"),
            FigureSpec("drift_over_time_frozen", "trajectory", "Drift by group, frozen arm",
                       ("drift_absolute_frozen",), groups[:5], "step"),
            FigureSpec("training_loss", "trajectory", "Training loss of the arms", ("training_loss",),
                       ("free", "frozen", "matched_frozen"), "step"),
            *(FigureSpec(f"overlap_by_layer_{m.removeprefix('jaccard_')}", "trajectory",
                         f"Overlap by layer, {m.removeprefix('jaccard_').replace('_', ' ')}", (m,),
                         OVERLAPPED, "layer") for m in JACCARD),
            FigureSpec("states", "states", "Refusals", ("harmful_refusal_rate", "false_refusal_rate"),
                       arms[:4], ordered=False),
        ),
        originals=original.tables(),
        headline=headline,
        limits=((ORGANISM, *LIMITS) if found.preset == "tiny" else LIMITS),
        not_run=tuple(f"The {name} preset's model." for name in ("small", "paper") if name != found.preset),
    )  # fmt: skip
