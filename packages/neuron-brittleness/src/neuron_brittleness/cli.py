"""`neuron-brittleness`: the study's command line, built from its description."""

from __future__ import annotations

from alignment_core.cli import Study, build

STUDY = Study(
    name="neuron-brittleness",
    package="neuron_brittleness",
    config="neuron_brittleness.config:BrittlenessConfig",
    title="Do the weights that safety hangs on drift under fine-tuning, and do others take over when they are frozen?",
    steps=(
        ("data", "Build safety and utility data, fine-tuning data and the held-out prompts."),
        ("scores", "Score the base model's weights and make the groups."),
        ("finetune", "Fine-tune free, frozen and matched frozen, and measure drift on the way."),
        ("rescore", "Score the tuned models and compare their groups with the base's."),
        ("evaluate", "Zero, undo and keep groups, generate replies to the held-out prompts, and judge them."),
    ),
    run="neuron_brittleness.study:study",
    analysis="neuron_brittleness.metrics:ANALYSIS",
    report="neuron_brittleness.report:spec",
    files="neuron_brittleness.original:write",
    needs="neuron_brittleness.data:needs",
    switches={
        "--controls": ("controls=true", "Also run the interventions on the tuned models (the default)."),
        "--strict": ("data.strict=true", "Stop at the first malformed row."),
    },
)
app = build(STUDY)
