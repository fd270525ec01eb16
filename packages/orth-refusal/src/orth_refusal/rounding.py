"""What rounding the weights leaves along a direction, and how it is taken back.

A step that is orthogonal to u in exact arithmetic is not once the weights are rounded: each keeps up to half a unit
in its last place, which counts when steps are small. A weight i can change u·(step) by multiples of its grain
|u_i|·ulp(θ_i) only; some weights of each tensor, from coarse grain to fine, therefore take up what is left. Where
more than `LIMIT` of the step's length still lies along u (a step of a few units in the last place), the tensor's
step is not taken: no step rather than one that leaks. So |cos(step, u)| of the weights as they are is at most
`LIMIT` at every learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from orth_refusal.flat import BLOCK, Flat
from orth_refusal.projection import dots, squares

LIMIT = 5e-7
"""Share of a step's length that may lie along u."""
FINER = 1000
"""The second weight's u is not below the largest over so much."""
LADDER = 8
"""Weights that are tried after the first two."""
GRAIN = 1e-4, 1e-3
"""A weight counts as at least so large when its grain is computed (the second weight's, the ladder's): it may grow."""


class Rounding:
    """The weights of each tensor that take up what rounding leaves along its u."""

    def __init__(self, flat: Flat, u: Tensor, start: Tensor) -> None:
        """`u` and the weights at the attack's start as `flat.lay_out` gives them; a tensor whose u is 0 is left alone.

        The weights are chosen by the start, not by what they are now: an attack that goes on after a stop keeps them.
        """
        each = [self._places(start, u, *entry) for entry in flat.parameters]
        places = torch.tensor([p for p in each if p], device=u.device).mT.contiguous()
        self.first, self.ladder = places[:2], places[2:]
        self.u, self.row = u.double(), places[0] // BLOCK
        self.length = squares(self.u, flat.tensor_of)[self.row].sqrt()

    @staticmethod
    def _places(start: Tensor, u: Tensor, parameter: Tensor, place: int) -> list[int]:
        here = u.view(-1)[place : place + parameter.numel()].abs()
        if not bool(here.any()):
            return []
        size = start.view(-1)[place : place + parameter.numel()].abs()
        fine = (here * (size + GRAIN[0])).where(here > here.max() / FINER, torch.inf).argmin()
        usable = here.nonzero().flatten()
        order = usable[(here * (size + GRAIN[1]))[usable].argsort(descending=True)]
        steps = order[torch.linspace(0, len(order) - 1, LADDER).round().long()]
        return [place + int(i) for i in (here.argmax(), fine, *steps)]

    def settle(self, flat: Flat, before: Tensor) -> None:
        """Round `flat.values` so that no tensor's step since `before` has more than `LIMIT` of its length along u."""
        left, size = self._along(flat, before)
        left = self._take_up(flat, self.first, left)
        over = left.abs() > LIMIT * size
        if not bool(over.any()):
            return
        self._take_up(flat, self.ladder, left * over)
        left, size = self._along(flat, before)
        held = torch.zeros(len(flat.parameters), dtype=torch.bool, device=left.device)
        held[flat.tensor_of[self.row]] = left.abs() > LIMIT * size
        flat.values.copy_(torch.where(held[flat.tensor_of, None], before, flat.values))

    def _along(self, flat: Flat, before: Tensor) -> tuple[Tensor, Tensor]:
        """u·(step) of each tensor, and ‖u‖·‖step‖, both in float64."""
        step = flat.values.double() - before
        size = dots(step, step, flat.tensor_of)[self.row].sqrt()
        return dots(step, self.u, flat.tensor_of)[self.row], size * self.length

    def _take_up(self, flat: Flat, places: Tensor | Sequence[Tensor], left: Tensor) -> Tensor:
        """One weight of each tensor after the other moved by what is left along u; returns what then is."""
        values, u = flat.values.view(-1), self.u.view(-1)
        for at in places:
            old = values[at]
            new = old - (left / u[at]).to(old.dtype)
            values[at] = new
            left = left + (new.double() - old.double()) * u[at]
        return left
