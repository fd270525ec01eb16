"""What a plan and a step's key need to know of the stages' data: where it comes from, how much it is.

Every source's prompts are split once: `public.py` splits the public sets, `embedded.py` the embedded model's world.
Each source's prompts go to test, validation, DPO, B and A in that order, so that no prompt is in two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment_core.io import sha256_file
from drift_dpo import embedded, public
from drift_dpo.config import DataConfig, DriftConfig

TRAIN_SHARE = 0.9
"""Stages A and B of the public sets are split 90/5/5 into train, validation and test."""


def work(config: DataConfig) -> Callable[[DataConfig, Path], None]:
    """The work of the data step: `split` of the module that holds the source."""
    return public.split if config.sources == "public" else embedded.split


def identity(config: DataConfig) -> dict[str, Any]:
    """What names the data in a step's key, without reading more than local files' hashes."""
    named: dict[str, Any] = {"eval_file": sha256_file(config.eval_file) if config.eval_file else None}
    return named | (public.identity(config) if config.sources == "public" else {})


def size(config: DataConfig, part: str) -> int:
    """Training rows of `stageA`, `stageB`, `own` or `dpo`; 0 where the source decides (every pair it yields)."""
    whole = config.sources == "organism"
    if part == "dpo":
        return config.dpo_limit if whole else round(config.dpo_limit * (1 - config.eval_ratio))
    rows = config.stage_b_size if part == "stageB" else config.stage_a_size
    return rows if whole else round(rows * TRAIN_SHARE)


def held_out(config: DataConfig) -> int:
    """Held-out prompts, at most."""
    return config.test_harmful + config.test_benign + config.test_borderline


def needs(config: DriftConfig) -> list[tuple[str, str, str | None]]:
    """The data sets that the run takes from the hub."""
    if config.data.sources == "organism":
        return []
    asked = [(source, own) for source, own in public.sources(config.data) if own.path is None]
    return [("dataset", source.repo, own.revision or source.revision) for source, own in asked]
