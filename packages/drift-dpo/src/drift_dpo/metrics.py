"""What is measured and compared: the core's metrics, the drift of the first token, and the study's contrasts."""

from __future__ import annotations

from collections.abc import Iterator

from alignment_core.evaluation.analysis import Analysis, Contrast, Evidence
from alignment_core.evaluation.metrics import COMMON, Metric, score
from alignment_core.records import KINDS

FIRST_TOKEN = tuple(
    Metric(
        f"{kind}_first_token_kl", f"first-token KL, {kind}", kind, None, "nats",
        about="KL divergence of the first token from the baseline's.", read=score("first_token_kl"), digits=3,
    )
    for kind in KINDS
)  # fmt: skip
"""Of a state's first token against the baseline's, in nats a prompt."""

METRICS = (*COMMON, *FIRST_TOKEN)
COMPARED = ("harmful_refusal_rate", "false_refusal_rate", "over_refusal_rate", "helpful_rate", "reference_loss")
PAIRS = (("baseline", "stage_a"), ("stage_a", "stage_b"), ("stage_b", "dpo"), ("baseline", "dpo"))
CONTROL_PAIRS = (
    ("baseline", "null_stage_a"),
    ("baseline", "pretraining_openings"),
    ("pretraining_openings", "stage_a"),
    ("b_without_a", "stage_b"),
    ("stage_b", "chosen_sft"),
    ("chosen_sft", "dpo"),
)


def contrasts(_: Evidence) -> Iterator[Contrast]:
    """(a, b): b - a is compared."""
    yield from (Contrast(a, b) for a, b in PAIRS)
    yield from (Contrast(a, b, "control") for a, b in CONTROL_PAIRS)


ANALYSIS = Analysis(metrics=METRICS, compared=COMPARED, contrasts=contrasts, not_run="--controls runs it")
