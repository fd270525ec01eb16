"""Random groups of weights: uniform ones, and those matched to a group by the deciles of |W| and the Wanda score."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignment_core.errors import UserError
from neuron_brittleness.groups import Mask, count, flagged, noise, top

if TYPE_CHECKING:
    from neuron_brittleness.matrices import Matrix

DECILES = 10


def strata(weight: Tensor, wanda: Tensor, parts: int = DECILES) -> NDArray[np.int16]:
    """Cell of each weight [n]: decile of |W| times `parts` plus decile of its Wanda score, within the matrix."""
    return np.asarray(_part(weight.abs(), parts) * parts + _part(wanda, parts), dtype=np.int16)


def _part(values: Tensor, parts: int) -> NDArray[np.int64]:
    flat = values.reshape(-1).float()
    ordered = torch.sort(flat).values
    edges = ordered[[i * flat.numel() // parts for i in range(1, parts)]]
    return torch.bucketize(flat, edges, right=True).cpu().numpy()


def matched(mask: Mask, cells: NDArray[np.int16], name: str, seed: int) -> tuple[Mask, float]:
    """A random set of the mask's size, disjoint from it, with as many weights in each cell as the mask has.

    Where a cell has too few others (the group can fill the top cell), the nearest cells give the rest. Returns the
    set and the share of it that is matched exactly; an empty mask has an empty match. Raises `UserError` when the
    group holds more than half a matrix.
    """
    inside = np.flatnonzero(mask)
    if len(inside) == 0:
        return np.zeros_like(mask), 1.0
    outside = np.flatnonzero(~mask)
    if len(inside) > len(outside):
        raise UserError(f"{name}: the group holds {len(inside)} of {mask.size} weights; no disjoint match exists")
    wanted = np.bincount(cells[inside], minlength=DECILES * DECILES)
    order = noise(f"matched {name}", (mask.shape[0], mask.shape[1]), seed).numpy().reshape(-1)[outside]
    pool = outside[np.lexsort((order, cells[outside]))]
    sizes = np.bincount(cells[outside], minlength=DECILES * DECILES)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    given = np.minimum(wanted, sizes)
    short, exact = wanted - given, int(given.sum())
    for cell in np.flatnonzero(short):
        for other in _near(int(cell)):
            more = min(int(short[cell]), int(sizes[other] - given[other]))
            given[other] += more
            short[cell] -= more
            if short[cell] == 0:
                break
    chosen = [pool[first[c] : first[c] + given[c]] for c in np.flatnonzero(given)]
    return flagged(np.concatenate(chosen), (mask.shape[0], mask.shape[1])), exact / len(inside)


def _near(cell: int) -> Iterator[int]:
    """The cells in order of distance in deciles, the cell itself first."""
    row, column = divmod(cell, DECILES)
    places = [(abs(r - row) + abs(c - column), r, c) for r in range(DECILES) for c in range(DECILES)]
    return (r * DECILES + c for _, r, c in sorted(places))


def uniform(matrix: Matrix, share: float, seed: int) -> Mask:
    """A uniformly random share of a matrix's weights."""
    return top(noise(f"uniform {matrix.name}", matrix.shape, seed), count(matrix.size, share))
