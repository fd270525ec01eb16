"""Pieces of HTML that the run's page and the joint page share: the document, tables, folded parts, lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from alignment_core.report import style as look
from alignment_core.report.replies import Replies
from alignment_core.report.tables import Cell, Grid
from alignment_core.text import for_html


def document(title: str, body: Sequence[str], subjects: int = 0) -> str:
    """A whole page: one style sheet, named by its hash in the page's policy, and nothing that loads or runs."""
    style = look.style_sheet(subjects)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{for_html(look.policy(style))}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{for_html(title)}</title>",
            f"<style>{style}</style></head>",
            '<body><a class="skip" href="#main">To the results</a>',
            *body,
            "</body></html>",
            "",
        ]
    )


def sections(parts: Sequence[tuple[str, str, str]]) -> list[str]:
    """`(id, title, html)` as a row of links and the page's sections; what is empty is left out."""
    present = [part for part in parts if part[2]]
    links = "".join(f'<a href="#{i}">{for_html(title)}</a>' for i, title, _ in present)
    shown = (f'<section id="{i}"><h2>{for_html(title)}</h2>\n{html}</section>' for i, title, html in present)
    return [f"<nav aria-label='Sections'>{links}</nav>", '<main id="main">', *shown, "</main>"]


def folded(summary: str, html: str, css: str = "") -> str:
    """A part that opens by a click; with the class `paper` it is open in print."""
    if not html:
        return ""
    named = f' class="{css}"' if css else ""
    return f"<details{named}><summary>{for_html(summary)}</summary>\n{html}</details>"


def listing(lines: Iterable[str]) -> str:
    """Lines as a list; nothing where there is none."""
    items = "".join(f"<li>{for_html(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def meanings(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    items = "".join(f"<dt>{for_html(term)}</dt><dd>{for_html(text)}</dd>" for term, text in pairs)
    return f"<dl>{items}</dl>" if items else ""


def grid(table: Grid, shown: Replies | None = None) -> str:
    """A grid as an HTML table that scrolls by itself on narrow screens.

    What stands under every figure of a column alike (`n=200 (0 missing)`) is said once, in the column's head.
    """
    under, rows = _once(table)
    numeric = table.numeric or tuple(False for _ in table.columns)
    css = [' class="n"' if right else "" for right in numeric]
    heads = (
        f'<th scope="col"{c}>{_cell(Cell(_bound(title), said), None)}</th>' if title else "<td></td>"
        for title, said, c in zip(table.columns, under, css, strict=True)
    )
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td{c}>{_cell(x, shown)}</td>" for x, c in zip(rest, css[1:], strict=True))
        lines.append(f'<tr><th scope="row">{_cell(first, shown)}</th>{cells}</tr>')
    title = f"<h3>{for_html(table.title)}</h3>" if table.title else ""
    note = f'<p class="note">{for_html(table.note)}</p>' if table.note else ""
    region = f'<div class="scroll" tabindex="0" role="group" aria-label="{for_html(table.title or "table")}">'
    body = "\n".join(lines)
    return f"{title}{region}<table><thead><tr>{''.join(heads)}</tr></thead><tbody>\n{body}</tbody></table></div>{note}"


def _bound(title: str) -> str:
    """A column's name whose arrow stays on its last word's line."""
    return title.replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓")


def _once(table: Grid) -> tuple[list[str], list[tuple[Cell, ...]]]:
    """What each column's head says for all its cells, and the rows without it."""
    said = ["" for _ in table.columns]
    for i in range(1, len(table.columns)):
        told = {row[i].under for row in table.rows}
        if len(table.rows) > 1 and len(told) == 1:
            said[i] = told.pop()
    rows = [tuple(replace(c, under="") if s else c for c, s in zip(row, said, strict=True)) for row in table.rows]
    return said, rows


def _cell(c: Cell, shown: Replies | None) -> str:
    text = for_html(c.text)
    if shown is not None and c.kind is not None and c.subject in shown.subjects and shown.prompts[c.kind]:
        place = shown.subjects.index(c.subject)
        text = f'<a href="#replies-{c.kind}-{place}" title="The replies behind it">{text}</a>'
    return text + (f'<span class="under">{for_html(c.under)}</span>' if c.under else "")
