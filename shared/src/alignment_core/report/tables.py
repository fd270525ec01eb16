"""Tables as plain grids of text: what every output shows, each output escaping for its own syntax.

A figure reads `0.55 [0.48, 0.62] n=200 (0 missing)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from alignment_core.evaluation.files import Place
from alignment_core.evaluation.metrics import Metric
from alignment_core.evaluation.results import Comparison, Measurement, Results
from alignment_core.records import Kind
from alignment_core.report.spec import ReportSpec, SubjectSpec, TableSpec
from alignment_core.text import number

WIDTH_ZERO = "width zero: supports nothing"
"""Beside an interval whose ends are one value."""


@dataclass(frozen=True)
class Cell:
    """Text of a cell: the figure, and under it what it rests on. `kind` and `subject` name the replies behind it."""

    text: str
    under: str = ""
    kind: Kind | None = None
    subject: str = ""

    @property
    def line(self) -> str:
        """Both on one line."""
        return f"{self.text} {self.under}".rstrip()


@dataclass(frozen=True)
class Grid:
    """A table of unescaped text; the first column holds the rows' names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    numeric: tuple[bool, ...] = ()
    """Which columns hold figures (set to the right); empty: none."""

    @property
    def right(self) -> tuple[bool, ...]:
        """`numeric`, one entry a column."""
        return self.numeric or (False,) * len(self.columns)

    def once(self) -> tuple[tuple[Cell, ...], tuple[tuple[Cell, ...], ...]]:
        """Heads and rows, where what stands under every figure of a column alike stands in the column's head."""
        shared = [""] * len(self.columns)
        for i in range(1, len(self.columns)):
            under = {row[i].under for row in self.rows}
            if len(self.rows) > 1 and len(under) == 1:
                shared[i] = under.pop()
        rows = (tuple(replace(c, under="") if s else c for c, s in zip(r, shared, strict=True)) for r in self.rows)
        return tuple(Cell(c, s) for c, s in zip(self.columns, shared, strict=True)), tuple(rows)


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "", right: int = 0) -> Grid:
    """A grid of plain texts; the last `right` columns hold figures."""
    numeric = tuple(i >= len(columns) - right for i in range(len(columns)))
    return Grid(title, tuple(columns), tuple(tuple(map(Cell, row)) for row in rows), note, numeric)


def interval(m: Measurement | Comparison, digits: int = 2, *, signed: bool = False) -> str:
    """`0.55 [0.48, 0.62]`; without brackets where there is no interval."""
    value = m.value if isinstance(m, Measurement) else m.difference
    if m.low is None and m.high is None:
        return number(value, digits, signed=signed)
    ends = f"{number(m.low, digits, signed=signed)}, {number(m.high, digits, signed=signed)}"
    return f"{number(value, digits, signed=signed)} [{ends}]"


def width_zero(m: Measurement | Comparison) -> bool:
    """Whether there is an interval and its ends are one value."""
    return m.low is not None and m.low == m.high


def cell(m: Measurement | None, metric: Metric, seeds: int = 0) -> Cell:
    """A measurement's cell; an n that counts training seeds (of `seeds`) or layers says so."""
    if m is None:
        return Cell("not measured")
    n = "n/a" if m.n is None else str(m.n)
    if m.seed is None and m.method == "t" and m.n == seeds > 1:
        n += " seeds"
    if m.method.endswith("layers"):
        n += " layers"
    mark = f", {WIDTH_ZERO}" if width_zero(m) else ""
    return Cell(interval(m, metric.digits), f"n={n} ({m.missing} missing){mark}", metric.kind, m.subject)


def with_arrow(metric: Metric) -> str:
    """A metric's name with the way that is good."""
    return metric.label + {"high": " ↑", "low": " ↓", None: ""}[metric.better]


def _chosen(results: Results, spec: ReportSpec, table: TableSpec) -> tuple[list[SubjectSpec], list[Metric]]:
    """The table's subjects and metrics of which anything at all was measured."""
    subjects = [spec.subject(k) for k in table.subjects] or list(spec.subjects)
    metrics = [spec.metric(k) for k in table.metrics] or list(spec.metrics)
    measured = {(m.metric, m.subject) for m in results.measurements}
    subjects = [s for s in subjects if any((m.key, s.key) in measured for m in metrics)]
    return subjects, [m for m in metrics if any((m.key, s.key) in measured for s in subjects)]


def rates(
    results: Results, spec: ReportSpec, table: TableSpec, at: Mapping[str, Place] | None = None, title: str = ""
) -> Grid:
    """Subjects down, metrics across: figures over the seeds, or of the only seed. What nothing measured is left out."""
    subjects, metrics = _chosen(results, spec, table)
    found = {(s.key, m.key): results.headline(m.key, s.key, at) for s in subjects for m in metrics}

    def shown(s: SubjectSpec, m: Metric) -> Cell:
        if found[s.key, m.key] is None and results.over_seeds(m.key, s.key, at):
            return Cell("see each seed")
        return cell(found[s.key, m.key], m, len(results.seeds))

    metrics = [m for m in metrics if any(found[s.key, m.key] for s in subjects)]
    subjects = [s for s in subjects if any(found[s.key, m.key] for m in metrics)]
    rows = tuple((Cell(s.label), *(shown(s, m) for m in metrics)) for s in subjects)
    columns = ("", *map(with_arrow, metrics))
    return Grid(title or table.title, columns, rows, "" if title else table.note, (False, *(True for _ in metrics)))


def each_seed(results: Results, spec: ReportSpec, table: TableSpec) -> Grid | None:
    """The same figures seed by seed; None where there is only one seed."""
    subjects, metrics = _chosen(results, spec, table)
    rows = []
    for subject in subjects:
        seeds = {m.seed for k in metrics for m in results.over_seeds(k.key, subject.key)}
        for seed in sorted(s for s in seeds if s is not None):
            cells = (cell(results.find(m.key, subject.key, seed), m) for m in metrics)
            rows.append((Cell(subject.label), Cell(str(seed)), *cells))
    if len(results.seeds) < 2 or not rows:
        return None
    columns = ("", "seed", *map(with_arrow, metrics))
    return Grid(f"{table.title}: each seed", columns, tuple(rows), "", (False, True, *(True for _ in metrics)))


def agreements(results: Results) -> Grid | None:
    """Cohen's kappa of every two judges; None where there was one judge."""
    if not results.agreements:
        return None
    ends = ("" if a.low is None else f" [{number(a.low)}, {number(a.high)}]" for a in results.agreements)
    each = zip(results.agreements, ends, strict=True)
    rows = ((f"{a.a} and {a.b}", number(a.kappa) + end, str(a.n)) for a, end in each)
    return grid("Agreement between judges", ("judges", "Cohen's kappa", "n"), rows, right=2)


def other_judges(results: Results, spec: ReportSpec) -> list[Grid]:
    """The verdicts of the judges beside the deciding one: the first table's metrics, one grid a judge."""
    judges = dict.fromkeys(m.at["judge"] for m in results.measurements if m.at.get("judge") is not None)
    table = spec.tables[0] if spec.tables else TableSpec("")
    made = (rates(results, spec, table, {"judge": j}, f"The same replies, judged by {j}") for j in judges)
    return [g for g in made if g.rows]


def corrected(results: Results, spec: ReportSpec) -> Grid | None:
    """Figures by another estimator than the raw share (corrected for the detector's error, bounds); None if none."""
    rows = tuple(
        (
            Cell(spec.subject(m.subject).label, "" if m.seed is None else f"seed {m.seed}"),
            Cell(spec.metric(m.metric).label),
            Cell(m.estimator),
            cell(m, spec.metric(m.metric)),
        )
        for m in results.measurements
        if m.estimator != "raw" and not any(v is not None for v in m.at.values())
    )
    columns = ("", "of", "estimator", "figure")
    return Grid("Other estimators", columns, rows, "", (False, False, False, True)) if rows else None
