"""`drift-dpo`: the study's command line, built from its description."""

from __future__ import annotations

from alignment_core.cli import Study, build

STUDY = Study(
    name="drift-dpo",
    package="drift_dpo",
    config="drift_dpo.config:DriftConfig",
    title="How refusals fall under benign fine-tuning, come back under safety fine-tuning, and are sharpened by DPO.",
    steps=(
        ("data", "Build stage A, stage B, the preference pairs and the held-out prompts."),
        ("sft", "Train stage A, then stage B on its adapter."),
        ("dpo", "Train DPO from stage B."),
        ("evaluate", "Generate replies to the held-out prompts with each model, and judge them."),
    ),
    run="drift_dpo.study:study",
    analysis="drift_dpo.metrics:ANALYSIS",
    report="drift_dpo.report:spec",
    files="drift_dpo.original:write",
    needs="drift_dpo.data:needs",
    switches={
        "--controls": ("controls=true", "Also run the study's controls."),
        "--strict": ("data.strict=true", "Stop at the first malformed row."),
    },
)
app = build(STUDY)
