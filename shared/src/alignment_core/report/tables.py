"""Tables as plain grids of text, and the terminal's view of them.

`rates`, `comparisons`, `agreements` and `verdicts` decide what every output says; each output escapes for its own
syntax. A figure reads `0.55 [0.48, 0.62] n=200 (0 missing)`; beside every difference that is not significant stands
the smallest one that this n could have shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from alignment_core.evaluation.results import Comparison, Hypothesis, Measurement, Results
from alignment_core.records import Kind
from alignment_core.report.spec import MetricSpec, ReportSpec, SubjectSpec, TableSpec
from alignment_core.text import number, p_value, visible

MISSING_WARNING = 0.05
"""Share of missing verdicts above which a warning is printed."""
VERDICT_WORDS = {w: w for w in ("supported", "contradicted", "inconclusive", "not tested")}


@dataclass(frozen=True)
class Cell:
    """Text of a cell: the figure, and under it what it rests on. `kind` says whose replies are behind it."""

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
    numeric: tuple[bool, ...] = field(default=())
    """Which columns hold figures (set to the right)."""


def interval(m: Measurement | Comparison, digits: int = 2, *, signed: bool = False) -> str:
    """`0.55 [0.48, 0.62]`; without brackets where there is no interval."""
    value = m.value if isinstance(m, Measurement) else m.difference
    if m.low is None and m.high is None:
        return number(value, digits, signed=signed)
    ends = f"{number(m.low, digits, signed=signed)}, {number(m.high, digits, signed=signed)}"
    return f"{number(value, digits, signed=signed)} [{ends}]"


def cell(m: Measurement | None, metric: MetricSpec, seeds: int = 0) -> Cell:
    """A measurement's cell; an n that counts training seeds (of `seeds`) or layers says so."""
    if m is None:
        return Cell("not measured")
    n = "n/a" if m.n is None else str(m.n)
    if m.seed is None and m.method == "t" and m.n == seeds > 1:
        n += " seeds"
    if m.method.endswith("layers"):
        n += " layers"
    return Cell(interval(m, metric.digits), f"n={n} ({m.missing} missing)", metric.kind, m.subject)


def with_arrow(metric: MetricSpec) -> str:
    """A metric's name with the way that is good."""
    return metric.label + {"high": " ↑", "low": " ↓", None: ""}[metric.better]


def _chosen(results: Results, spec: ReportSpec, table: TableSpec) -> tuple[list[SubjectSpec], list[MetricSpec]]:
    subjects = [spec.subject(k) for k in table.subjects] if table.subjects else list(spec.subjects)
    metrics = [spec.metric(k) for k in table.metrics] if table.metrics else list(spec.metrics)
    at_all = {(m.metric, m.subject) for m in results.measurements}
    subjects = [s for s in subjects if any((m.key, s.key) in at_all for m in metrics)]
    return subjects, [m for m in metrics if any((m.key, s.key) in at_all for s in subjects)]


def rates(results: Results, spec: ReportSpec, table: TableSpec) -> Grid:
    """Subjects down, metrics across: figures over the seeds, or of the only seed. What nothing measured is left out."""
    subjects, metrics = _chosen(results, spec, table)
    found = {(s.key, m.key): results.headline(m.key, s.key) for s in subjects for m in metrics}
    metrics = [m for m in metrics if any(found[s.key, m.key] for s in subjects)]
    rows = tuple(
        (Cell(s.label), *(_over_seeds(results, found[s.key, m.key], m, s) for m in metrics))
        for s in subjects
        if any(found[s.key, m.key] for m in metrics)
    )
    columns = ("", *(with_arrow(m) for m in metrics))
    return Grid(table.title, columns, rows, table.note, (False, *(True for _ in metrics)))


def _over_seeds(results: Results, m: Measurement | None, metric: MetricSpec, subject: SubjectSpec) -> Cell:
    if m is None and results.over_seeds(metric.key, subject.key):
        return Cell("see each seed")
    return cell(m, metric, len(results.seeds))


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
    columns = ("", "seed", *(with_arrow(m) for m in metrics))
    return Grid(f"{table.title}: each seed", columns, tuple(rows), "", (False, True, *(True for _ in metrics)))


def shown_comparisons(results: Results, spec: ReportSpec) -> list[Comparison]:
    """The comparisons a report shows: the spec's, else all that are over the seeds (or of the only one)."""
    if spec.comparisons:
        found = (results.comparison(c.metric, c.a, c.b) for c in spec.comparisons)
        return [c for c in found if c is not None]
    whole = [c for c in results.comparisons if not any(v is not None for v in c.at.values())]
    return [c for c in whole if c.seed is None or len(results.seeds) == 1]


def reading(c: Comparison, digits: int = 2) -> str:
    """What a comparison says, in words: never "no difference" without what the n could have shown."""
    if c.margin is not None:
        said = {True: "shown", False: "not shown", None: "see its hypothesis"}[c.significant]
        words = f"margin {c.margin:g}: {said}"
    elif c.significant is None:
        return "undefined"
    else:
        words = "significant" if c.significant else "not significant"
    if c.significant:
        return words
    return f"{words}; smallest difference this n could show: {number(c.detectable, digits)}"


def _rests_on(c: Comparison) -> str:
    parts = [f"n={'n/a' if c.n_prompts is None else c.n_prompts}"]
    if c.n_clusters is not None and c.n_clusters != c.n_prompts:
        parts.append(f"{c.n_clusters} clusters")
    if c.n_seeds is not None:
        parts.append(f"{c.n_seeds} seed{'' if c.n_seeds == 1 else 's'}")
    return ", ".join(parts)


_RANK = {"primary": 0, "control": 1, "exploratory": 2}
_DIFFERENCES = ("difference", "paired interval", "p", "p adjusted", "n", "reading")
ADJUSTED = "p adjusted: Holm over the primary tests named before the run; everything else is exploratory."


def _by_signs(c: Comparison) -> bool:
    """Adjusted over its family by flipping the seeds' signs, not by Holm."""
    return c.p_adjusted is not None and "max-T" in (c.family or "")


def _difference(c: Comparison, spec: ReportSpec) -> tuple[Cell, ...]:
    """One comparison's row, its role apart. A difference has a digit more than its metric: it is smaller."""
    metric = spec.metric(c.metric)
    digits = metric.digits + 1
    return (
        Cell(f"{spec.subject(c.b).label} − {spec.subject(c.a).label}", metric.label),
        Cell(interval(c, digits, signed=True), f"{c.method}, {c.estimand}"),
        Cell(p_value(c.p)),
        Cell(p_value(c.p_adjusted), "max-T" if _by_signs(c) else ""),
        Cell(_rests_on(c)),
        Cell(reading(c, digits)),
    )


def comparisons(results: Results, spec: ReportSpec, *, exploratory: bool = True) -> Grid:
    """The paired differences, primaries first, then controls. Without `exploratory` the rest is only counted."""
    shown = sorted(shown_comparisons(results, spec), key=lambda c: _RANK[c.role])
    named = [c for c in shown if c.role != "exploratory"]
    left = 0 if exploratory or not named else len(shown) - len(named)
    rows = []
    for c in named if left else shown:
        *figures, said = _difference(c, spec)
        rows.append((*figures, Cell(c.role, said.text)))
    note = ADJUSTED + (f" Exploratory differences in the report: {left}." if left else "")
    return Grid("Differences", _DIFFERENCES, tuple(rows), note, (False, True, True, True, True, False))


def by_role(results: Results, spec: ReportSpec) -> dict[str, Grid]:
    """The same differences as one grid a role; the column of adjusted p-values stands where there is one."""
    shown = shown_comparisons(results, spec)
    grids = {}
    for role in _RANK:
        mine = [c for c in shown if c.role == role]
        numeric = (False, True, True, True, True, False)
        kept = [i for i in range(len(numeric)) if i != 3 or any(c.p_adjusted is not None for c in mine)]
        rows = tuple(tuple(row[i] for i in kept) for row in (_difference(c, spec) for c in mine))
        note = ADJUSTED if role == "primary" else ""
        columns = tuple(_DIFFERENCES[i] for i in kept)
        grids[role] = Grid(role, columns, rows, note, tuple(numeric[i] for i in kept))
    return {role: grid for role, grid in grids.items() if grid.rows}


def agreements(results: Results) -> Grid | None:
    """Cohen's kappa of every two judges; None where there was one judge."""
    if not results.agreements:
        return None
    rows = []
    for a in results.agreements:
        ends = "" if a.low is None else f" [{number(a.low)}, {number(a.high)}]"
        rows.append((Cell(f"{a.a} and {a.b}"), Cell(number(a.kappa) + ends), Cell(str(a.n))))
    return Grid("Agreement of the judges", ("judges", "Cohen's kappa", "n"), tuple(rows), "", (False, True, True))


def other_judges(results: Results, spec: ReportSpec) -> list[Grid]:
    """What the judges beside the deciding one said: the first table's metrics, one grid a judge."""
    judges = dict.fromkeys(str(m.at["judge"]) for m in results.measurements if m.at.get("judge") is not None)
    subjects, metrics = _chosen(results, spec, spec.tables[0] if spec.tables else TableSpec(""))
    grids = []
    for judge in judges:
        said = {(m.key, s.key): results.headline(m.key, s.key, {"judge": judge}) for m in metrics for s in subjects}
        kept = [m for m in metrics if any(said[m.key, s.key] for s in subjects)]
        rows = tuple((Cell(s.label), *(cell(said[m.key, s.key], m) for m in kept)) for s in subjects)
        columns = ("", *(with_arrow(m) for m in kept))
        if kept:
            grids.append(Grid(f"The same replies by {judge}", columns, rows, "", (False, *(True for _ in kept))))
    return grids


def corrected(results: Results, spec: ReportSpec) -> Grid | None:
    """Figures by another estimator than the raw share (corrected for the detector's error, bounds); None if none."""
    rows = [
        (
            Cell(spec.subject(m.subject).label, _seed(m.seed).removeprefix(", ")),
            Cell(metric.label),
            Cell(m.estimator),
            made,
        )
        for m in results.measurements
        if m.estimator != "raw" and not any(v is not None for v in m.at.values())
        for metric in [spec.metric(m.metric)]
        for made in [cell(m, metric)]
    ]
    columns = ("", "of", "estimator", "figure")
    return Grid("Other estimates of the same", columns, tuple(rows), "", (False, False, False, True)) if rows else None


def verdict_line(h: Hypothesis) -> str:
    """`H1 shown: the claim. Because ...`."""
    claim = h.claim.rstrip(".")
    return f"{h.name} {VERDICT_WORDS[h.verdict]}: {claim}. {h.because}".rstrip()


def headline(results: Results, spec: ReportSpec) -> str:
    """The verdict in one sentence."""
    if spec.headline is not None:
        return spec.headline(results)
    if not results.hypotheses:
        return "This run decides no hypothesis: its figures are descriptive."
    parts = []
    for verdict, word in VERDICT_WORDS.items():
        names = [h.name for h in results.hypotheses if h.verdict == verdict]
        if names:
            parts.append(f"{', '.join(names)} {word}")
    return f"Of {len(results.hypotheses)} hypotheses written before the run: {'; '.join(parts)}."


def warnings(results: Results, spec: ReportSpec) -> list[str]:
    """What a reader must know before believing a figure, one line each."""
    return [*_missing(results, spec), *_uneven(results, spec), *_few_seeds(results)]


def _missing(results: Results, spec: ReportSpec) -> Iterator[str]:
    """One line for each state and seed: the metrics of one kind share their verdicts, so the first speaks for all."""
    told = set()
    for metric in spec.metrics:
        for m in (m for m in results.measurements if m.metric == metric.key and m.estimator == "raw"):
            what = (metric.kind or metric.key, m.subject, m.seed)
            if any(v is not None for v in m.at.values()) or m.missing_share <= MISSING_WARNING or what in told:
                continue
            told.add(what)
            total = (m.n or 0) + m.missing
            line = f"{m.missing_share:.0%} missing in {metric.label} of {spec.subject(m.subject).label}{_seed(m.seed)}"
            if metric.rate and m.value is not None and m.n:
                k = m.value * m.n
                line += f": between {number(k / total)} and {number((k + m.missing) / total)} with every one either way"
            yield line


def _uneven(results: Results, spec: ReportSpec) -> Iterator[str]:
    told = set()
    for metric in spec.metrics:
        found = [m for s in spec.subjects if (m := results.headline(metric.key, s.key)) is not None]
        counts = {spec.subject(m.subject).label: m.missing for m in found}
        if len(set(counts.values())) < 2 or (metric.kind or metric.key) in told:
            continue
        told.add(metric.kind or metric.key)
        low, high = min(counts.items(), key=lambda kv: kv[1]), max(counts.items(), key=lambda kv: kv[1])
        yield f"{metric.label}: missing differs between states, {low[1]} of {low[0]} and {high[1]} of {high[0]}"


def _few_seeds(results: Results) -> Iterator[str]:
    if len(results.seeds) == 1:
        yield "One training seed: the differences are about these checkpoints, not about the recipe."


def _seed(seed: int | None) -> str:
    return "" if seed is None else f", seed {seed}"


def all_grids(results: Results, spec: ReportSpec, *, seeds: bool = False) -> list[Grid]:
    """Every table of a report in order; with `seeds` also the figures of the single seeds."""
    grids: list[Grid | None] = [rates(results, spec, t) for t in spec.tables]
    grids += [comparisons(results, spec), corrected(results, spec), agreements(results)]
    grids += other_judges(results, spec)
    if seeds:
        grids += [each_seed(results, spec, t) for t in spec.tables]
    return [g for g in grids if g is not None and g.rows]


def rich_table(grid: Grid) -> Table:
    """A grid for the terminal. Nothing in it is markup, and nothing steers the terminal."""
    title = Text(visible(grid.title), style="bold")
    table = Table(title=title, title_justify="left", caption_justify="left", pad_edge=False, box=box.SIMPLE_HEAD)
    table.caption = Text(visible(grid.note), style="dim") if grid.note else None
    numeric = grid.numeric or tuple(False for _ in grid.columns)
    for name, right in zip(grid.columns, numeric, strict=True):
        table.add_column(Text(visible(name)), justify="right" if right else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(_rich_cell(c) for c in row))
    return table


def _rich_cell(c: Cell) -> Text:
    text = Text(visible(c.text))
    if c.under:
        text.append("\n" + visible(c.under), style="dim")
    return text


_STYLES = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not tested": "yellow"}


def terminal(results: Results, spec: ReportSpec) -> RenderableType:
    """What a run prints at its end: tables, verdicts, warnings."""
    parts: list[RenderableType] = [Text(visible(spec.title), style="bold")]
    if spec.question:
        parts.append(Text(visible(spec.question)))
    grids = [rates(results, spec, t) for t in spec.tables if t.terminal]
    grids += [g for g in (comparisons(results, spec, exploratory=False), agreements(results)) if g is not None]
    for grid in (g for g in grids if g.rows):
        parts += [Text(), rich_table(grid)]
    if results.hypotheses:
        parts.append(Text())
    parts += [Text(visible(verdict_line(h)), style=_STYLES[h.verdict]) for h in results.hypotheses]
    parts += [Text("Warning: " + visible(w), style="yellow") for w in warnings(results, spec)]
    parts.append(Text(visible(headline(results, spec)), style="bold"))
    return Group(*parts)


def terminal_text(results: Results, spec: ReportSpec, width: int = 140) -> str:
    """The same as plain text, `width` columns wide, without colour."""
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(terminal(results, spec))
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
