"""The terminal's view of a report: nothing in it is taken for markup, and nothing steers the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from alignment_core.evaluation.results import Results
from alignment_core.report import differences, summary, tables
from alignment_core.report.spec import ReportSpec
from alignment_core.report.tables import Cell, Grid
from alignment_core.text import visible

_STYLES = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not tested": "yellow"}


def _text(text: str, style: str = "") -> Text:
    return Text(visible(text), style=style)


def _cell(c: Cell) -> Text:
    text = _text(c.text)
    return text.append("\n" + visible(c.under), style="dim") if c.under else text


def rich_table(grid: Grid) -> Table:
    """A grid for the terminal."""
    title = _text(grid.title, "bold")
    table = Table(title=title, title_justify="left", caption_justify="left", pad_edge=False, box=box.SIMPLE_HEAD)
    table.caption = _text(grid.note, "dim") if grid.note else None
    for name, right in zip(grid.columns, grid.right, strict=True):
        table.add_column(_text(name), justify="right" if right else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*map(_cell, row))
    return table


def render(results: Results, spec: ReportSpec) -> RenderableType:
    """What a run prints at its end: tables, verdicts, warnings."""
    parts: list[RenderableType] = [_text(spec.title, "bold"), *([_text(spec.question)] if spec.question else [])]
    grids = [tables.rates(results, spec, t) for t in spec.tables if t.terminal]
    agreed = tables.agreements(results)
    grids += [differences.table(results, spec, exploratory=False), *([agreed] if agreed else [])]
    for grid in (g for g in grids if g.rows):
        parts += [Text(), rich_table(grid)]
    if results.hypotheses:
        parts.append(Text())
    parts += [_text(summary.verdict_line(h), _STYLES[h.verdict]) for h in results.hypotheses]
    parts += [_text(f"Warning: {w}", "yellow") for w in summary.warnings(results, spec)]
    parts.append(_text(summary.headline(results, spec), "bold"))
    parts += [_text(f"Condition: {results.condition}")] if results.condition else []
    return Group(*parts)


def text(results: Results, spec: ReportSpec, width: int = 140) -> str:
    """The same as plain text, `width` columns wide, without colour."""
    return _plain(render(results, spec), width)


def plain_table(grid: Grid, width: int = 140) -> str:
    """One grid as plain text."""
    return _plain(rich_table(grid), width)


def _plain(shown: RenderableType, width: int) -> str:
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(shown)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
