"""Equal budgets, written down and enforced: what every attack saw, in which order, at which learning rate.

Each arm keeps a ledger of the rows of every forward pass in training, and of the learning rate of every step. An arm
whose ledger differs from vanilla's, except in what the arm is about, stops the run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from alignment_core.io import read_json, recover_jsonl, write_json
from alignment_core.pipeline.process_group import process_group
from alignment_core.pipeline.writers import append_jsonl, cut_jsonl, rank_zero_only

IGNORE = -100
LEDGER, BUDGET = "ledger.jsonl", "budget.json"


def row_name(ids: list[int], labels: list[int]) -> str:
    """Twelve hex digits of a row's tokens up to its padding, and of which of them are trained on."""
    end = max((i for i, label in enumerate(labels) if label != IGNORE), default=len(ids) - 1) + 1
    return hashlib.sha256(repr((ids[:end], labels[:end])).encode()).hexdigest()[:12]


class Ledger(TrainerCallback):  # type: ignore[misc]
    """Writes `ledger.jsonl`, a line a step: the rows' names in order and the learning rate; then `budget.json`."""

    def __init__(self, folder: Path, peak: float, seed: int) -> None:
        self.folder, self.peak, self.seed = folder, peak, seed
        self.rows: list[list[str]] = []
        """Of each forward pass since the last step, its rows."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        cut_jsonl(self.folder / LEDGER, keep=state.global_step)
        self.hook = model.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if module.training and torch.is_grad_enabled() and kwargs.get("labels") is not None:
            pairs = zip(kwargs["input_ids"].tolist(), kwargs["labels"].tolist(), strict=True)
            self.rows.append([row_name(ids, labels) for ids, labels in pairs if set(labels) != {IGNORE}])

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
        rate = float(lr_scheduler.get_last_lr()[0]) / self.peak
        passes = process_group().gather(
            self.rows
        )  # sharded in this order: the first pass of each process, the second, …
        rows = [row for together in zip(*passes, strict=True) for one in together for row in one]
        append_jsonl(self.folder / LEDGER, [{"rate": round(rate, 9), "rows": rows}])
        self.rows = []

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.hook.remove()
        self._write_budget()

    @rank_zero_only
    def _write_budget(self) -> None:
        lines = recover_jsonl(self.folder / LEDGER)
        rows = [row for line in lines for row in line["rows"]]
        if not rows:
            raise RuntimeError("the ledger is empty: nothing says what the attack was trained on")
        budget = {
            "steps": len(lines),
            "rows": len(rows),
            "order": _digest(rows),
            "schedule": _digest([line["rate"] for line in lines]),
            "peak_lr": self.peak,
            "seed": self.seed,
        }
        write_json(self.folder / BUDGET, budget)


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


@rank_zero_only
def check(vanilla: Path, arm: Path, *, replayed: float = 0.0) -> None:
    """`RuntimeError` unless the arm in a folder had vanilla's budget: steps, rows in order, schedule, seed.

    `replayed`: the share of rows that may differ (the arm of safety replay); all others must stand where they stood.
    """
    ours, theirs = read_json(arm / BUDGET), read_json(vanilla / BUDGET)
    for key in ("steps", "rows", "schedule", "seed") + (() if replayed else ("order",)):
        if ours[key] != theirs[key]:
            raise RuntimeError(f"{arm.name}: unequal budgets: {key} is {ours[key]}, vanilla's is {theirs[key]}")
    if replayed:
        mine, base = (
            [row for line in recover_jsonl(folder / LEDGER) for row in line["rows"]] for folder in (arm, vanilla)
        )
        changed = sum(a != b for a, b in zip(mine, base, strict=True))
        if not 0 < changed <= -(-replayed * len(base) // 1) + 1:
            raise RuntimeError(f"{arm.name}: {changed} of {len(base)} rows differ from vanilla's, {replayed:.1%} may")
