"""Tables of paired differences: each with its own p and that test's name, and apart from it what decides a hypothesis.

A difference that is not significant says the smallest one that its n could have shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from alignment_core.evaluation.results import Comparison, Results
from alignment_core.report.spec import ReportSpec
from alignment_core.report.tables import WIDTH_ZERO, Cell, Grid, interval, width_zero
from alignment_core.text import number, p_value

_COLUMNS = ("difference", "paired interval", "p", "decision", "p adjusted", "n", "reading")
_NUMERIC = (False, True, True, False, True, False, False)
_ADJUSTED = "p adjusted: Holm over the primary tests named before the run; everything else is exploratory."
_ROLES = {
    "primary": "Primary: these decide the hypotheses",
    "control": "Controls",
    "exploratory": "Exploratory: no hypothesis rests on these",
}


def shown(results: Results, spec: ReportSpec) -> list[Comparison]:
    """The comparisons a report shows: the spec's, else all that are over the seeds (or of the only one)."""
    if spec.comparisons:
        found = (results.comparison(c.metric, c.a, c.b) for c in spec.comparisons)
        return [c for c in found if c is not None]
    whole = [c for c in results.comparisons if not any(v is not None for v in c.at.values())]
    return [c for c in whole if c.seed is None or len(results.seeds) == 1]


def reading(c: Comparison, digits: int = 2) -> str:
    """What a comparison says, in words: never "no difference" without what the n could have shown."""
    if width_zero(c):
        return WIDTH_ZERO
    if c.margin is not None and (c.decision is None or c.p_adjusted is None):
        words = f"against margin {c.margin:g}: see its hypothesis"
    elif c.significant is None:
        return "undefined"
    else:
        against = "" if c.margin is None else f"against margin {c.margin:g}: "
        words = f"{against}{'significant' if c.significant else 'not significant'}"
        if c.significant:
            return words
    return f"{words}; minimum detectable difference (80% power): {number(c.detectable, digits)}"


def _rests_on(c: Comparison) -> str:
    parts = [f"n={'n/a' if c.n_prompts is None else c.n_prompts}"]
    if c.n_clusters is not None and c.n_clusters != c.n_prompts:
        parts.append(f"{c.n_clusters} clusters")
    if c.n_seeds is not None:
        parts.append(f"{c.n_seeds} seed{'' if c.n_seeds == 1 else 's'}")
    return ", ".join(parts)


def _decision(c: Comparison) -> Cell:
    """The hypothesis that the comparison decides with the p of the test that decides it, whose name stands under."""
    if c.decision is None:
        return Cell("none")
    p = "" if c.decision_p is None else f": p {p_value(c.decision_p)}"
    return Cell(f"{c.decision}{p}", c.decision_test or "")


def _by_signs(c: Comparison) -> bool:
    """Adjusted over its family by flipping the seeds' signs, not by Holm."""
    return c.p_adjusted is not None and "max-T" in (c.family or "")


def _row(c: Comparison, spec: ReportSpec) -> tuple[Cell, ...]:
    """One comparison's row, its role apart. A difference has a digit more than its metric: it is smaller."""
    metric = spec.metric(c.metric)
    digits = metric.digits + 1
    return (
        Cell(f"{spec.subject(c.b).label} − {spec.subject(c.a).label}", metric.label),
        Cell(interval(c, digits, signed=True), c.method),
        Cell(p_value(c.p), c.test or ""),
        _decision(c),
        Cell(p_value(c.p_adjusted), "max-T" if _by_signs(c) else ""),
        Cell(_rests_on(c), f"inference: {c.estimand}"),
        Cell(reading(c, digits)),
    )


def _grid(title: str, found: Sequence[Comparison], spec: ReportSpec, note: str = "") -> Grid:
    """A row a comparison; the columns of decisions and adjusted p-values stand where there is one."""
    used = {3: any(c.decision is not None for c in found), 4: any(c.p_adjusted is not None for c in found)}
    kept = [i for i in range(len(_COLUMNS)) if used.get(i, True)]
    rows = tuple(tuple(row[i] for i in kept) for row in (_row(c, spec) for c in found))
    by_holm = any(c.p_adjusted is not None and not _by_signs(c) for c in found)
    note = f"{_ADJUSTED if by_holm else ''}{note}".strip()
    return Grid(title, tuple(_COLUMNS[i] for i in kept), rows, note, tuple(_NUMERIC[i] for i in kept))


def table(results: Results, spec: ReportSpec, *, exploratory: bool = True) -> Grid:
    """The paired differences, primaries first, then controls. Without `exploratory` the rest is only counted."""
    every = sorted(shown(results, spec), key=lambda c: list(_ROLES).index(c.role))
    named = [c for c in every if c.role != "exploratory"]
    kept = every if exploratory or not named else named
    left = len(every) - len(kept)
    made = _grid("Differences", kept, spec, f" Exploratory differences in the report: {left}." if left else "")
    rows = ((*row[:-1], Cell(c.role, row[-1].text)) for c, row in zip(kept, made.rows, strict=True))
    return replace(made, rows=tuple(rows))


def by_role(results: Results, spec: ReportSpec) -> dict[str, Grid]:
    """The same differences as one grid a role."""
    mine = {role: [c for c in shown(results, spec) if c.role == role] for role in _ROLES}
    return {role: _grid(_ROLES[role], found, spec) for role, found in mine.items() if found}
