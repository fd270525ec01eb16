"""What a plan and a step's key need to know of the study's data: where it comes from, how much it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import identity as source_identity
from alignment_core.data.summary import DataReport
from alignment_core.io import sha256_file
from orth_refusal import embedded, public
from orth_refusal.config import DataConfig, OrthConfig

TURNS = 5
"""Assistant turns of a HarmfulQA conversation, roughly; for the estimate of steps only."""


def work(config: DataConfig) -> Callable[[DataConfig, Path], None]:
    """The work of the data step: `split` of the module that holds the source."""
    return public.split if config.sources == "public" else embedded.split


def build(config: DataConfig, folder: Path) -> DataReport:
    """Build every file of the study in `folder`; files and errors as `sets.build`."""
    made = public.build if config.sources == "public" else embedded.build
    return made(config, folder)


def identity(config: DataConfig) -> dict[str, Any]:
    """What names the data in a step's key."""
    path = config.synthetic_data_path
    named: dict[str, Any] = {"synthetic": sha256_file(path) if path else None}
    if config.sources == "public":
        for name in ("harmfulqa", "dolly", "xstest"):
            named[name] = source_identity(SOURCES[name], getattr(config, name))
    return named


def needs(config: OrthConfig) -> list[tuple[str, str, str | None]]:
    """The data sets that the run takes from the hub."""
    if config.data.sources == "organism":
        return []
    wanted = [(SOURCES[name], getattr(config.data, name)) for name in ("harmfulqa", "dolly", "xstest")]
    return [("dataset", s.repo, given.revision or s.revision) for s, given in wanted if given.path is None]


def size(config: DataConfig, part: str) -> int:
    """Training rows of `refusal` (and `benign`, `red`, which take as many) or `attack`, at most; of the public set an
    estimate by its card."""
    name = "attack" if part == "attack" else "refusal"
    limit: int = getattr(config, f"{name}_limit")
    if config.sources == "organism":
        return limit or embedded.ROWS[name]
    share, side = (config.attack_share, "red") if name == "attack" else (config.refusal_share, "blue")
    rows = round(public.CARD[side] * share * TURNS)
    return min(rows, limit or rows)


def held_out(config: DataConfig) -> int:
    """Held-out prompts, at most."""
    return config.test_harmful + config.test_benign + config.test_borderline
