"""What a study's report shows: its question, subjects, metrics, tables and figures, in the order a reader meets them.

A study's `report.py` writes one `ReportSpec`; every output (terminal, report.md, report.html, LaTeX, figures) is made
from it and from results.json. `generic` makes one from the results alone, for runs whose study is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from alignment_core.evaluation.results import Results
from alignment_core.records import Kind

FigureKind = Literal["states", "categories", "trajectory"]


@dataclass(frozen=True)
class SubjectSpec:
    """A model state, arm or group: its key in results.json and its name for readers."""

    key: str
    label: str
    control: bool = False
    """Shown among the controls, after the study's own subjects."""
    about: str = ""
    """What it is, in a sentence."""


@dataclass(frozen=True)
class MetricSpec:
    """A measured quantity."""

    key: str
    label: str
    better: Literal["high", "low"] | None = None
    """Which way is good; None where neither is."""
    kind: Kind | None = None
    """The prompts it is measured on: its figures link to their replies."""
    rate: bool = True
    """A share between 0 and 1."""
    digits: int = 2
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
    """A table whose cells are written, for example the original's figures."""

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
    metrics: tuple[MetricSpec, ...]
    tables: tuple[TableSpec, ...] = ()
    comparisons: tuple[ComparisonSpec, ...] = ()
    """Empty: every comparison over the seeds (or of the only one) that is not placed on an axis."""
    figures: tuple[FigureSpec, ...] = ()
    originals: tuple[TextTable, ...] = ()
    method: str = ""
    """What was done, in a few sentences."""
    limits: tuple[str, ...] = ()
    never_run: tuple[str, ...] = ()
    """What the study could do and this run did not."""
    command: str = ""
    """The command that makes this run again."""
    headline: Callable[[Results], str] | None = None
    """The verdict in one sentence; by default it is put together from the hypotheses."""

    def subject(self, key: str) -> SubjectSpec:
        """The subject's own entry, or one that shows its key."""
        return next((s for s in self.subjects if s.key == key), SubjectSpec(key, plain_label(key)))

    def metric(self, key: str) -> MetricSpec:
        """The metric's own entry, or one that shows its key."""
        return next((m for m in self.metrics if m.key == key), MetricSpec(key, plain_label(key)))


def plain_label(key: str) -> str:
    """`harmful_refusal_rate` as `harmful refusal rate`."""
    return key.replace("_", " ").strip() or "(no name)"


def generic(results: Results) -> ReportSpec:
    """A report of everything in the results, in their own order, with keys as labels."""
    rates = [m for m in results.metrics if m.endswith(("_rate", "_share"))]
    metrics = tuple(
        MetricSpec(key, plain_label(key), kind=_kind(key), rate=key in rates, digits=2 if key in rates else 3)
        for key in results.metrics
    )
    subjects = tuple(SubjectSpec(key, plain_label(key)) for key in results.subjects)
    shown = tuple(k for k in rates if any(m.metric == k and not any(m.at.values()) for m in results.measurements))[:3]
    figures = (FigureSpec("rates", "states", "Rates of every subject", shown, ordered=False),) if shown else ()
    return ReportSpec(
        title=results.study,
        question="",
        subjects=subjects,
        metrics=metrics,
        tables=(TableSpec("What was measured"),),
        figures=figures,
    )


def _kind(metric: str) -> Kind | None:
    if metric.startswith("harmful"):
        return "harmful"
    if metric.startswith(("false_refusal", "benign")):
        return "benign"
    return "borderline" if metric.startswith(("over_refusal", "borderline")) else None
