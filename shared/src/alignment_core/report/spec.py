"""What a study's report shows: its question, subjects, metrics, tables and figures, in the order of the page.

A study's `report.py` writes one `ReportSpec`; every output (terminal, report.md, report.html, LaTeX, figures) is made
from it and from results.json. `generic` makes one from the results alone, for runs whose study is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from alignment_core.evaluation.metrics import COMMON, Metric
from alignment_core.evaluation.results import Results
from alignment_core.records import KINDS

FigureKind = Literal["states", "categories", "trajectory"]
_KNOWN = {metric.key: metric for metric in COMMON}


@dataclass(frozen=True)
class SubjectSpec:
    """A state, condition or group: its key in results.json and its name for readers."""

    key: str
    label: str
    control: bool = False
    """Shown among the controls, after the study's own subjects."""
    about: str = ""
    """What it is, in a sentence."""


@dataclass(frozen=True)
class TableSpec:
    """One table: subjects down, metrics across (empty: all of the report's)."""

    title: str
    metrics: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    note: str = ""
    terminal: bool = True
    """Also printed at the end of a run; the report shows it either way."""


@dataclass(frozen=True)
class ComparisonSpec:
    """One comparison b - a to show."""

    metric: str
    a: str
    b: str


@dataclass(frozen=True)
class FigureSpec:
    """One figure; `name` is its file's name without a suffix."""

    name: str
    kind: FigureKind
    title: str
    metrics: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    axis: str = "category"
    """Which entry of `at` is spread out: `category`, or for a trajectory `step`."""
    ordered: bool = True
    """Subjects follow each other in time: their points are joined (`states`)."""
    caption: str = ""


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are written, for example what the original work reported."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class ReportSpec:
    """A study's report."""

    title: str
    question: str
    subjects: tuple[SubjectSpec, ...]
    metrics: tuple[Metric, ...]
    tables: tuple[TableSpec, ...] = ()
    comparisons: tuple[ComparisonSpec, ...] = ()
    """Empty: every comparison over the seeds (or of the only one) that is not placed on an axis."""
    figures: tuple[FigureSpec, ...] = ()
    originals: tuple[TextTable, ...] = ()
    """What the original work reported."""
    method: str = ""
    """What was done, in a few sentences."""
    limits: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()
    """What the study could do and this run did not."""
    command: str = ""
    """The command that makes this run again, for where the study is not installed."""
    headline: Callable[[Results], str] | None = None
    """The verdict in one sentence; by default it is put together from the hypotheses."""

    def subject(self, key: str) -> SubjectSpec:
        """The subject's own entry, or one that shows its key."""
        return next((s for s in self.subjects if s.key == key), SubjectSpec(key, plain_label(key)))

    def metric(self, key: str) -> Metric:
        """The report's own metric, else the core's of that key, else one that shows its key."""
        return next((m for m in self.metrics if m.key == key), _metric(key))


def plain_label(key: str) -> str:
    """`harmful_refusal_rate` as `harmful refusal rate`."""
    return key.replace("_", " ").strip() or "(no name)"


def _metric(key: str) -> Metric:
    if key in _KNOWN:
        return _KNOWN[key]
    kind = next((k for k in KINDS if key.startswith(f"{k}_")), None)
    if key.endswith(("_rate", "_share")):
        return Metric(key, plain_label(key), kind)
    return Metric(key, plain_label(key), kind, unit="value", digits=3)


def generic(results: Results) -> ReportSpec:
    """A report of everything in the results, in their own order."""
    metrics = tuple(_metric(key) for key in results.metrics)
    whole = {m.metric for m in results.measurements if not any(m.at.values())}
    shown = tuple(m.key for m in metrics if m.rate and m.key in whole)[:3]
    return ReportSpec(
        title=results.study,
        question="",
        subjects=tuple(SubjectSpec(key, plain_label(key)) for key in results.subjects),
        metrics=metrics,
        tables=(TableSpec("Measurements"),),
        figures=(FigureSpec("rates", "states", "Rates of every subject", shown, ordered=False),) if shown else (),
    )
