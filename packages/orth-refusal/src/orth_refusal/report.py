"""Which tables and figures the study shows."""

from __future__ import annotations

from collections.abc import Set

from alignment_core.evaluation.metrics import REFUSAL_RATES, metric_name
from alignment_core.evaluation.results import Results
from alignment_core.records import KINDS, LABELS
from alignment_core.report.spec import ComparisonSpec, FigureSpec, ReportSpec, SubjectSpec, TableSpec
from alignment_core.report.tables import interval
from orth_refusal import metrics, original
from orth_refusal.arms import ARMS, CONTROL_OF, CONTROLS, MAIN
from orth_refusal.curves import AREA, MATCHED

SUBJECTS = (
    SubjectSpec("baseline", "Base", about="The model as it comes, and every attack's step 0."),
    SubjectSpec("refusal_lora", "Refusal LoRA", about="The adapter whose change is the direction."),
    *(SubjectSpec(a.name, a.label, control=a.role in ("control", "defence"), about=a.about) for a in ARMS),
)
SUMMARY = tuple(metric.key for metric in metrics.SUMMARIES)
END = (*REFUSAL_RATES.values(), "helpful_rate", "attack_loss", "reference_loss")
SHOWN = ("vanilla", "factor_gradient", "delta", "left", "random_left")
SLOWER = ("vanilla", "left", "shrunk", "half_lr", "quarter_lr", "random_left")
DEFENCES = ("vanilla", "left", "oracle_left", "penalty", "replay", "kl")
LIMITS = (
    "Threat model: a fine-tuning service that runs the optimiser on a customer's data. Whoever holds the weights can "
    "undo every projection.",
    "At matched loss two arms are compared where both have learned the held-out attack equally well; the attack's "
    "replies differ from refusals in little else on the organism, so loss and refusal are nearly one quantity there.",
    "Verdicts are by rules over the reply's text; their error on real models is in docs/refusal.md.",
    "Intervals over runs are about the training seeds on one base model and one split of the data.",
)
ORGANISM = (
    "The embedded model is a positive control for the instrument, built so that the effect can occur. It says nothing "
    "about Qwen or Llama; 4 of 96 dimensions are not 4 of 1024."
)
CONFOUNDED = "The arms' budgets are unequal, as in the original: nothing can be concluded from their difference."


def headline(found: Results) -> str:
    """Whether any projection was shown to beat its random control on the primary summary, in words."""
    hits, seen = [], 0
    labels = {s.key: s.label for s in SUBJECTS}
    for arm, control in CONTROL_OF.items():
        c = found.comparison(MATCHED, control, arm)
        if c is not None and c.difference is not None and c.low is not None:
            seen += 1
            if c.low > 0:
                hits.append((-c.difference, f"{labels[arm]} {interval(c, 3, signed=True)}"))
    if _confounded(found):
        return CONFOUNDED
    where = "where attacks have learned equally well"
    if not hits:
        return (
            f"No projection was shown to keep more harmful refusals than its random control {where}; {seen} compared."
        )
    best = "; ".join(text for _, text in sorted(hits))
    return f"{len(hits)} of {seen} projections keep more harmful refusals than their random controls {where}: {best}."


def _confounded(found: Results) -> bool:
    return any(h.because == metrics.UNEQUAL for h in found.hypotheses)


def spec(found: Results) -> ReportSpec:
    """The study's report, with what this run did not do said as such."""
    present = set(found.subjects)
    never = tuple(f"{s.label}: {s.about}" for s in SUBJECTS if s.key not in present)
    return ReportSpec(
        title="Keeping an attack out of a refusal direction",
        question="Which projection, in which space, buys how many steps of attack, at what cost in usefulness?",
        subjects=SUBJECTS,
        metrics=metrics.METRICS,
        tables=_tables(present),
        comparisons=tuple(
            ComparisonSpec(metric, a, b)
            for a, b in metrics.CONTRASTS
            for metric in (MATCHED, AREA)
            if {a, b} <= present
        ),
        figures=tuple(_figures(present)),
        originals=(original.table(),),
        limits=(
            *((CONFOUNDED,) if _confounded(found) else ()),
            *((ORGANISM,) if found.preset == "tiny" else ()),
            *LIMITS,
        ),
        not_run=(*never, *(f"The {n} preset's model." for n in ("small", "paper") if n != found.preset)),
        headline=headline,
    )


def _tables(present: Set[str]) -> tuple[TableSpec, ...]:
    """The summaries, the attacks' ends, and the meter."""
    ran = tuple(s.key for s in SUBJECTS if s.key in present)
    attacks, controls = (tuple(a for a in names if a in present) for names in (MAIN, CONTROLS))
    return (
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
        TableSpec("The orthogonality meter", (metrics.LARGEST,), (*attacks, *controls), terminal=False),
    )


def _figures(present: Set[str]) -> list[FigureSpec]:
    """Refusals, cosine, loss and usefulness along the attack; those of the controls where they ran."""
    figures = [
        FigureSpec("trajectory", "trajectory", "Refusals along the attack", ("harmful_refusal_rate",), SHOWN, "step"),
        FigureSpec("matched", "trajectory", "Refusals where attacks have learned equally well",
                   ("harmful_refusal_rate",), SHOWN, metrics.FALL),
        FigureSpec("cosine", "trajectory", "How much of the refusal change the attack undoes",
                   (metrics.COSINE,), SHOWN, "step"),
        FigureSpec("loss", "trajectory", "Held-out attack loss", ("attack_loss",), SHOWN, "step"),
        FigureSpec("helpful", "trajectory", "Usefulness along the attack", ("helpful_rate",), SHOWN, "step"),
    ]  # fmt: skip
    if present & set(CONTROLS):
        figures[2:2] = [
            FigureSpec("slower", "trajectory", "Is it only a smaller step?", ("harmful_refusal_rate",), SLOWER, "step"),
            FigureSpec("defences", "trajectory", "Against other defences", ("harmful_refusal_rate",), DEFENCES, "step"),
        ]
    return figures
