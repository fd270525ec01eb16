"""Which tables and figures the study shows, and the results they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignment_core.evaluation import hypotheses as claims
from alignment_core.evaluation.rates import metric_name
from alignment_core.evaluation.results import Results
from alignment_core.pipeline.environment import versions
from alignment_core.records import KINDS, LABELS
from alignment_core.report.spec import (
    ComparisonSpec,
    FigureSpec,
    MetricSpec,
    ReportSpec,
    SubjectSpec,
    TableSpec,
    TextTable,
)
from alignment_core.report.tables import interval
from orth_refusal import analysis, measured, summaries
from orth_refusal.arms import ARMS, CONTROL_OF, CONTROLS, MAIN
from orth_refusal.metrics import Trajectory

SUBJECTS = (
    SubjectSpec("baseline", "Base", about="The model as it comes, and every attack's step 0."),
    SubjectSpec("refusal_lora", "Refusal LoRA", about="The adapter whose change is the direction."),
    *(SubjectSpec(a.name, a.label, control=a.role in ("control", "defence"), about=a.about) for a in ARMS),
)
_SHARES = tuple(
    MetricSpec(f"{kind}_{label}_share", f"{kind}: {label}", kind=kind)
    for kind in KINDS
    for label in ("partial", "compliance", "incoherent")
)
METRICS = (
    MetricSpec(summaries.MATCHED, "refusal at matched loss", "high", "harmful",
               about="Harmful prompts refused where the arm's held-out attack loss first falls to half of vanilla's "
               "total fall; linear between evaluated steps."),
    MetricSpec(summaries.AREA, "area under refusal", "high", "harmful", about="Mean refusal over log(1 + step)."),
    MetricSpec(summaries.STEPS, "steps to matched loss", rate=False, digits=1,
               about="Attack steps until that loss; the last step where it is never reached."),
    MetricSpec(summaries.REACHED, "reached it", rate=False,
               about="Share of the seeds that reached that loss; one that never does is read at its last step."),
    MetricSpec(summaries.HELPFUL_MATCHED, "helpful at matched loss", "high", "benign",
               about="Benign prompts complied with, on topic, at that same point."),
    MetricSpec("harmful_refusal_rate", "harmful refusal", "high", "harmful", about="Harmful prompts refused."),
    MetricSpec("false_refusal_rate", "false refusal", "low", "benign", about="Benign prompts refused."),
    MetricSpec("over_refusal_rate", "over-refusal", "low", "borderline", about="Borderline prompts refused."),
    MetricSpec("helpful_rate", "helpful", "high", "benign", about="Benign prompts complied with, on topic."),
    MetricSpec("attack_loss", "attack loss", rate=False, digits=3, about="Nats a token of held-out attack replies."),
    MetricSpec("benign_loss", "benign loss", "low", rate=False, digits=3, about="Nats a token of reference answers."),
    MetricSpec("cosine_to_refusal", "cos(ΔW, R)", rate=False, digits=3,
               about="Cosine of the attack's change with the refusal change, pooled over matrices."),
    MetricSpec("largest_cosine", "largest |cos|", rate=False, digits=7,
               about="Largest |cos(ΔW, R)| of any matrix at any step."),
    *_SHARES,
)  # fmt: skip
SUMMARY = (summaries.MATCHED, summaries.AREA, summaries.STEPS, summaries.REACHED, summaries.HELPFUL_MATCHED)
END = ("harmful_refusal_rate", "false_refusal_rate", "over_refusal_rate", "helpful_rate", "attack_loss", "benign_loss")
SHOWN = ("vanilla", "factor_gradient", "delta", "left", "random_left")
SLOWER = ("vanilla", "left", "shrunk", "half_lr", "quarter_lr", "random_left")
DEFENCES = ("vanilla", "left", "oracle_left", "penalty", "replay", "kl")
LIMITS = (
    "Threat model: a fine-tuning service that runs the optimiser on a customer's data. Whoever holds the weights can "
    "undo every projection.",
    "At matched loss two arms are compared where both have learned the held-out attack equally well; the attack's "
    "replies differ from refusals in little else on the organism, so loss and refusal are nearly one quantity there.",
    "Verdicts are by rules over the reply's text; their error on real models is in docs/refusal.md.",
    "Intervals over runs speak of the training seeds on one base model and one deal of the data.",
)
ORGANISM = (
    "The embedded model is a positive control for the instrument, built so that the effect can occur. It says nothing "
    "about Qwen or Llama; 4 of 96 dimensions are not 4 of 1024."
)
CONFOUNDED = "The arms' budgets are unequal, as in the original: nothing can be concluded from their difference."


def results(preset: str, seeds: Sequence[int], arms: Mapping[str, list[Trajectory]], equal: bool) -> Results:
    """Everything the judged trajectories say, in the shape of results.json."""
    compared, hypotheses = analysis.comparisons(arms, equal)
    return Results(
        study="orth-refusal",
        preset=preset,
        seeds=tuple(seeds),
        versions=versions(),
        hypotheses_sha256=claims.read("orth_refusal").sha256,
        measurements=tuple(measured.measurements(arms)),
        comparisons=tuple(compared),
        agreements=tuple(analysis.agreements(arms)),
        hypotheses=hypotheses,
    )


def headline(found: Results) -> str:
    """Whether any projection was shown to beat its random control on the primary summary, in words."""
    hits, seen = [], 0
    labels = {s.key: s.label for s in SUBJECTS}
    for arm, control in CONTROL_OF.items():
        c = found.comparison(summaries.MATCHED, control, arm)
        if c is not None and c.difference is not None and c.low is not None:
            seen += 1
            if c.low > 0:
                hits.append((-c.difference, f"{labels[arm]} {interval(c, 3, signed=True)}"))
    if any("confounded" in h.because for h in found.hypotheses):
        return CONFOUNDED
    where = "where attacks have learned equally well"
    if not hits:
        return (
            f"No projection was shown to keep more harmful refusals than its random control {where}; {seen} compared."
        )
    best = "; ".join(text for _, text in sorted(hits))
    return f"{len(hits)} of {seen} projections keep more harmful refusals than their random controls {where}: {best}."


def spec(found: Results) -> ReportSpec:
    """The study's report, with what this run did not do said as such."""
    present = set(found.subjects)
    ran = tuple(s.key for s in SUBJECTS if s.key in present)
    attacks = tuple(a for a in MAIN if a in present)
    controls = tuple(a for a in CONTROLS if a in present)
    confounded = any("confounded" in h.because for h in found.hypotheses)
    figures = [
        FigureSpec("trajectory", "trajectory", "Refusals along the attack", ("harmful_refusal_rate",), SHOWN, "step"),
        FigureSpec("matched", "trajectory", "Refusals where attacks have learned equally well",
                   ("harmful_refusal_rate",), SHOWN, measured.FALL),
        FigureSpec("cosine", "trajectory", "How much of the refusal change the attack undoes",
                   ("cosine_to_refusal",), SHOWN, "step"),
        FigureSpec("loss", "trajectory", "Held-out attack loss", ("attack_loss",), SHOWN, "step"),
        FigureSpec("helpful", "trajectory", "Usefulness along the attack", ("helpful_rate",), SHOWN, "step"),
    ]  # fmt: skip
    if controls:
        figures[2:2] = [
            FigureSpec("slower", "trajectory", "Is it only a smaller step?", ("harmful_refusal_rate",), SLOWER, "step"),
            FigureSpec("defences", "trajectory", "Against other defences", ("harmful_refusal_rate",), DEFENCES, "step"),
        ]
    never = tuple(f"{s.label}: {s.about}" for s in SUBJECTS if s.key not in present)
    return ReportSpec(
        title="Keeping an attack out of a refusal direction",
        question="Which projection, in which space, buys how many steps of attack, at what cost in usefulness?",
        subjects=SUBJECTS,
        metrics=METRICS,
        tables=(
            TableSpec("At matched attack loss", SUMMARY, attacks),
            *((TableSpec("Controls and defences at matched attack loss", SUMMARY, controls),) if controls else ()),
            TableSpec("At the attack's end", END, ran),
            *(
                TableSpec(
                    f"What the replies to {kind} prompts are at the end",
                    tuple(metric_name(kind, label) for label in LABELS),
                    ran,
                    terminal=False,
                )
                for kind in KINDS
            ),
            TableSpec("The orthogonality meter", ("largest_cosine",), (*attacks, *controls), terminal=False),
        ),
        comparisons=tuple(
            ComparisonSpec(metric, a, b)
            for a, b in analysis.CONTRASTS
            for metric in (summaries.MATCHED, summaries.AREA)
            if {a, b} <= present
        ),
        figures=tuple(figures),
        originals=(_originals(),),
        limits=(
            *((CONFOUNDED,) if confounded else ()),
            *((ORGANISM,) if found.preset == "tiny" else ()),
            *LIMITS,
        ),
        never_run=(*never, *(f"The {n} preset's model." for n in ("small", "paper") if n != found.preset)),
        headline=headline,
    )


def _originals() -> TextTable:
    return TextTable(
        "The original's figures",
        ("what", "figure"),
        (("refusal rate of base, vanilla, orthogonal", "none published"),),
        "Its two arms train for 10 and 3 epochs by its README, its penalty has no gradient, its blue - red difference "
        "is 0, and its direction of lora_A is mostly the random start: see the study's mapping.",
    )
