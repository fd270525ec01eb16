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
        ("data", "Sharding the questions to the refusal adapter, the attacks and the test."),
        ("refusal", "Train the refusal adapter."),
        ("direction", "Read directions from the change of the refusal adapter."),
        ("attack", "Train every attack on one budget."),
        ("evaluate", "Put the held-out prompts to every evaluated step and judge the replies."),
    ),
    run="orth_refusal.study:study",
    finish="orth_refusal.study:finish",
    plan="orth_refusal.plan:plan",
    report="orth_refusal.report:spec",
    needs="orth_refusal.plan:needs",
    switches={
        "--controls": ("controls=true", "Also run the controls and the competing defences."),
        "--strict": ("data.strict=true", "Stop at the first malformed row."),
    },
)
app = build(STUDY)
add(app, STUDY)
