"""report.html: one self-contained page a run, in the order of a careful reader's questions.

What was asked, what was found and how sure it is stand on the first screen; then the figure, the numbers, the tests,
the replies behind them, and everything needed to doubt or repeat them. It opens by double click and needs nothing
else: no script, no request, one style sheet named by its hash in the page's own content security policy. Model text
and names are escaped (`text.for_html`). Every figure links to the replies behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.evaluation.results import Results
from alignment_core.records import KINDS, Completion, Verdict
from alignment_core.report import figures, markup, replies, served, tables
from alignment_core.report import inline_svg as picture
from alignment_core.report import markdown as prose
from alignment_core.report import reproduce as again
from alignment_core.report import timings as cost
from alignment_core.report import verdicts_csv as sheet
from alignment_core.report.spec import FigureSpec, ReportSpec
from alignment_core.report.tables import Cell, Grid
from alignment_core.text import for_html


@dataclass(frozen=True)
class About:
    """What stands in the run folder beside the results; any of it may be absent."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved settings, as config.json has them under `config`."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> About:
        """Read config.json, env.json and timings.json of a run folder."""

        def read(name: str) -> dict[str, Any]:
            value = io.read_json(folder / name) if (folder / name).exists() else {}
            return value if isinstance(value, dict) else {}

        config = read("config.json")
        inner = config.get("config", config)
        return cls(inner if isinstance(inner, dict) else {}, read("env.json"), read("timings.json"))


def render(
    results: Results,
    spec: ReportSpec,
    about: About | None = None,
    completions: Iterable[Completion] = (),
    verdicts: Iterable[Verdict] = (),
    drawn: figures.Drawn | None = None,
) -> str:
    """The page of one run. With several training seeds the replies of the first are shown."""
    about = about or About()
    drawn = figures.draw_all(results, spec) if drawn is None else drawn
    shown = replies.gather(completions, verdicts, spec, seed=results.seeds[0] if results.seeds else None)
    first, rest = spec.figures[:1], spec.figures[1:]
    parts = [
        ("figure", "The figure", "\n".join(figure(drawn, f, results) for f in first)),
        ("hypotheses", "The hypotheses", "\n".join(claims(results))),
        ("numbers", "The numbers", _numbers(results, spec, shown)),
        ("tests", "Differences and tests", _tests(results, spec)),
        ("replies", "The replies behind the numbers", replies.html(shown, spec, "steps/")),
        ("more", "More figures", "\n".join(figure(drawn, f, results) for f in rest)),
        ("tables", "More tables", _more(results, spec, shown)),
        ("originals", "The original's figures", _originals(spec)),
        ("method", "Method", f"<p>{for_html(prose.methods(results, spec, about.config))}</p>"),
        ("limits", "Limits", markup.listing(spec.limits)),
        ("never", "Never run", markup.listing(spec.never_run)),
        ("cost", "Time and memory", cost.html(about.timings, about.environment)),
        ("again", "To get it again", again.html(results, spec, about.config, about.environment)),
    ]
    return markup.document(spec.title, [_head(results, spec, about), *markup.sections(parts)], len(shown.subjects))


def _head(results: Results, spec: ReportSpec, about: About) -> str:
    e = for_html
    seeds = f"{'seed' if len(results.seeds) == 1 else 'seeds'} {', '.join(map(str, results.seeds))}"
    out = [f'<header><p class="run">{e(results.study)} · preset {e(results.preset)} · {seeds}</p>']
    out.append(f"<h1>{e(spec.title)}</h1>")
    out += [f'<p class="question">{e(spec.question)}</p>'] if spec.question else []
    out.append(f'<p class="verdict">{e(tables.headline(results, spec))}</p>')
    out.append(f'<p class="basis">{e(basis(results, spec, about.config))}</p>')
    if spec.limits:
        out.append(f'<p class="basis">{e(spec.limits[0])} <a href="#limits">All limits</a></p>')
    out += [f'<p class="warning">{e(w)}</p>' for w in tables.warnings(results, spec)]
    return "\n".join([*out, "</header>"])


def basis(results: Results, spec: ReportSpec, config: Mapping[str, Any]) -> str:
    """What the verdict rests on: seeds, prompts and the model, in a sentence, and how its figures are to be read."""
    counts: dict[str, int] = {}
    for metric in (m for m in spec.metrics if m.kind is not None and m.rate):
        for subject in results.subjects:
            m = results.headline(metric.key, subject)
            if m is not None and metric.kind is not None:
                counts[metric.kind] = max(counts.get(metric.kind, 0), (m.n or 0) + m.missing)
    listed = [f"{counts[kind]} {kind}" for kind in KINDS if counts.get(kind)]
    prompts = f" and {_series(listed)} prompts" if listed else ""
    model = config.get("model")
    name = str(model["name"]) if isinstance(model, Mapping) and model.get("name") else ""
    by = "" if not name else " of the embedded model" if name == "organism" else f" of {name}"
    seeds = f"{len(results.seeds)} training seed{'' if len(results.seeds) == 1 else 's'}"
    tests = any(c.p_adjusted is not None for c in results.comparisons)
    decided = "; the p-values that decide are adjusted for their number" if tests else ""
    return f"It rests on {seeds}{by}{prompts}. Brackets are 95% intervals{decided}."


def _series(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def claims(results: Results) -> Iterator[str]:
    """Every hypothesis with its verdict and why, then the rules that decide."""
    if not results.hypotheses:
        return
    yield '<ul class="claims">'
    for h in results.hypotheses:
        badge = f'<span class="badge {h.verdict}">{for_html(h.name)} {tables.VERDICT_WORDS[h.verdict]}</span>'
        because = f'<span class="because">{for_html(h.because)}</span>'
        yield f"<li>{badge}<span>{for_html(h.claim)}{because}</span></li>"
    yield "</ul>"
    rules = markup.meanings((h.name, h.rule) for h in results.hypotheses)
    if results.hypotheses_sha256:
        rules += f'<p class="note">sha256 of the file they stand in: {for_html(results.hypotheses_sha256)}</p>'
    yield markup.folded("The rules that decide, written before the run", rules, "paper")


def figure(drawn: figures.Drawn, wanted: FigureSpec, results: Results, prefix: str = "") -> str:
    """One drawing with what its points and bands are; empty where there was nothing to draw."""
    if wanted.name not in drawn:
        return ""
    caption = " ".join(t for t in (wanted.caption, figures.how_to_read(wanted, results)) if t)
    svg = picture.inline(drawn[wanted.name][0], f"{prefix}{wanted.name}", f"{wanted.title}. {caption}")
    region = f'<div class="scroll" tabindex="0" role="group" aria-label="{for_html(wanted.title)}">{svg}</div>'
    return f'<figure class="figures">{region}<figcaption>{for_html(caption)}</figcaption></figure>'


def _numbers(results: Results, spec: ReportSpec, shown: replies.Replies) -> str:
    """The study's main tables, and what the names in them mean."""
    grids = [g for t in spec.tables if t.terminal and (g := tables.rates(results, spec, t)).rows]
    if not grids:
        return ""
    how = "↑ more is better, ↓ less is better. Brackets hold the 95% interval; n counts prompts unless it says what."
    how += " A figure with a dotted line leads to the replies behind it." if shown.subjects else ""
    out = [f'<p class="note">{how}</p>', markup.folded("What the names mean", _names(results, spec), "paper")]
    return "\n".join([*out, *(markup.grid(g, shown) for g in grids)])


def _names(results: Results, spec: ReportSpec) -> str:
    subjects, metrics = set(results.subjects), set(results.metrics)
    named = [s for s in spec.subjects if s.about and s.key in subjects]
    measured = [m for m in spec.metrics if m.about and m.key in metrics]
    return markup.meanings([*((s.label, s.about) for s in named), *((m.label, m.about) for m in measured)])


_ROLES = {
    "primary": "Primary: these decide the hypotheses",
    "control": "Controls",
    "exploratory": "Exploratory: nothing rests on these",
}
_TERMS = {
    "these checkpoints": "Speaks of the models at hand: prompts like these vary, training seeds do not.",
    "over runs": "Speaks of training runs like these: prompts and training seeds both vary.",
    "held fixed": "Of a difference b − a the side named was not trained for each seed, so its seeds do not vary.",
    "crossed": "Prompts and seeds vary together; like prompts count as one cluster.",
    "tango": "Tango's interval for a difference of two paired shares.",
    "mcnemar": "McNemar's exact test on the prompts where the two sides differ.",
    "t over clusters": "Student's t on the clusters' mean differences.",
    "max-T": "Adjusted by flipping the seeds' signs over the whole family: of k seeds no p under 2 in 2^k can come.",
    "no spread": "The seeds agree on every prompt, so the interval is that of one run.",
}


def _tests(results: Results, spec: ReportSpec) -> str:
    grids = tables.by_role(results, spec)
    if not grids:
        return ""
    shown = []
    for role, grid in grids.items():
        if role == "primary" or len(grids) == 1 or (role == "control" and len(grid.rows) <= cost.FEW):
            shown.append(markup.grid(_titled(grid, _ROLES[role])))
        else:
            paper = "paper" if role == "control" else ""
            shown.append(markup.folded(f"{_ROLES[role]} ({len(grid.rows)})", markup.grid(_titled(grid, "")), paper))
    said = " ".join(f"{c.method} {c.estimand} {c.family or ''}" for c in tables.shown_comparisons(results, spec))
    terms = markup.meanings((term, text) for term, text in _TERMS.items() if term in said)
    agreed = tables.agreements(results)
    return "\n".join(
        [*shown, markup.folded("What the methods' names mean", terms), markup.grid(agreed) if agreed else ""]
    )


def _titled(grid: Grid, title: str) -> Grid:
    return Grid(title, grid.columns, grid.rows, grid.note, grid.numeric)


def _more(results: Results, spec: ReportSpec, shown: replies.Replies) -> str:
    """What stands behind the main tables, each table folded under its title."""
    grids = [tables.rates(results, spec, t) for t in spec.tables if not t.terminal]
    grids += [g for g in (tables.corrected(results, spec), *tables.other_judges(results, spec)) if g is not None]
    out = [markup.folded(g.title, markup.grid(_titled(g, ""), shown), "paper") for g in grids if g.rows]
    seeds = [g for t in spec.tables if (g := tables.each_seed(results, spec, t)) is not None]
    out.append(markup.folded("Each training seed by itself", "\n".join(markup.grid(g, shown) for g in seeds)))
    return "\n".join(filter(None, out))


def _originals(spec: ReportSpec) -> str:
    out = []
    for table in spec.originals:
        rows = tuple(tuple(Cell(t) for t in row) for row in table.rows)
        out.append(markup.grid(Grid(table.title, table.columns, rows, table.note)))
    return "\n".join(out)


def write(
    folder: Path,
    results: Results,
    spec: ReportSpec,
    completions: Iterable[Completion] | None = None,
    verdicts: Iterable[Verdict] | None = None,
) -> Path:
    """Write everything a run folder shows: report.html, report.md, tables.tex, figures/ and verdicts.csv.

    Replies and verdicts are those the results name in the folder's steps, unless given. Where there are none (a
    record without its steps) the page has no replies and verdicts.csv is left as it is. Returns the page's path.
    """
    about = About.of(folder)
    spec = replace(spec, limits=(*spec.limits, *served.limits(folder, about.config)))
    found = replies.find(folder, results) if completions is None else (list(completions), list(verdicts or ()))
    drawn = figures.draw_all(results, spec)
    figures.write(folder / "figures", drawn)
    prose.write(folder, results, spec, about.config)
    if found[1]:
        sheet.write(folder / "verdicts.csv", found[1], found[0])
    path = folder / "report.html"
    io.write_text(path, render(results, spec, about, *found, drawn))
    return path
