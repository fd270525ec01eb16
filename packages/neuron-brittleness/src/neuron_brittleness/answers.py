"""Conditions put to the held-out prompts: replies and reference losses of each, in a folder of its own.

No server can hold zeroed weights or a masked adapter, and conditions are compared with each other: all replies are
made here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.evaluation.answer import write_losses

if TYPE_CHECKING:
    from neuron_brittleness.conditions import Condition, Made
    from neuron_brittleness.config import BrittlenessConfig

log = logging.getLogger(__name__)


def answer(config: BrittlenessConfig, conditions: Sequence[Condition], made: Made, folder: Path) -> None:
    """Replies and losses of every condition; conditions on one model are done one after the other."""
    from neuron_brittleness.interventions import Answering

    if config.generate.endpoint is not None:
        log.warning("replies of zeroed and masked models, and of those compared with them, are made here: no server "
                    "can hold such weights (the endpoint answered for the safety data)")  # fmt: skip
    work = Answering(config, made, folder)
    for arm, side in dict.fromkeys((c.arm, c.side) for c in conditions):
        loaded = work.load(arm, side)
        for condition in [c for c in conditions if (c.arm, c.side) == (arm, side)]:
            work.replies(loaded, condition, condition.subject)
            write_losses(work.place(condition.subject), work.losses(loaded, condition))
    work.write_subjects(condition.subject for condition in conditions)
