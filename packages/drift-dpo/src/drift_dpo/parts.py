"""What both worlds, the public sets and the organism's, put the stages' data together from.

Parts are `stageA_` and `stageB_` `train`, `val` and `test`, `dpo_train` and `dpo_eval`, and the held-out prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignment_core.data.splits import Quota
from alignment_core.records import Example, PreferencePair, Prompt
from drift_dpo.rows import EVAL

Split = tuple[int, int, int]
"""Sizes of train, validation and test."""
NONE: Split = (0, 0, 0)
STAGES = tuple(f"{stage}_{part}" for stage in ("stageA", "stageB") for part in ("train", "val", "test"))
EVAL_SHARE = 0.2
"""The held-out set takes at most this share of a source, so that a small file still trains something."""


@dataclass
class Parts:
    """Examples, pairs and prompts by part, while they are put together."""

    examples: dict[str, list[Example]] = field(default_factory=dict)
    pairs: dict[str, list[PreferencePair]] = field(default_factory=dict)
    prompts: list[Prompt] = field(default_factory=list)

    def add(
        self, assigned: Mapping[str, list[list[Any]]], make: Callable[[Any], Example], parts: Iterable[str]
    ) -> None:
        """One example for each group that `parts` got: that of the group's first item."""
        for part in parts:
            self.examples.setdefault(part, []).extend(make(members[0]) for members in assigned.get(part, ()))


def quotas_of(held: int, a: Split, b: Split, eval_pairs: int = 0, train_pairs: int = 0) -> list[Quota[Any]]:
    """Quotas of one pool in the order they are served: test, validation, DPO, B, A."""
    (a_train, a_val, a_test), (b_train, b_val, b_test) = a, b
    return [
        Quota(EVAL, held, first=True, most=EVAL_SHARE),
        Quota("stageB_test", b_test),
        Quota("stageA_test", a_test),
        Quota("stageB_val", b_val),
        Quota("stageA_val", a_val),
        Quota("dpo_eval", eval_pairs),
        Quota("dpo_train", train_pairs, keep=True),
        Quota("stageB_train", b_train, keep=True),
        Quota("stageA_train", a_train, keep=True),
    ]
