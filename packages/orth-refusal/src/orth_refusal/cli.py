"""`orth-refusal`: the study's command line, built from its description, and the commands only this study has."""

from __future__ import annotations

from alignment_core.cli import Study, build
from orth_refusal.commands import add

STUDY = Study(
    name="orth-refusal",
    package="orth_refusal",
    config="orth_refusal.config:OrthConfig",
    title="Can an attack be kept out of a refusal direction in parameter space, and what does it cost?",
    steps=(
        ("data", "Split the questions into refusal, attack and test sets."),
        ("refusal", "Train the refusal adapter."),
        ("direction", "Read directions from the change of the refusal adapter."),
        ("attack", "Train every attack on one budget."),
        ("evaluate", "Generate replies to the held-out prompts at every evaluated step, and judge them."),
    ),
    run="orth_refusal.study:study",
    analysis="orth_refusal.metrics:ANALYSIS",
    report="orth_refusal.report:spec",
    files="orth_refusal.original:write",
    needs="orth_refusal.data:needs",
    switches={
        "--controls": ("controls=true", "Also run the controls and the competing defences."),
        "--strict": ("data.strict=true", "Stop at the first malformed row."),
    },
)
app = build(STUDY)
add(app, STUDY)
