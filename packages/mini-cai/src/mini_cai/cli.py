"""`mini-cai`: the study's command line, built from its description, and `chat`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignment_core.cli import Study, build
from alignment_core.cli.guard import guarded

STUDY = Study(
    name="mini-cai",
    package="mini_cai",
    config="mini_cai.config:CaiConfig",
    title="Generate candidates, critique them against a constitution, select, fine-tune, compare with the baseline.",
    steps=(
        ("data", "Write the training and evaluation prompts of three kinds."),
        ("calibrate", "Measure the critic on gold replies and planted lines; refuse a bad one."),
        ("generate", "Sample candidates for every training prompt."),
        ("critique", "Score every candidate against the constitution."),
        ("select", "Choose training rows by policy, and the matched random control."),
        ("train", "Fine-tune an adapter on each selection."),
        ("compare", "Answer the evaluation prompts with every model, and judge the replies."),
    ),
    run="mini_cai.study:study",
    analysis="mini_cai.metrics:ANALYSIS",
    report="mini_cai.report:spec",
    files="mini_cai.original:write",
    needs="mini_cai.data:needs",
    switches={
        "--controls": ("controls=true", "Also train margin, diverse and revised."),
        "--force": ("calibration.force=true", "Go on with a critic that fails its calibration."),
        "--include": ("selection.include=", "Which side of margin and diverse to keep: best, worst or both."),
        "--low-memory": ("low_memory=true", "One row at a time, gradient checkpointing."),
    },
)
app = build(STUDY)


@app.command()
@guarded
def chat(
    tuned: Annotated[
        Path, typer.Argument(metavar="TUNED", help="An adapter's folder, a whole model's, or a training step's.")
    ],
    preset: Annotated[str, typer.Option(help="Preset whose tuned model is the base.")] = "tiny",
    model: Annotated[
        str | None, typer.Option(help="Another base: organism (or organism:2), a hub id, or a folder.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of the hub model.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 13,
) -> None:
    """Talk to a tuned model."""
    from alignment_core.config import resolve
    from alignment_core.pipeline.environment import prepare_process
    from mini_cai import chat as conversation
    from mini_cai.config import CaiConfig

    prepare_process()
    config = resolve(CaiConfig, "mini_cai", preset)
    base = config.base if model is None else config.base.model_copy(update={"name": model, "revision": revision})
    conversation.chat(tuned, base, config.compare.generate, seed, typer.echo)
