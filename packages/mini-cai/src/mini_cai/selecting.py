"""What a selection step does: the rows that a policy takes by score, or the random control's, as files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.errors import UserError
from alignment_core.io import read_json, write_json, write_jsonl
from mini_cai import scored
from mini_cai import selection as choose
from mini_cai.rows import Row

if TYPE_CHECKING:
    from mini_cai.config import CaiConfig, Policy
    from mini_cai.scored import Scored

log = logging.getLogger(__name__)

SELECTED = "filtered_selected.json"


def _selected(config: CaiConfig, policy: Policy, pool: Sequence[Scored]) -> choose.Selected:
    settings, safe = config.selection, config.compare.safe_threshold
    if policy != "revised":
        return choose.select(policy, pool, settings, safe).included(settings.include)
    return choose.Selected(tuple(choose.row(s) for s in choose.usable(pool, settings, safe)))


def select(config: CaiConfig, policy: Policy, generated: Path, criticised: Path, folder: Path) -> None:
    """What a policy takes: filtered_selected.json, the SFT rows, and preference pairs where the policy has any."""
    found = _selected(config, policy, scored.read(generated, criticised))
    write_json(folder / SELECTED, [r.to_json() for r in found.rows])
    if policy in ("margin", "diverse"):
        write_jsonl(folder / "pairs.jsonl", found.pairs)
    rows = choose.kept(found.rows, config.selection.min_score)
    if not rows:
        raise UserError(
            f"the policy {policy!r} leaves no row of score {config.selection.min_score} or more; lower "
            "selection.min_score or selection.margin, set selection.include=both, or give more candidates"
        )
    _write_rows(config, rows, folder)


def select_random(like: Path, generated: Path, criticised: Path, seed: int, folder: Path) -> None:
    """The control: for the rows another policy trains on, random candidates of the same prompts, as many, as long."""
    parts = {part: [Row(**r) for r in read_json(like / f"{part}_rows.json")] for part in ("train", "val")}
    pool = scored.read(generated, criticised)
    rows = {part: choose.matched_random(given, pool, seed) for part, given in parts.items()}
    write_json(folder / SELECTED, [r.to_json() for r in (*rows["train"], *rows["val"])])
    _write_parts(rows["train"], rows["val"], folder)


def _write_rows(config: CaiConfig, rows: Sequence[Row], folder: Path) -> None:
    _write_parts(*choose.split(rows, config.selection.val_ratio, config.selection.split_seed), folder)


def _write_parts(train: Sequence[Row], val: Sequence[Row], folder: Path) -> None:
    for name, rows in (("train", train), ("val", val)):
        write_jsonl(folder / f"{name}.jsonl", choose.sft_rows(rows))
        write_json(folder / f"{name}_rows.json", [r.to_json() for r in rows])
    log.info(
        "%d rows of %d prompts with %d reply tokens to train on, %d for validation",
        len(train),
        len({r.id for r in train}),
        sum(r.tokens for r in train),
        len(val),
    )
