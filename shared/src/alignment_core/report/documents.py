"""report.md and the LaTeX tables, from the same spec and grids as the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment_core.evaluation.results import Results
from alignment_core.report import differences, figures, methods, summary, tables
from alignment_core.report.rendering import render
from alignment_core.report.spec import ReportSpec
from alignment_core.report.tables import Grid


def markdown(
    results: Results, spec: ReportSpec, config: Mapping[str, Any] | None = None, pictures: Path | None = None
) -> str:
    """report.md. Its only pictures are our own, from the folder `pictures` beside it."""
    found = [f for f in spec.figures if pictures is not None and (pictures / f"{f.name}.png").exists()]
    originals = [tables.grid(t.title, t.columns, t.rows, t.note) for t in spec.originals]
    return render(
        "report.md.j2",
        results=results,
        spec=spec,
        headline=summary.headline(results, spec),
        verdicts=[summary.verdict_line(h) for h in results.hypotheses],
        warnings=summary.warnings(results, spec),
        folder=pictures.name if pictures else "",
        pictures=[(f, figures.caption(f, results)) for f in found],
        grids=[*all_grids(results, spec), *originals],
        method=methods.paragraph(results, spec, config or {}),
    )


def latex(grid: Grid) -> str:
    """One grid as a LaTeX table (needs the package booktabs)."""
    return render("table.tex.j2", grid=grid)


def all_grids(results: Results, spec: ReportSpec) -> list[Grid]:
    """Every table of a report in order, those of the single seeds last."""
    grids: list[Grid | None] = [tables.rates(results, spec, t) for t in spec.tables]
    grids += [differences.table(results, spec), tables.corrected(results, spec), tables.agreements(results)]
    grids += tables.other_judges(results, spec)
    grids += [tables.each_seed(results, spec, t) for t in spec.tables]
    return [g for g in grids if g is not None and g.rows]
