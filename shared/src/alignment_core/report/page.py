"""report.html: one self-contained page a run, in the order of a careful reader's questions.

The question, the answer and how sure it is stand on the first screen; then the figure, the numbers, the tests, the
replies behind them, and everything needed to doubt or repeat them. It opens by double click and needs nothing else: no
script, no request, one style sheet named by its hash in the page's own content security policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alignment_core import io
from alignment_core.evaluation.files import INDEX
from alignment_core.evaluation.results import Results
from alignment_core.evaluation.state import read_index
from alignment_core.records import Completion, Verdict
from alignment_core.report import (
    differences,
    documents,
    figures,
    methods,
    rendering,
    replies,
    reproduce,
    served,
    summary,
    tables,
    timings,
    verdicts_csv,
)
from alignment_core.report.inline_svg import inline
from alignment_core.report.spec import FigureSpec, ReportSpec

TERMS = {
    "these checkpoints": "Inference about these checkpoints only: prompts like these vary, training seeds do not.",
    "over runs": "Inference about training runs like these: prompts and training seeds both vary.",
    "held fixed": "Of a difference b − a the side named was not trained for each seed, so its seeds do not vary.",
    "crossed": "Prompts and seeds vary together; like prompts count as one cluster.",
    "tango": "Tango's interval for a difference of two paired shares.",
    "mcnemar": "McNemar's exact test on the prompts where the two sides differ.",
    "t over clusters": "Student's t on the clusters' mean differences.",
    "max-T": "Adjusted by flipping the seeds' signs over the whole family: of k seeds no p under 2 in 2^k can come.",
    "no spread": "The seeds agree on every prompt, so the interval is that of one run.",
}


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


@dataclass(frozen=True)
class Picture:
    """A drawing with its title and caption."""

    svg: Markup
    title: str
    caption: str


def picture(drawn: figures.Drawn, wanted: FigureSpec, results: Results, prefix: str = "") -> Picture | None:
    """One drawing as a part of a page, its ids under `prefix`; None where there was nothing to draw."""
    if wanted.name not in drawn:
        return None
    caption = figures.caption(wanted, results)
    svg = inline(drawn[wanted.name][0], f"{prefix}{wanted.name}", f"{wanted.title}. {caption}")
    return Picture(svg, wanted.title, caption)


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
    pictures = [picture(drawn, f, results) for f in spec.figures]
    asked = summary.asked(results, spec, shown.counts)
    return rendering.page(
        "report.html.j2",
        spec.title,
        len(shown.subjects),
        results=results,
        spec=spec,
        replies=shown,
        headline=summary.headline(results, spec),
        basis=summary.basis(results, about.config, asked),
        warnings=summary.warnings(results, spec),
        pictures=[p for p in pictures[:1] if p is not None],
        more_pictures=[p for p in pictures[1:] if p is not None],
        unit=summary.unit(asked),
        rules=[(h.name, h.rule) for h in results.hypotheses],
        definitions=_definitions(results, spec),
        roles=differences.by_role(results, spec),
        terms=_terms(results, spec),
        agreements=tables.agreements(results),
        originals=[tables.grid(t.title, t.columns, t.rows, t.note) for t in spec.originals],
        method=methods.paragraph(results, spec, about.config),
        cost=timings.cost(about.timings, about.environment),
        reproduction=reproduce.of(results, spec, about.config, about.environment),
        **_grids(results, spec),
    )


def _grids(results: Results, spec: ReportSpec) -> dict[str, list[tables.Grid]]:
    """The main tables, those behind them, and those of the single seeds."""
    main: list[tables.Grid | None] = [tables.rates(results, spec, t) for t in spec.tables if t.terminal]
    more: list[tables.Grid | None] = [tables.rates(results, spec, t) for t in spec.tables if not t.terminal]
    more += [tables.corrected(results, spec), *tables.other_judges(results, spec)]
    seeds = [tables.each_seed(results, spec, t) for t in spec.tables]
    grids = {"main_tables": main, "more_tables": more, "seed_tables": seeds}
    return {name: [g for g in listed if g is not None and g.rows] for name, listed in grids.items()}


def _definitions(results: Results, spec: ReportSpec) -> list[tuple[str, str]]:
    subjects, metrics = set(results.subjects), set(results.metrics)
    named = [(s.label, s.about) for s in spec.subjects if s.about and s.key in subjects]
    return [*named, *((m.label, m.about) for m in spec.metrics if m.about and m.key in metrics)]


def _terms(results: Results, spec: ReportSpec) -> list[tuple[str, str]]:
    """The methods' names that the differences use, and what they mean."""
    used = " ".join(
        f"{c.method} {c.test or ''} {c.estimand} {c.family or ''}" for c in differences.shown(results, spec)
    )
    return [(term, text) for term, text in TERMS.items() if term in used]


def write(folder: Path, results: Results, spec: ReportSpec) -> Path:
    """Write everything a run folder shows: report.html, report.md, tables.tex, figures/ and verdicts.csv.

    Replies and verdicts are those of the folder's states. A folder without an index of states (a record) has a page
    without replies, and its verdicts.csv is left as it is. Returns the page's path.
    """
    about = About.of(folder)
    states = read_index(folder) if (folder / INDEX).is_file() else []
    spec = replace(spec, limits=(*spec.limits, *served.limits(states, spec, about.config)))
    drawn = figures.draw_all(results, spec)
    figures.write(folder / "figures", drawn)
    io.write_text(folder / "report.md", documents.markdown(results, spec, about.config, folder / "figures"))
    io.write_text(folder / "tables.tex", "\n".join(map(documents.latex, documents.all_grids(results, spec))))
    if states:
        verdicts_csv.write(folder / "verdicts.csv", states)
    found = replies.of_run(states, results.seeds[0] if results.seeds else None)
    path = folder / "report.html"
    io.write_text(path, render(results, spec, about, *found, drawn))
    return path
