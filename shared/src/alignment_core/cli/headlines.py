"""The studies' measured headlines as a Markdown table, for the README: generated from `studies/*/results`."""

from __future__ import annotations

from pathlib import Path

from alignment_core import io
from alignment_core.cli.study import installed, report_spec
from alignment_core.errors import UserError
from alignment_core.evaluation import results
from alignment_core.report import summary

START, END = "<!-- headlines -->", "<!-- end of headlines -->"


def table(studies: Path) -> str:
    """One row a study that has a record: what it asks, the command, and what its newest record found."""
    if not studies.is_dir():
        raise UserError(f"{studies}: no such folder; name the one that holds the studies' records")
    rows = ["| study | question | command | headline |", "|---|---|---|---|"]
    for folder in sorted(p for p in studies.iterdir() if p.is_dir()):
        records = sorted(folder.glob("results/*/results.json"))
        if not records:
            continue
        found = results.read(records[-1])
        spec = report_spec(installed(found.study), found)
        line = f"{summary.headline(found, spec)} ({found.preset}, {len(found.seeds)} seeds)"
        link = f"[{found.study}]({studies.name}/{folder.name}/README.md)"
        rows.append(f"| {link} | {spec.question} | `make {found.study}` | {line} |")
    return "\n".join(rows)


def write(studies: Path, page: Path) -> None:
    """Put the table between the page's markers; `UserError` where it has none."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{page}: cannot be read: {error.strerror}") from error
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise UserError(f"{page}: no {START} ... {END} to put the table between")
    io.write_text(page, f"{before}{START}\n{table(studies)}\n{END}{after}")
