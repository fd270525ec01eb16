"""Which tables and figures the study shows, and the results they are made of."""

from __future__ import annotations

from alignment_core.evaluation.analysis import decided
from alignment_core.evaluation.metrics import REFUSAL_RATES, metric_name
from alignment_core.evaluation.results import Results
from alignment_core.records import KINDS, LABELS, Kind
from alignment_core.report.spec import ComparisonSpec, FigureSpec, ReportSpec, SubjectSpec, TableSpec
from alignment_core.text import number
from drift_dpo import metrics, original

STATES = ("baseline", "stage_a", "stage_b", "dpo")
CONTROLS = ("null_stage_a", "pretraining_openings", "b_without_a", "chosen_sft")

SUBJECTS = (
    SubjectSpec("baseline", "Baseline", about="The model as it comes."),
    SubjectSpec("stage_a", "Stage A", about="SFT on benign conversations only."),
    SubjectSpec("stage_b", "Stage B", about="SFT on refusals and benign conversations, from stage A."),
    SubjectSpec("dpo", "DPO", about="DPO from stage B, with stage B as the reference."),
    SubjectSpec("null_stage_a", "Null stage A", control=True, about="SFT on the model's own replies, temperature 1."),
    SubjectSpec(
        "pretraining_openings",
        "A, varied openings",
        control=True,
        about="Stage A with replies that open as in pretraining.",
    ),
    SubjectSpec("b_without_a", "B without A", control=True, about="Stage B from the baseline."),
    SubjectSpec("chosen_sft", "SFT on chosen", control=True, about="SFT on the preferred replies, DPO's steps."),
)
MAIN = ("harmful_refusal_rate", "false_refusal_rate", "over_refusal_rate", "helpful_rate", "topic_rate")
MOVED = ("reference_loss", *(f"{kind}_first_token_kl" for kind in KINDS))
LIMITS = (
    "Verdicts are by rules over the reply's text; their error on real models is in docs/refusal.md.",
    "Intervals over runs speak of the stages' training seeds on one base model, not of other base models.",
)
METHOD = (
    "Stage A is SFT on benign conversations only; stage B is SFT on refusals and benign conversations, from stage A's "
    "adapter; DPO continues stage B's adapter with stage B as its reference. All states answer the same held-out "
    "prompts greedily; the saved replies are judged from the file. No prompt is in two stages, and the loss is on "
    "replies only."
)
ORGANISM = (
    "The embedded model is a positive control for the instrument, built so that the effect can occur. It says nothing "
    "about Llama."
)


def spec(found: Results) -> ReportSpec:
    """The study's report, with what this run did not do said as such."""
    present = set(found.subjects)
    measured = tuple(s.key for s in SUBJECTS if s.key in present)
    controls = tuple(c for c in CONTROLS if c in present)
    never = tuple(f"{s.label}: {s.about}" for s in SUBJECTS if s.key not in present)
    return ReportSpec(
        title="Alignment drift under SFT and DPO",
        question="Does benign fine-tuning erode refusals, does safety fine-tuning restore them, does DPO sharpen them?",
        subjects=SUBJECTS,
        metrics=metrics.METRICS,
        tables=(
            TableSpec("Four states on one held-out prompt set", MAIN, STATES),
            *((TableSpec("Controls", MAIN, controls),) if controls else ()),
            *(
                TableSpec(f"What the replies to {kind} prompts are", _shares(kind), measured, terminal=False)
                for kind in KINDS
            ),
            TableSpec("How far the replies moved", MOVED, measured, terminal=False),
        ),
        comparisons=tuple(
            ComparisonSpec(metric, a, b)
            for a, b in (*metrics.PAIRS, *metrics.CONTROL_PAIRS)
            for metric in (*REFUSAL_RATES.values(), "helpful_rate")
            if {a, b} <= present
        ),
        figures=(
            FigureSpec("states", "states", "Refusals in four states", tuple(REFUSAL_RATES.values()), STATES),
            FigureSpec("categories", "categories", "Harmful refusals by category", ("harmful_refusal_rate",), STATES),
        ),
        originals=original.tables(),
        method=METHOD,
        command=_command(found),
        headline=headline,
        limits=((ORGANISM, *LIMITS) if found.preset == "tiny" else LIMITS),
        not_run=(*never, *_unrun_presets(found.preset)),
    )


def headline(found: Results) -> str:
    """The four rates in a sentence, each with what its hypothesis says of it."""
    verdicts = decided(found)
    steps = (
        ("baseline", "in the baseline", "", ""),
        ("stage_a", "after benign fine-tuning", "a fall", "H1"),
        ("stage_b", "after safety fine-tuning", "a rise", "H2"),
        ("dpo", "after DPO", "non-inferior", "H3"),
    )
    parts = []
    for state, when, what, name in steps:
        m = found.headline("harmful_refusal_rate", state)
        verdict = f" ({what}: {verdicts[name].verdict})" if name in verdicts else ""
        parts.append(f"{number(None if m is None else m.value)} {when}{verdict}")
    return f"Harmful refusals: {', '.join(parts)}.{_sharpens(found)}"


def _sharpens(found: Results) -> str:
    """Whether DPO sharpens: above stage B, and above SFT on the chosen replies for as many steps."""
    above = {a: found.comparison("harmful_refusal_rate", a, "dpo") for a in ("stage_b", "chosen_sft")}
    if above["chosen_sft"] is None:
        return ""
    beaten = [a for a, c in above.items() if c is not None and c.low is not None and c.low > 0]
    if len(beaten) == len(above):
        return " DPO sharpens: it is above stage B and above SFT on the chosen replies for as many steps."
    of = {"stage_b": "stage B", "chosen_sft": "SFT on the chosen replies for as many steps"}
    return (
        f" That DPO sharpens is not shown: it is not above {' nor above '.join(of[a] for a in of if a not in beaten)}."
    )


def _command(found: Results) -> str:
    """The command that makes this run again, settings laid over the preset apart: config.json has those."""
    controls = " --controls" if set(CONTROLS) & set(found.subjects) else ""
    return f"drift-dpo run --preset {found.preset} --seeds {','.join(map(str, found.seeds))}{controls}"


def _shares(kind: Kind) -> tuple[str, ...]:
    """Refusal, partial, compliance and incoherent shares: they sum to 1."""
    return tuple(metric_name(kind, label) for label in LABELS)


def _unrun_presets(preset: str) -> tuple[str, ...]:
    return tuple(f"The {name} preset's model." for name in ("small", "paper") if name != preset)
