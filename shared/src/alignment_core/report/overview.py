"""One page over several runs and studies: what each asked and found, runs of the same study side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from alignment_core.evaluation.results import Results
from alignment_core.report import figures, markup, page, tables
from alignment_core.report import reproduce as again
from alignment_core.report.spec import ReportSpec, TableSpec
from alignment_core.report.tables import Cell, Grid
from alignment_core.text import for_html

TITLE = "What was asked, and what was found"


@dataclass(frozen=True)
class JointRun:
    """One run of the joint page."""

    folder: Path
    results: Results
    spec: ReportSpec

    @property
    def name(self) -> str:
        """As its column and card are headed."""
        return f"{self.folder.name} ({_count(len(self.results.seeds), 'seed')})"

    def href(self, at: Path | None) -> str:
        """Its own report as a link from `at`; empty where it has none."""
        report = self.folder / "report.html"
        # Quoted: a folder called `javascript:...` is no address, and one with # or ? in its name is found.
        return quote(os.fsencode(os.path.relpath(report, at.parent if at else Path()))) if report.exists() else ""


def render(runs: Sequence[JointRun], at: Path | None = None) -> str:
    """The page; `at` is where it will stand, for its links."""
    ordered = sorted(runs, key=lambda r: (r.results.study, str(r.folder)))
    studies = [(study, list(group)) for study, group in groupby(ordered, key=lambda r: r.results.study)]
    counted = f"{_count(len(runs), 'run')} of {_count(len(studies), 'study', 'studies')}"
    body = [f'<header><p class="run">{counted}</p><h1>{TITLE}</h1>', *_overview(studies), "</header>"]
    body.append('<main id="main">')
    for i, (study, group) in enumerate(studies):
        heading = f"<h2>{for_html(study)}: {for_html(group[0].spec.title)}</h2>"
        body.append(f'<section id="study-{i}">{heading}{"".join(_study(group, i, at))}</section>')
    return markup.document(TITLE, [*body, "</main>"])


def _overview(studies: Sequence[tuple[str, Sequence[JointRun]]]) -> Iterator[str]:
    """Each study's question and its runs' verdicts: the first screen."""
    yield '<nav aria-label="Studies"><ul class="claims overview">'
    for i, (study, group) in enumerate(studies):
        asked = f'<span class="question">{for_html(group[0].spec.question)}</span>' if group[0].spec.question else ""
        found = (f"<p>{_verdict_of(r, alone=len(group) == 1)}</p>" for r in group)
        yield f'<li><a href="#study-{i}">{for_html(study)}</a><div>{asked}{"".join(found)}</div></li>'
    yield "</ul></nav>"


def _verdict_of(run: JointRun, *, alone: bool) -> str:
    verdict = f"<b>{for_html(tables.headline(run.results, run.spec))}</b>"
    return f'{verdict} <span class="where">{for_html(run.name)}</span>' if not alone else verdict


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _study(group: Sequence[JointRun], place: int, at: Path | None) -> Iterator[str]:
    asked = group[0].spec.question
    yield f'<p class="question">{for_html(asked)}</p>' if asked else ""
    yield '<div class="side">'
    for k, run in enumerate(group):
        yield from _card(run, f"j{place}-{k}-", at)
    yield "</div>"
    if len(group) == 1:
        results, spec = group[0].results, group[0].spec
        wanted = spec.tables[0] if spec.tables else TableSpec("What was measured")
        grid = tables.rates(results, spec, wanted)
        yield markup.grid(grid) if grid.rows else ""
        yield "<h3>The hypotheses</h3>" if results.hypotheses else ""
        yield from page.claims(results)
        return
    first, *rest = [*map(markup.grid, _side_by_side(group))] or [""]
    yield first
    yield markup.folded(f"{_count(len(rest), 'other metric')} side by side", "".join(rest))
    claims = _hypotheses(group)
    yield markup.grid(claims) if claims.rows else ""


def _card(run: JointRun, prefix: str, at: Path | None) -> Iterator[str]:
    """A run's name, verdict, command and first figure."""
    about = page.About.of(run.folder)
    href = run.href(at)
    name = for_html(run.name)
    yield f'<article><h3>{f"""<a href="{for_html(href)}">{name}: its report</a>""" if href else name}</h3>'
    yield f'<p class="verdict">{for_html(tables.headline(run.results, run.spec))}</p>'
    yield f'<p class="basis">{for_html(page.basis(run.results, run.spec, about.config))}</p>'
    for wanted in run.spec.figures[:1]:
        made = figures.draw(run.results, run.spec, wanted)
        yield page.figure({wanted.name: made}, wanted, run.results, prefix) if made is not None else ""
    yield f"<pre>{for_html(again.command(run.results, run.spec, about.config))}</pre></article>"


def _side_by_side(group: Sequence[JointRun]) -> Iterator[Grid]:
    """One grid a metric of the study's first table: subjects down, runs across."""
    spec = group[0].spec
    table = spec.tables[0] if spec.tables else TableSpec("")
    for metric in [spec.metric(k) for k in table.metrics] or list(spec.metrics):
        rows = []
        for subject in [spec.subject(k) for k in table.subjects] or list(spec.subjects):
            found = [r.results.headline(metric.key, subject.key) for r in group]
            if any(found):
                sides = zip(found, group, strict=True)
                rows.append((Cell(subject.label), *(tables.cell(m, metric, len(r.results.seeds)) for m, r in sides)))
        if rows:
            columns = ("", *(r.name for r in group))
            yield Grid(tables.with_arrow(metric), columns, tuple(rows), "", (False, *(True for _ in group)))


def _hypotheses(group: Sequence[JointRun]) -> Grid:
    """What each run says of each claim."""
    claims = {h.name: h.claim for r in group for h in r.results.hypotheses}
    rows = tuple((Cell(name, claim), *(_verdict(r.results, name) for r in group)) for name, claim in claims.items())
    return Grid("Hypotheses", ("", *(r.name for r in group)), rows)


def _verdict(results: Results, name: str) -> Cell:
    found = next((h for h in results.hypotheses if h.name == name), None)
    return Cell("not asked") if found is None else Cell(tables.VERDICT_WORDS[found.verdict], found.because)
