"""The one figure the core has no kind for: the distribution of the final change of single weights, by group."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from alignment_core.report import figures
from alignment_core.report.lettering import INK, PALETTE
from neuron_brittleness.measured import Drift

NAME = "drift_distributions"
_KEYS = {"whislo": "min", "q1": "q25", "med": "median", "q3": "q75", "whishi": "max", "mean": "mean"}


def boxes(drift: Drift, arm: str) -> list[dict[str, Any]]:
    """Quartiles, extremes and mean of each group's final |change|, averaged over the seeds."""
    final = [measured[-1]["metrics"]["absolute_change"] for measured in drift.arms.get(arm, {}).values()]
    groups = final[0] if final else {}
    return [
        {"label": g, "fliers": [], **{ours: float(np.mean([f[g][key] for f in final])) for ours, key in _KEYS.items()}}
        for g in groups
    ]


def write(folder: Path, drift: Drift) -> list[Path]:
    """Write `drift_distributions.svg` and `.png`: one row of boxes an arm, the ends at the extremes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    arms = [arm for arm in drift.arms if boxes(drift, arm)]
    if not arms:
        return []
    with rc_context({"svg.hashsalt": NAME, "svg.fonttype": "none", "text.color": INK}):
        drawn = Figure(figsize=(7.2, 1.0 + 2.2 * len(arms)), layout="constrained")
        for i, arm in enumerate(arms):
            ax = drawn.add_subplot(len(arms), 1, i + 1)
            here = boxes(drift, arm)
            parts = ax.bxp(here, orientation="horizontal", showmeans=True, showfliers=False, patch_artist=True)
            for k, box in enumerate(parts["boxes"]):
                box.set(facecolor=PALETTE[k % len(PALETTE)], alpha=0.5)
            ax.set_title(arm.replace("_", " "), loc="left", fontsize=10)
            ax.set_xlabel("|change| of a weight at the last step (box: quartiles, line: median, triangle: mean)")
            ax.spines[["top", "right"]].set_visible(False)
        svg, png = BytesIO(), BytesIO()
        drawn.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        drawn.savefig(png, format="png", dpi=150, metadata={"Software": None})
    folder.mkdir(exist_ok=True)
    return figures.write(folder, {NAME: (svg.getvalue().decode("utf-8"), png.getvalue())})
