"""Experiment 1 on disk: how much of each group a tuned model shares with the base, against null and ceiling.

Writes, per group, `layerwise_<group>.json` and `layerwise_scores_<group>.json`, and one `aggregated_results.json`
under the original's names: overlap in percent, Jaccard, mean score ratio; beside them what the original lacks, the
permutation null and the ceiling of two scorings of the base itself.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core import io
from neuron_brittleness.arms import MATCHED
from neuron_brittleness.group_files import read_cells, read_group, read_summary

if TYPE_CHECKING:
    from neuron_brittleness.overlap import Overlap


def _json(found: Overlap) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(found).items()}


def compare(scored: Path, rescored: Path, draws: int, seed: int, folder: Path) -> None:
    """Overlap of the tuned model's half b with the base's half a, and of the base's own halves."""
    from neuron_brittleness import overlap

    cells = read_cells(scored)
    before, after = read_summary(scored, "a"), read_summary(rescored, "b")
    layer: dict[str, int] = before["layer"]
    totals: dict[str, Any] = {}
    for name in MATCHED:
        base = read_group(scored, "a", name)
        pairs = {
            "tuned": overlap.tallies(base, read_group(rescored, "b", name), cells),
            "ceiling": overlap.tallies(base, read_group(scored, "b", name), cells),
        }
        total = {kind: overlap.overlap(found, draws, seed) for kind, found in pairs.items()}
        layers = {kind: overlap.layers(found, layer, draws, seed) for kind, found in pairs.items()}
        single = {
            kind: {m: overlap.overlap({m: c}, draws, seed) for m, c in found.items()} for kind, found in pairs.items()
        }
        io.write_json(
            folder / f"layerwise_{name}.json",
            {
                "layers": {str(n): {kind: _json(layers[kind][n]) for kind in pairs} for n in layers["tuned"]},
                "matrices": {m: {kind: _json(single[kind][m]) for kind in pairs} | {"layer": layer[m]} for m in layer},
            },
        )
        means = {m: [before["mean_score"][name][m], after["mean_score"][name][m]] for m in layer}
        ratios = {m: new / old for m, (old, new) in means.items() if old > 0}
        rows = {m: {"base": b, "tuned": t, "ratio": ratios.get(m)} for m, (b, t) in means.items()}
        io.write_json(folder / f"layerwise_scores_{name}.json", rows)
        against = overlap.against(total["tuned"], total["ceiling"])
        totals[name] = {
            "overlap_percentage": None if math.isnan(total["tuned"].share) else 100 * total["tuned"].share,
            "jaccard_similarity": _json(total["tuned"])["jaccard"],
            "mean_score_ratio": sum(ratios.values()) / len(ratios) if ratios else None,
            "normalised": None if math.isnan(against) else against,
            **{kind: _json(found) for kind, found in total.items()},
        }
    io.write_json(folder / "aggregated_results.json", totals)
