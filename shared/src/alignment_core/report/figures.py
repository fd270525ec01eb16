"""Figures from results.json: SVG for the page and for print, PNG for everything else.

matplotlib is imported when a figure is drawn, through its objects: no global state of pyplot. The same results give
the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.evaluation.results import Results
from alignment_core.report.lettering import INK, QUIET, RULE, label
from alignment_core.report.plots import DRAW
from alignment_core.report.spec import FigureSpec, ReportSpec

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e9ecef",
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "svg.fonttype": "none",
    "svg.hashsalt": "alignment-core",
    "figure.facecolor": "#ffffff",
    "savefig.facecolor": "#ffffff",
}


@contextmanager
def styled() -> Iterator[None]:
    """Our settings for one drawing; a letter the font lacks is drawn as a box, which is no reason to stop."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def how_to_read(figure: FigureSpec, results: Results) -> str:
    """What the points, bars and bands of a drawing are, in words."""
    seeds = len(results.seeds)
    over = f" over {seeds} training seeds" if seeds > 1 else ""
    if figure.kind == "trajectory":
        return f"Lines: estimates{over}; bands: 95% CI, where there is one."
    if figure.kind == "states":
        return f"Points: estimates{over}; bars: 95% CI" + ("; faint dots: single seeds." if over else ".")
    single = "; beside faint dots, which are single seeds: the seeds' mean and range" if over else ""
    return f"Points: estimates; bars: 95% CI{single}."


def caption(figure: FigureSpec, results: Results) -> str:
    """The figure's own caption, then how to read it."""
    return f"{figure.caption} {how_to_read(figure, results)}".strip()


def draw(results: Results, spec: ReportSpec, figure: FigureSpec) -> tuple[str, bytes] | None:
    """SVG text and PNG bytes of one figure; None where the results hold nothing for it."""
    with styled():
        drawn = DRAW[figure.kind](results, spec, figure)
        if drawn is None:
            return None
        ax = drawn.axes[0]
        above = 26 if figure.kind == "categories" else 10
        ax.set_title(label(figure.title, 90), loc="left", fontsize=11, fontweight="bold", pad=above, color=INK)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        svg, png = BytesIO(), BytesIO()
        about = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(drawn).print_figure(svg, format="svg", metadata=about, bbox_inches="tight", pad_inches=0.12)
        FigureCanvasAgg(drawn).print_figure(
            png, format="png", metadata={"Software": None}, dpi=200, bbox_inches="tight", pad_inches=0.12
        )
    return svg.getvalue().decode("utf-8"), png.getvalue()


Drawn = dict[str, tuple[str, bytes]]
"""SVG text and PNG bytes of each figure, by its name."""


def draw_all(results: Results, spec: ReportSpec) -> Drawn:
    """Every figure of the report that the results hold something for."""
    drawn = ((f.name, draw(results, spec, f)) for f in spec.figures)
    return {name: found for name, found in drawn if found is not None}


def write(folder: Path, drawn: Drawn) -> list[Path]:
    """Write `<name>.svg` and `<name>.png` of each figure into `folder`; returns the files."""
    written = []
    for name, (vector, pixels) in drawn.items():
        svg, png = folder / f"{name}.svg", folder / f"{name}.png"
        io.write_text(svg, vector)
        with io.atomic(png) as stream:
            stream.buffer.write(pixels)
        written += [svg, png]
    return written
