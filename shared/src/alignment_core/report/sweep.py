"""A sweep's one table: a row a value, with the metrics that the study's hypotheses are about and their verdicts."""

from __future__ import annotations

import csv
import io as streams
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core.evaluation.results import Results
from alignment_core.report import tables
from alignment_core.report.spec import ReportSpec
from alignment_core.report.tables import Cell, Grid
from alignment_core.text import for_csv

NOTE = "Each row is a run of its own: verdicts and p-values are not adjusted for the number of rows."


@dataclass(frozen=True)
class SweepRow:
    """One value of the grid, and what its run found."""

    values: tuple[str, ...]
    """Of each varied setting."""
    run: Path
    seeds: tuple[int, ...]
    """Those that are made."""
    results: Results | None
    """Over these seeds; None where there are none."""


@dataclass(frozen=True)
class SweepTable:
    """The rows of a sweep and how their figures are shown."""

    title: str
    keys: tuple[str, ...]
    """The varied settings."""
    seeds: tuple[int, ...]
    """The seeds that were asked for."""
    rows: tuple[SweepRow, ...]
    spec: Callable[[Results], ReportSpec]
    """The study's report."""

    def _columns(self) -> list[tuple[str, str]]:
        """Metric and subject of each figure, in the order of first appearance."""
        found = [pair for row in self.rows if row.results for pair in shown(row.results, self.spec(row.results))]
        return list(dict.fromkeys(found))

    def _hypotheses(self) -> list[str]:
        found = [h.name for row in self.rows if row.results for h in row.results.hypotheses]
        return list(dict.fromkeys(found))

    def grid(self) -> Grid:
        """The table as it is printed; under a figure stands what it rests on."""
        columns, claims = self._columns(), self._hypotheses()
        spec = next((self.spec(row.results) for row in self.rows if row.results), None)
        heads = [] if spec is None else [f"{spec.subject(s).label}: {spec.metric(m).label}" for m, s in columns]
        rows = []
        for row in self.rows:
            count = Cell(str(len(row.seeds)), "" if row.seeds == self.seeds else f"of {len(self.seeds)}")
            if row.results is None or spec is None:
                rest = [Cell("no results") for _ in (*columns, *claims)]
            else:
                found, said = row.results, {h.name: h.verdict for h in row.results.hypotheses}
                rest = [tables.cell(found.headline(m, s), spec.metric(m), len(found.seeds)) for m, s in columns]
                rest += [Cell(said.get(name, "not part of this run")) for name in claims]
            rows.append((*map(Cell, row.values), count, *rest))
        numeric = (*(False for _ in self.keys), True, *(True for _ in columns), *(False for _ in claims))
        return Grid(self.title, (*self.keys, "seeds", *heads, *claims), tuple(rows), NOTE, numeric)

    def csv(self) -> str:
        """The same rows for a spreadsheet: every figure with its interval, n and missing count."""
        columns, claims = self._columns(), self._hypotheses()
        parts = ("value", "low", "high", "n", "missing")
        heads = [f"{metric} of {subject}: {part}" for metric, subject in columns for part in parts]
        out = streams.StringIO()
        sheet = csv.writer(out, lineterminator="\n")
        sheet.writerow(map(for_csv, (*self.keys, "seeds", "run", *heads, *claims)))
        for row in self.rows:
            found = [row.results.headline(m, s) if row.results else None for m, s in columns]
            said = {h.name: h.verdict for h in row.results.hypotheses} if row.results else {}
            texts = (*row.values, " ".join(map(str, row.seeds)), row.run.as_posix())
            figures = [_text(getattr(m, part, None)) for m in found for part in parts]
            sheet.writerow([*map(for_csv, texts), *figures, *(said.get(name, "") for name in claims)])
        return out.getvalue()

    def json(self) -> dict[str, Any]:
        """The same rows with the comparisons that decide, and why each hypothesis is decided as it is."""
        rows = []
        for row in self.rows:
            entry: dict[str, Any] = {"values": dict(zip(self.keys, row.values, strict=True))}
            entry |= {"run": row.run.as_posix(), "seeds": list(row.seeds)}
            if row.results is not None:
                figures = [row.results.headline(m, s) for m, s in self._columns()]
                decided = [c for c in row.results.comparisons if c.decision is not None]
                entry["measurements"] = [m.model_dump(mode="json") for m in figures if m is not None]
                entry["comparisons"] = [c.model_dump(mode="json") for c in decided]
                entry["hypotheses"] = [h.model_dump(mode="json") for h in row.results.hypotheses]
            rows.append(entry)
        return {"title": self.title, "keys": list(self.keys), "seeds": list(self.seeds), "rows": rows, "note": NOTE}


def _text(value: float | None) -> str:
    """A number in full; empty where it is undefined."""
    return "" if value is None else repr(value)


def shown(results: Results, spec: ReportSpec) -> list[tuple[str, str]]:
    """The figures that stand for a run, as metric and subject: what its hypotheses say something of; where nothing of
    that was measured, the first metric of the study's first table."""
    decided = [(c.metric, c.b) for c in results.comparisons if c.decision is not None]
    found = [pair for pair in dict.fromkeys(decided) if results.headline(*pair) is not None]
    if found or not results.measurements:
        return found
    table = spec.tables[0] if spec.tables else None
    metrics = (table and table.metrics) or tuple(metric.key for metric in spec.metrics)
    subjects = (table and table.subjects) or tuple(subject.key for subject in spec.subjects)
    for metric in metrics:
        pairs = [(metric, subject) for subject in subjects if results.headline(metric, subject) is not None]
        if pairs:
            return pairs
    return []
