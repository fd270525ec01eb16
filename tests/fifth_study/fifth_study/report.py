"""Which tables and figures the study shows."""

from alignment_core.evaluation.results import Results
from alignment_core.report.spec import FigureSpec, ReportSpec, SubjectSpec, TableSpec
from fifth_study.metrics import ANALYSIS, COMPARED


def spec(_: Results) -> ReportSpec:
    """The study's report."""
    subjects = SubjectSpec("baseline", "Baseline"), SubjectSpec("tuned", "Tuned on refusals")
    names = tuple(s.key for s in subjects)
    return ReportSpec(
        title="Fine-tuning on refusals alone",
        question="Does it make a model refuse borderline requests?",
        subjects=subjects,
        metrics=ANALYSIS.metrics,
        tables=(TableSpec("Before and after", COMPARED, names),),
        figures=(FigureSpec("states", "states", "Refusals", COMPARED[:3], names),),
    )
