"""The files of a finished scoring step, as the other steps read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alignment_core import io

if TYPE_CHECKING:
    from neuron_brittleness.groups import Group


def read_group(folder: Path, half: str, name: str) -> Group:
    """A group of a finished scoring step."""
    from neuron_brittleness.groups import Group

    return Group.load(folder / half / f"neuron_groups_{name}.safetensors")


def read_cells(folder: Path, half: str = "a") -> dict[str, NDArray[np.int16]]:
    """The |W| and Wanda decile cells of each weight."""
    from safetensors.numpy import load_file

    return {name: code.astype(np.int16) for name, code in load_file(str(folder / half / "cells.safetensors")).items()}


def read_summary(folder: Path, half: str) -> dict[str, Any]:
    """Sizes, mean scores and layers of a half."""
    return dict(io.read_json(folder / half / "summary.json"))
