"""The three pictures of a report drawn on matplotlib's axes: states, categories, trajectories.

Each returns its drawing, or None where the results hold nothing for it. Each point is one measurement as it stands in
results.json; where a category has figures of single seeds only, all are drawn, and their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from alignment_core.evaluation.metrics import Metric
from alignment_core.evaluation.results import Measurement, Results
from alignment_core.report.lettering import (
    INK,
    MARKERS,
    PALETTE,
    Point,
    error,
    label,
    right_labels,
    write_values,
)
from alignment_core.report.spec import FigureKind, FigureSpec, ReportSpec, SubjectSpec

Drawer = Callable[[Results, ReportSpec, FigureSpec], Any | None]
_AXES = {"step": "training step"}


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _rate_axis(ax: Any) -> None:
    ax.set_ylim(-0.02, 1.02)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])


def _score_axis(ax: Any) -> None:
    """The data's own range, with space for the figures beside the points."""
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def states(results: Results, spec: ReportSpec, figure: FigureSpec) -> Any | None:
    """Subjects from left to right, one series a metric, the interval at each point, seeds as faint dots."""
    subjects, metrics = _chosen(results, spec, figure)
    if not subjects or not metrics:
        return None
    drawn, ax = _canvas(max(6.2, 1.35 * len(subjects) + 2.6), 3.9)
    ends: list[tuple[float, float, int]] = []
    columns: list[list[Point]] = [[] for _ in subjects]
    for k, metric in enumerate(metrics):
        offset = (k - (len(metrics) - 1) / 2) * 0.1
        points = [(i, m) for i, s in enumerate(subjects) if (m := _point(results, metric, s)) is not None]
        if figure.ordered and len(points) > 1:
            line = [(i + offset, m.value) for i, m in points]
            ax.plot(*zip(*line, strict=True), color=PALETTE[k % 6], linewidth=1.1, alpha=0.45, zorder=2)
        for i, m in points:
            seeds = [one for one in results.over_seeds(metric.key, subjects[i].key) if one is not m]
            _one_state(ax, i + offset, float(m.value or 0), m, seeds, k)
        values = [float(m.value or 0) for _, m in points]
        for place, (i, m) in enumerate(points):
            after = values[place + 1] if figure.ordered and place + 1 < len(values) else None
            columns[i].append(Point(i + offset, values[place], after, m, k, metric.digits))
        ends += [(len(subjects) - 0.5, values[-1], k)] if points else []
    if all(m.rate for m in metrics):
        _rate_axis(ax)
    else:
        _score_axis(ax)
    for column in columns:
        write_values(ax, column)
    ax.set_xlim(-0.5, len(subjects) - 0.5)
    if len(metrics) > 1:
        right_labels(ax, ends, [m.label for m in metrics])
    else:
        ax.set_ylabel(label(metrics[0].label, 60))
    ax.set_xticks(range(len(subjects)), [label(s.label, 18) for s in subjects])
    ax.grid(True, axis="y")
    ax.spines["left"].set_visible(False)
    return drawn


def _one_state(ax: Any, x: float, value: float, m: Measurement, seeds: Sequence[Measurement], k: int) -> None:
    """A point, its interval, and the single seeds faintly to the left."""
    color = PALETTE[k % 6]
    found = [one.value for one in seeds if one.value is not None]
    ax.plot([x - 0.045] * len(found), found, "o", color=color, alpha=0.35, markersize=2.6, mew=0, zorder=2)
    below, above = error(m, value)
    ax.errorbar(x, value, [[below], [above]], color=color, linewidth=1.7, zorder=3)
    ax.plot(x, value, MARKERS[k % 6], color=color, markersize=6, mec="#ffffff", mew=0.6, zorder=4)


def _point(results: Results, metric: Metric, subject: SubjectSpec) -> Measurement | None:
    found = results.headline(metric.key, subject.key)
    return found if found is not None and found.value is not None else None


def _chosen(results: Results, spec: ReportSpec, figure: FigureSpec) -> tuple[list[SubjectSpec], list[Metric]]:
    subjects = [spec.subject(k) for k in figure.subjects] or [s for s in spec.subjects if not s.control]
    metrics = [spec.metric(k) for k in figure.metrics] or [m for m in spec.metrics if m.rate][:4]
    return [s for s in subjects if any(m.subject == s.key for m in results.measurements)], metrics


def categories(results: Results, spec: ReportSpec, figure: FigureSpec) -> Any | None:
    """Categories down, one point a subject with its interval; ordered by the first subject's value."""
    subjects, metrics = _chosen(results, spec, figure)
    axis, metric = figure.axis, metrics[0].key
    placed = {s.key: by_place(results, metric, s.key, axis) for s in subjects}
    subjects = [s for s in subjects if placed[s.key]]
    if not subjects:
        return None
    first = placed[subjects[0].key]
    names = sorted({c for s in subjects for c in placed[s.key]}, key=lambda c: (middle(first.get(c, ())), c))
    drawn, ax = _canvas(6.8, 0.9 + 0.44 * len(names))
    step = 0.62 / max(len(subjects), 2)
    for k, subject in enumerate(subjects):
        offset = ((len(subjects) - 1) / 2 - k) * step
        for row, name in enumerate(names):
            if found := placed[subject.key].get(name):
                _one_category(ax, row + offset, found, k)
    for row in range(1, len(names)):
        ax.axhline(row - 0.5, color="#e9ecef", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(names)), [label(n) for n in names])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
    ax.grid(True, axis="x")
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label(metrics[0].label, 80))
    _legend(ax, subjects)
    return drawn


def by_place(results: Results, metric: str, subject: str, axis: str) -> dict[str, list[Measurement]]:
    """The figure at each place, over the seeds; where there is none, those of the single seeds."""
    found = results.along(metric, subject, axis)
    each = [found] if found else [results.along(metric, subject, axis, seed) for seed in results.seeds]
    out: dict[str, list[Measurement]] = {}
    for m in (m for one in each for m in one if m.value is not None):
        out.setdefault(str(m.at[axis]), []).append(m)
    return out


def _one_category(ax: Any, y: float, found: Sequence[Measurement], k: int) -> None:
    """A figure with its interval; of several seeds each seed's point, and their mean over the range they span."""
    values, color = [float(m.value or 0) for m in found], PALETTE[k % 6]
    middle = sum(values) / len(values)
    if len(found) > 1:
        ax.plot([min(values), max(values)], [y, y], color=color, linewidth=1.2, alpha=0.55, zorder=2)
        ax.plot(values, [y] * len(values), "o", color=color, alpha=0.35, markersize=2.6, mew=0, zorder=2)
    else:
        below, above = error(found[0], middle)
        ax.errorbar(middle, y, xerr=[[below], [above]], color=color, linewidth=1.2, alpha=0.55, zorder=2)
    ax.plot(middle, y, MARKERS[k % 6], color=color, markersize=5, mec="#ffffff", mew=0.7, zorder=3)


def _legend(ax: Any, subjects: Sequence[SubjectSpec]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=PALETTE[k % 6], marker=MARKERS[k % 6], mec="#ffffff", mew=0.7, linewidth=1.2, markersize=6)
        for k in range(len(subjects))
    ]
    ax.legend(
        handles,
        [label(s.label, 18) for s in subjects],
        labelcolor=[PALETTE[k % 6] for k in range(len(subjects))],
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=min(4, len(subjects)),
        frameon=False,
        borderaxespad=0.2,
        handletextpad=0.4,
        columnspacing=1.4,
    )


def middle(found: Sequence[Measurement]) -> float:
    return sum(float(m.value or 0) for m in found) / len(found) if found else -1.0


def trajectory(results: Results, spec: ReportSpec, figure: FigureSpec) -> Any | None:
    """A quantity along `axis` (a number), one line a subject, the interval as a band, names at the right ends."""
    subjects, metrics = _chosen(results, spec, figure)
    drawn, ax = _canvas(7.2, 3.9)
    ends: list[tuple[float, float, int]] = []
    steps: set[float] = set()
    for k, subject in enumerate(subjects):
        found = results.along(metrics[0].key, subject.key, figure.axis)
        path = [(float(m.at[figure.axis] or 0), m) for m in found if m.value is not None and _numeric(m, figure.axis)]
        path.sort(key=lambda pair: pair[0])
        if not path:
            continue
        x, values = [p for p, _ in path], [float(m.value or 0) for _, m in path]
        lows = [v - error(m, v)[0] for (_, m), v in zip(path, values, strict=True)]
        highs = [v + error(m, v)[1] for (_, m), v in zip(path, values, strict=True)]
        ax.fill_between(x, lows, highs, color=PALETTE[k % 6], alpha=0.11, linewidth=0, zorder=1)
        ax.plot(x, values, "-", color=PALETTE[k % 6], linewidth=1.7, zorder=3)
        ax.plot(x, values, MARKERS[k % 6], color=PALETTE[k % 6], markersize=4.5, mec="#ffffff", mew=0.7, zorder=4)
        ends.append((x[-1], values[-1], k))
        steps |= set(x)
    if not ends:
        return None
    if metrics[0].rate:
        _rate_axis(ax)
    ax.grid(True, axis="y")
    _step_axis(ax, sorted(steps))
    right_labels(ax, ends, [s.label for s in subjects])
    ax.set_xlabel(label(_AXES.get(figure.axis, figure.axis.replace("_", " ")), 60))
    ax.set_ylabel(label(metrics[0].label, 60))
    ax.spines["left"].set_visible(False)
    return drawn


def _numeric(m: Measurement, axis: str) -> bool:
    return isinstance(m.at[axis], int | float)


def _step_axis(ax: Any, steps: Sequence[float]) -> None:
    """Steps that grow by factors stand on a logarithmic axis; a step 0 keeps its place before the others."""
    positive = [s for s in steps if s > 0]
    if len(positive) > 3 and positive[-1] / positive[0] >= 30:
        ax.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        shown = steps if len(steps) <= 9 else [*steps[: 1 + (0 in steps)], *positive[2::2]]
        ax.set_xticks(shown, [f"{s:g}" for s in shown])
        ax.minorticks_off()
        ax.set_xlim(steps[0] - 0.1 * positive[0], steps[-1] * 1.06)
    else:
        span = steps[-1] - steps[0] or 1.0
        ax.set_xlim(steps[0] - 0.01 * span, steps[-1] + 0.01 * span)
        if len(steps) <= 12 and all(s.is_integer() for s in steps):
            ax.set_xticks(steps, [f"{s:g}" for s in steps])


DRAW: dict[FigureKind, Drawer] = {"states": states, "categories": categories, "trajectory": trajectory}
