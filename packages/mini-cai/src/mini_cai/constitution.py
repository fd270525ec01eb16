"""The constitution of a run: the shipped one, or the user's own (`alignment_core.judging.constitution` reads both)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from alignment_core.judging import constitution
from alignment_core.judging.constitution import Constitution


def read(path: Path | None) -> Constitution:
    """The constitution in a file, by default the shipped one."""
    if path is not None:
        return constitution.read(path)
    text = resources.files("mini_cai").joinpath("constitution.txt").read_text(encoding="utf-8")
    return constitution.parse(text, "constitution.txt")
