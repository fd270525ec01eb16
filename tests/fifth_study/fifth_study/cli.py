"""`fifth-study`: the study's command line."""

from alignment_core.cli import Study, build

STUDY = Study(
    name="fifth-study",
    package="fifth_study",
    config="fifth_study.config:FifthConfig",
    title="Does fine-tuning on refusals alone make a model refuse borderline requests?",
    steps=(("data", "Make the data."), ("tune", "Train on refusals."), ("evaluate", "Answer and judge.")),
    run="fifth_study.study:study",
    analysis="fifth_study.metrics:ANALYSIS",
    report="fifth_study.report:spec",
)
app = build(STUDY)
