"""Colours, markers and lettering of the figures: which texts stand where, so that none stands over another.

The colours differ for people with any colour vision, and each comes with a marker of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from alignment_core.evaluation.results import Measurement
from alignment_core.text import visible

INK, QUIET, RULE = "#1f2328", "#59636e", "#d5dae0"
PALETTE = ("#0067a5", "#b84a00", "#007a5a", "#a2457f", "#866500", "#4d5b6a")
"""Readable as text on white (contrast 4.5 or more)."""
MARKERS = ("o", "s", "D", "^", "v", "P")
LONGEST = 34
"""Characters of a label; longer ones are cut."""


def label(text: str, longest: int = LONGEST) -> str:
    """A name as a figure shows it: escaped, and cut where it is too long."""
    shown = visible(text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def spread(
    wanted: Sequence[float], gap: float, floor: float = float("-inf"), ceiling: float = float("inf")
) -> list[float]:
    """Positions at least `gap` apart within `floor` and `ceiling`, in the order of `wanted` and near to it: for labels.

    More labels than fit share the height equally, and only then overlap.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [min(max(wanted[i], floor), ceiling) for i in order]
    gap = min(gap, (ceiling - floor) / max(len(wanted) - 1, 1))
    for _ in range(200):
        short = [max(0.0, gap - (b - a)) for a, b in pairwise(placed)]
        if max(short, default=0.0) < 1e-9:
            break
        for i, missing in enumerate(short):
            placed[i] -= missing / 2
            placed[i + 1] += missing / 2
    for i in range(len(placed)):
        placed[i] = max(placed[i], floor if i == 0 else placed[i - 1] + gap - 1e-9)
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], ceiling if i == len(placed) - 1 else placed[i + 1] - gap + 1e-9)
    out = [0.0] * len(wanted)
    for i, position in zip(order, placed, strict=True):
        out[i] = position
    return out


def error(m: Measurement, value: float) -> tuple[float, float]:
    """How far the interval reaches below and above the point."""
    low = value if m.low is None else m.low
    high = value if m.high is None else m.high
    return max(0.0, value - low), max(0.0, high - value)


@dataclass(frozen=True)
class Point:
    """A drawn point whose figure is still to be written beside it."""

    x: float
    value: float
    after: float | None
    """The value its line goes to, to the right."""
    m: Measurement
    series: int
    digits: int


def write_values(ax: Any, column: Sequence[Point]) -> None:
    """The figures of the points of one column: none over another, none over a point or an interval."""
    low, high = (float(end) for end in ax.get_ylim())
    span = high - low
    floor, ceiling = low + 0.031 * span, high - 0.02 * span

    def beside(p: Point) -> float:
        """Away from the line that leaves the point to the right."""
        if p.after is None:
            return p.value
        return p.value + (-0.035 if p.after > p.value + 0.02 * span else 0.035) * span

    def crosses(p: Point, height: float) -> bool:
        below, above = error(p.m, p.value)
        return p.value - below - 0.035 * span < height < p.value + above + 0.035 * span

    heights = spread([beside(p) for p in column], 0.05 * span, floor, ceiling)
    for p, height in zip(column, heights, strict=True):
        x = max(other.x for other in column if other is p or (other.x > p.x and crosses(other, height)))
        text = f"{p.value:.{p.digits}f}"
        ax.text(x + 0.06, height, text, color=PALETTE[p.series % 6], va="center", fontsize=8.5)


def right_labels(ax: Any, ends: Sequence[tuple[float, float, int]], names: Sequence[str]) -> None:
    """Each series' name beside its end `(x, y, series)`, in its colour; near ones are pushed apart, a line leads there.

    The axis' limits must be set.
    """
    low, high = ax.get_ylim()
    span = high - low
    first, last = ax.get_xlim()
    across = ax.get_yaxis_transform()
    heights = spread([y for _, y, _ in ends], 0.07 * span, low, high)
    for (x, y, k), height in zip(ends, heights, strict=True):
        color = PALETTE[k % 6]
        if last - x > 0.05 * (last - first):
            ax.plot([x, last], [y, y], ":", color=color, linewidth=0.8, zorder=2)
        if abs(y - height) > 0.012 * span:
            ax.plot([1.006, 1.03], [y, height], color=color, linewidth=0.8, transform=across, clip_on=False)
        ax.text(
            1.036, height, label(names[k]), color=color, va="center", fontweight="bold", fontsize=9,
            transform=across, clip_on=False,
        )  # fmt: skip
