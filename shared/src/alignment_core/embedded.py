"""The names of the embedded models: `organism` and `organism:3`."""

from __future__ import annotations

import re


def embedded_seed(name: str) -> int | None:
    """The pretraining seed of the embedded model that `organism` or `organism:3` names; None for any other name."""
    found = re.fullmatch(r"organism(?::([1-9][0-9]?))?", name)
    return int(found[1] or 1) if found else None
