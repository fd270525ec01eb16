"""One page over several runs and studies: each question and its answer, runs of the same study side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.evaluation.results import Hypothesis, Results
from alignment_core.report import figures, page, rendering, reproduce, summary, tables
from alignment_core.report.spec import ReportSpec, TableSpec
from alignment_core.report.tables import Cell, Grid

TITLE = "Summary of all studies"


@dataclass(frozen=True)
class OverviewRun:
    """One run of the overview."""

    folder: Path
    results: Results
    spec: ReportSpec

    @property
    def name(self) -> str:
        """As its column and card are headed."""
        return f"{self.folder.name} ({_count(len(self.results.seeds), 'seed')})"

    @property
    def headline(self) -> str:
        """Its verdict in one sentence."""
        return summary.headline(self.results, self.spec)

    @property
    def basis(self) -> str:
        """What the verdict is based on."""
        return summary.basis(self.results, self._config, summary.asked(self.results, self.spec))

    @property
    def command(self) -> str:
        """The command line that makes it again."""
        return reproduce.command(self.results, self.spec, self._config)

    @cached_property
    def _config(self) -> Mapping[str, Any]:
        return page.About.of(self.folder).config

    def picture(self, prefix: str) -> page.Picture | None:
        """Its first figure, ids under `prefix`; None where there is none."""
        for wanted in self.spec.figures[:1]:
            drawn = figures.draw(self.results, self.spec, wanted)
            return page.picture({wanted.name: drawn}, wanted, self.results, prefix) if drawn is not None else None
        return None

    def href(self, at: Path | None) -> str:
        """Its own report as a link from `at`; empty where it has none."""
        report = self.folder / "report.html"
        # Quoted: a folder called `javascript:...` is no address, and one with # or ? in its name is found.
        return quote(os.fsencode(os.path.relpath(report, at.parent if at else Path()))) if report.exists() else ""


@dataclass(frozen=True)
class Group:
    """The runs of one study."""

    study: str
    runs: Sequence[OverviewRun]
    table: Grid | None
    """The study's first table; of several runs its first metric side by side."""
    more: tuple[Grid, ...]
    """The other metrics side by side."""
    verdicts: Grid | None
    """What each of several runs says of each claim."""
    hypotheses: tuple[Hypothesis, ...]
    """Those of the only run."""


def write(folder: Path, runs: Sequence[OverviewRun]) -> Path:
    """Write `folder/report.html`; `UserError` where that is a run's own page."""
    if any((folder / name).exists() for name in ("results.json", "config.json")):
        study = next((r.results.study for r in runs if r.folder == folder), "STUDY")
        raise UserError(
            f"{folder}: one run, whose own report the overview would overwrite; "
            f"`{study} report {folder}` writes that, `alignment-core report {folder.parent}` the overview"
        )
    path = folder / "report.html"
    io.write_text(path, render(runs, path))
    return path


def render(runs: Sequence[OverviewRun], at: Path | None = None) -> str:
    """The page; `at` is where it will stand, for its links."""
    ordered = sorted(runs, key=lambda r: (r.results.study, str(r.folder)))
    studies = [(study, list(group)) for study, group in groupby(ordered, key=lambda r: r.results.study)]
    counted = f"{_count(len(runs), 'run')} of {_count(len(studies), 'study', 'studies')}"
    groups = [_group(study, found) for study, found in studies]
    return rendering.page("overview.html.j2", TITLE, counted=counted, groups=groups, at=at)


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _group(study: str, runs: Sequence[OverviewRun]) -> Group:
    if len(runs) > 1:
        grids = list(_side_by_side(runs))
        return Group(study, runs, next(iter(grids), None), tuple(grids[1:]), _verdicts(runs), ())
    results, spec = runs[0].results, runs[0].spec
    table = tables.rates(results, spec, spec.tables[0] if spec.tables else TableSpec("Measurements"))
    return Group(study, runs, table if table.rows else None, (), None, results.hypotheses)


def _side_by_side(runs: Sequence[OverviewRun]) -> Iterator[Grid]:
    """One grid a metric of the study's first table: subjects down, runs across."""
    spec = runs[0].spec
    table = spec.tables[0] if spec.tables else TableSpec("")
    for metric in [spec.metric(k) for k in table.metrics] or list(spec.metrics):
        rows = []
        for subject in [spec.subject(k) for k in table.subjects] or list(spec.subjects):
            found = [r.results.headline(metric.key, subject.key) for r in runs]
            if any(found):
                sides = zip(found, runs, strict=True)
                rows.append((Cell(subject.label), *(tables.cell(m, metric, len(r.results.seeds)) for m, r in sides)))
        if rows:
            columns = ("", *(r.name for r in runs))
            yield Grid(tables.with_arrow(metric), columns, tuple(rows), "", (False, *(True for _ in runs)))


def _verdicts(runs: Sequence[OverviewRun]) -> Grid | None:
    """What each run says of each claim; None where there is no claim."""
    claims = {h.name: h.claim for r in runs for h in r.results.hypotheses}
    rows = tuple((Cell(name, claim), *(_verdict(r.results, name) for r in runs)) for name, claim in claims.items())
    return Grid("Hypotheses", ("", *(r.name for r in runs)), rows) if rows else None


def _verdict(results: Results, name: str) -> Cell:
    found = next((h for h in results.hypotheses if h.name == name), None)
    return Cell("not part of this run") if found is None else Cell(found.verdict, found.because)
