"""The arms of the experiment: which attack, kept out of what, on which budget. Facts only, no torch.

Every arm trains a fresh adapter on the same attack data in the same order, for the same steps on the same schedule
from the same seed. What differs stands here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Space = Literal["factor_gradient", "factor_update", "delta", "left"]
Source = Literal["refusal", "random", "benign", "oracle"]
Role = Literal["attack", "projection", "control", "defence"]


@dataclass(frozen=True)
class Arm:
    """One attack."""

    name: str
    label: str
    role: Role
    space: Space | None = None
    """What is projected: the gradient or the actual update per factor tensor, the tangent of ΔW with retraction, or
    a left subspace of ΔW. None: nothing."""
    source: Source = "refusal"
    """Where the direction comes from."""
    lr: float = 1.0
    """Learning rate, as a multiple of the attack's."""
    special: Literal["", "shrunk", "penalty", "replay", "kl"] = ""
    about: str = ""


ARMS: tuple[Arm, ...] = (
    Arm("vanilla", "Vanilla", "attack", about="The attack as it is."),
    Arm("factor_gradient", "Gradient, factors", "projection", "factor_gradient",
        about="The original's: each factor tensor's gradient projected off its direction before the optimiser."),
    Arm("factor_update", "Update, factors", "projection", "factor_update",
        about="The optimiser's actual update of each factor tensor projected after the step."),
    Arm("delta", "ΔW, retracted", "projection", "delta",
        about="The update projected on the tangent of <ΔW, R> = 0 for each matrix, then retracted onto it."),
    Arm("left", "Left subspace", "projection", "left",
        about="The top-k left singular vectors of R removed from B: linear, exact, gauge-free."),
    Arm("random_factor", "Random, factors", "control", "factor_update", "random",
        about="As the update in factor space, with a random direction for each tensor."),
    Arm("random_delta", "Random ΔW", "control", "delta", "random",
        about="As ΔW, with a random direction of the same rank."),
    Arm("random_left", "Random subspace", "control", "left", "random",
        about="As the left subspace, with a random one of the same rank."),
    Arm("benign_left", "Benign subspace", "control", "left", "benign",
        about="As the left subspace, with that of a benign task's adapter."),
    Arm("oracle_left", "Attack's own subspace", "control", "left", "oracle",
        about="As the left subspace, with that of the vanilla attack itself: what knowing the attack would buy."),
    Arm("shrunk", "Vanilla, shrunk steps", "control", special="shrunk",
        about="Vanilla, each step shrunk to the length of the left-subspace arm's step: only smaller steps?"),
    Arm("half_lr", "Vanilla, lr / 2", "control", lr=0.5, about="Vanilla at half the learning rate."),
    Arm("quarter_lr", "Vanilla, lr / 4", "control", lr=0.25, about="Vanilla at a quarter of the learning rate."),
    Arm("penalty", "Penalty", "defence", special="penalty",
        about="The original's regularised mode, (lambda/2)|Vᵀ(theta - theta0)|², with a gradient that is there."),
    Arm("replay", "Safety replay", "defence", special="replay",
        about="A few per cent of the attack's rows replaced by refusals."),
    Arm("kl", "KL to the base", "defence", special="kl",
        about="A penalty on the KL divergence from the base on the attack's own rows."),
)  # fmt: skip
BY_NAME = {arm.name: arm for arm in ARMS}

MAIN = ("vanilla", "factor_gradient", "factor_update", "delta", "left", "random_factor", "random_delta", "random_left")
"""Run always."""
CONTROLS = tuple(arm.name for arm in ARMS if arm.name not in MAIN)
"""Run with `controls`."""
CONTROL_OF = {"factor_gradient": "random_factor", "factor_update": "random_factor", "delta": "random_delta",
              "left": "random_left"}  # fmt: skip
"""Of each projection its random control."""


def chosen(controls: bool) -> tuple[Arm, ...]:
    """The arms of a run, each after those it needs (the oracle after vanilla, shrunk after left)."""
    return tuple(BY_NAME[name] for name in (*MAIN, *(CONTROLS if controls else ())))
