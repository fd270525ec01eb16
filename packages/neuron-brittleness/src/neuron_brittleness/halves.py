"""Scores of one model state made into groups: one pass over utility data, one over safety data, masks kept.

Files of a half (`a/`, `b/`): `neuron_groups_<group>.safetensors`, `cells.safetensors` (the |W| and Wanda deciles of
each weight), `summary.json` (sizes, overlaps, mean scores by matrix) and, for the original's readers,
`neuron_groups_<group>.json`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.pipeline.writers import rank_zero_only
from alignment_core.records import Example
from neuron_brittleness import groups, losses, matching, scores
from neuron_brittleness.arms import GROUPS, MATCHED, ORIGINAL
from neuron_brittleness.groups import Group
from neuron_brittleness.matrices import Matrix, matrices

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded
    from neuron_brittleness.config import BrittlenessConfig

log = logging.getLogger(__name__)


class _Json:
    """Streams groups in the original's JSON, a matrix at a time."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.files: dict[str, TextIO] = {}
        self.first = dict.fromkeys(names, True)
        self._open(folder)

    @rank_zero_only
    def _open(self, folder: Path) -> None:
        self.files = {name: (folder / f"neuron_groups_{name}.json").open("w") for name in self.first}

    def add(self, name: str, matrix: Matrix, mask: groups.Mask, values: Tensor) -> None:
        if name in self.files:
            lead = "{" if self.first[name] else ",\n"
            self.first[name] = False
            row = json.dumps(groups.original_rows(mask, values))
            self.files[name].write(f"{lead}{json.dumps(matrix.original_key)}: {row}")

    def close(self) -> None:
        for file in self.files.values():
            file.write("}\n")
            file.close()


def score_half(
    config: BrittlenessConfig, loaded: Loaded, safety: Sequence[Example], utility: Sequence[Example], folder: Path,
    *, controls: bool = True,
) -> dict[str, Group]:  # fmt: skip
    """Score a model on one half of the data and write its groups; `controls` adds the random ones and the cells.

    Raises `UserError` where the base (`controls`) has no safety-critical weight: there is nothing to freeze.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings, seed = config.score, config.data.split_seed
    found = matrices(loaded.model)
    budget = None if settings.memory_gb is None else int(settings.memory_gb * 1e9)
    shared = {"budget": budget, "checkpointing": settings.checkpointing}
    made = {name: Group(name) for name in (GROUPS if controls else ORIGINAL[:3])}
    useful, means = Group("utility_p"), dict[str, dict[str, float]]()
    export = _Json(folder, ORIGINAL if settings.export_json and controls else ())
    data = losses.rows(loaded.tokenizer, utility, settings.max_length)
    for matrix, got in scores.score(loaded.model, found, data, (settings.method,), **shared):  # type: ignore[arg-type]
        value = got[settings.method]
        useful.take(matrix.name, value, settings.p, settings.unit)
        made["top_utility"].take(matrix.name, value, settings.k, settings.unit)
        _note(made["top_utility"], matrix, value, means, export)
    cells: dict[str, NDArray[np.uint8]] = {}
    exact: dict[str, list[float]] = {}
    data = losses.rows(loaded.tokenizer, safety, settings.max_length)
    methods: tuple[scores.Method, ...] = tuple(dict.fromkeys((settings.method, *(("wanda",) if controls else ()))))
    for matrix, got in scores.score(loaded.model, found, data, methods, **shared):  # type: ignore[arg-type]
        value = got[settings.method]
        critical = groups.select(value, settings.q, settings.unit) & ~useful.mask(matrix.name)
        made["set_diff"].put(matrix.name, critical)
        made["top_safety"].take(matrix.name, value, settings.k, settings.unit)
        _note(made["set_diff"], matrix, value, means, export)
        _note(made["top_safety"], matrix, value, means, export)
        if controls:
            made["random"].put(matrix.name, matching.uniform(matrix, settings.k, seed))
            _note(made["random"], matrix, value, means, export)
            code = matching.strata(matrix.effective(torch.float32), got["wanda"])
            cells[matrix.name] = code.astype(np.uint8)
            for group, name in MATCHED.items():
                mask, share = matching.matched(made[group].mask(matrix.name), code, matrix.name, seed)
                made[name].put(matrix.name, mask)
                exact.setdefault(name, []).append(share)
    export.close()
    if controls and made["set_diff"].size() == 0:
        raise UserError(
            f"the set difference S(q={settings.q:g}) \\ U(p={settings.p:g}) is empty: {settings.method} ranks safety "
            "and utility alike; raise score.q, lower score.p, or score by snip"
        )
    for one in made.values():
        one.about = settings.model_dump(mode="json")
    _write(folder, made, cells, means, exact, {m.name: m.layer for m in found})
    return made


def _note(group: Group, matrix: Matrix, value: Tensor, means: dict[str, dict[str, float]], export: _Json) -> None:
    """What the group holds of a matrix: its mean score, and a row of the export for each weight."""
    mask = group.mask(matrix.name)
    inside = value[torch.as_tensor(mask, device=value.device)]
    means.setdefault(group.name, {})[matrix.name] = float(inside.double().mean()) if len(inside) else 0.0
    export.add(group.name, matrix, mask, value)


@rank_zero_only
def _write(
    folder: Path, made: dict[str, Group], cells: dict[str, NDArray[np.uint8]],
    means: dict[str, dict[str, float]], exact: dict[str, list[float]], layer: dict[str, int],
) -> None:  # fmt: skip
    from safetensors.numpy import save_file

    for group in made.values():
        group.save(folder / f"neuron_groups_{group.name}.safetensors")
    if cells:
        save_file(cells, str(folder / "cells.safetensors"))
    table = groups.sizes(made)
    for line in table:
        if "group" in line:
            log.debug("group %s: %d weights (%.2f%%)", line["group"], line["weights"], 100 * line["share"])
        elif not line["b"].endswith("_matched"):
            log.debug("overlap %s, %s: %d, Jaccard %.3f", line["a"], line["b"], line["overlap"], line["jaccard"] or 0.0)
    matched = {name: float(np.mean(shares)) for name, shares in exact.items()}
    for name, share in matched.items():
        log.debug("%s: %.1f%% matched in their own |W| and Wanda decile, the rest in the nearest", name, 100 * share)
    facts = {"sizes": table, "matched_exactly": matched, "mean_score": means, "layer": layer}
    io.write_json(folder / "summary.json", facts)
