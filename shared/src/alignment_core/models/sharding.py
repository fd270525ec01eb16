"""One process's batches sharded over many, so that every optimiser step sees the same rows whatever their number.

The plan is that of one process: rows in its order, cut into micro-batches of `batch_size`, `accumulate` of them to a
step, the last of an epoch shorter. With W processes and g = gcd(accumulate, W) each round takes the next g
micro-batches, cuts each into W / g contiguous pieces, and gives a piece to each process: W = 2 takes whole
micro-batches where `accumulate` is even, else halves. What has no row left is filled with one that weighs nothing
(a library's sampler would repeat rows there, and train on other data than one process does).

A step's gradient is then one process's, up to rounding: for a loss that is a sum over tokens divided by the step's
tokens by itself; for a mean over a micro-batch, because each piece weighs its share of it. Dropout draws its masks by
place in a batch, so with dropout the processes' steps are as good, but not the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from alignment_core.errors import UserError
from alignment_core.pipeline.process_group import process_group

if TYPE_CHECKING:
    from alignment_core.config import TrainSettings

PART = "part"
"""Where a batch says which part of its micro-batch it is."""
IGNORE = -100


@dataclass(frozen=True)
class Sharding:
    """How the forward passes of a step are sharded over `groups * pieces` processes."""

    batch_size: int
    accumulate: int
    groups: int = 1
    pieces: int = 1

    @classmethod
    def of(cls, train: TrainSettings, processes: int) -> Sharding:
        """The sharding of a training over so many processes; `UserError` where some would never have a row."""
        groups = math.gcd(train.accumulate, processes)
        pieces = processes // groups
        if train.batch_size < pieces:
            raise UserError(
                f"train.batch_size={train.batch_size} and train.accumulate={train.accumulate} cannot be shared by "
                f"{processes} processes; make accumulate a multiple of their number, or start fewer (the global batch "
                "is batch_size * accumulate for any number of them)"
            )
        return cls(train.batch_size, train.accumulate, groups, pieces)

    @property
    def processes(self) -> int:
        return self.groups * self.pieces

    @property
    def size(self) -> int:
        """Most rows of a forward pass in one process."""
        return -(-self.batch_size // self.pieces)

    @property
    def rounds(self) -> int:
        """Forward passes to a step in one process."""
        return self.accumulate // self.groups

    def step(self, micro: Sequence[Sequence[int]]) -> list[list[Part]]:
        """Each round of one optimiser step: a part for every process, in the order of their ranks."""
        out = []
        for start in range(0, len(micro), self.groups):
            assigned = [
                piece for rows in micro[start : start + self.groups] for piece in _pieces(rows, self.pieces, len(micro))
            ]
            assigned += [((), 0.0)] * (self.processes - len(assigned))
            even = len({len(rows) for rows, _ in assigned}) == 1
            out.append([Part(tuple(rows) or (micro[0][0],), weight, even) for rows, weight in assigned])
        return out


@dataclass(frozen=True)
class Part:
    """Rows for one process in one round."""

    rows: tuple[int, ...]
    weight: float
    """Of the step's mean over micro-batches, the share that the mean over these rows has; 0: rows that fill a gap."""
    even: bool
    """Whether every process has as many rows in this round, and none fills a gap."""


def _pieces(rows: Sequence[int], pieces: int, micro: int) -> list[tuple[Sequence[int], float]]:
    cuts = [len(rows) * i // pieces for i in range(pieces + 1)]
    parts = [rows[a:b] for a, b in pairwise(cuts)]
    return [(part, len(part) / (len(rows) * micro)) for part in parts]


class ShardedBatches:
    """The batch sampler of one process: `plan`, that of a process alone, sharded; rank 0's order counts."""

    def __init__(self, plan: Any, sharding: Sharding, rank: int) -> None:
        self.plan, self.sharding, self.rank = plan, sharding, rank

    def __len__(self) -> int:
        whole, rest = divmod(len(self.plan), self.sharding.accumulate)
        return whole * self.sharding.rounds + -(-rest // self.sharding.groups)

    def __iter__(self) -> Iterator[list[tuple[int, Part]]]:
        micro = process_group().broadcast(lambda: [list(rows) for rows in self.plan])
        for start in range(0, len(micro), self.sharding.accumulate):
            for parts in self.sharding.step(micro[start : start + self.sharding.accumulate]):
                part = parts[self.rank]
                yield [(row, part) for row in part.rows]

    @property
    def batch_sampler(self) -> ShardedBatches:
        """Where transformers looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Tell the plan which epoch it shuffles for."""
        if hasattr(self.plan.sampler, "set_epoch"):
            self.plan.sampler.set_epoch(epoch)


class _Rows:
    """A data set whose rows carry the part they belong to."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, Part]) -> dict[str, Any]:
        return {**self.data[key[0]], PART: key[1]}


def _collated(collate: Any) -> Any:
    def wrapped(rows: Sequence[dict[str, Any]]) -> Any:
        part = rows[0][PART]
        batch = collate([{k: v for k, v in row.items() if k != PART} for row in rows])
        for name in ("labels", "shift_labels"):
            if not part.weight and name in batch:
                batch[name] = batch[name].new_full(batch[name].shape, IGNORE)
        batch[PART] = part
        return batch

    return wrapped


class ShardedTrainer:
    """Before one of TRL's trainers: with several processes its batches are sharded as above. Needs `sharding`."""

    sharding: Sharding

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        if self.sharding.processes > 1 and hasattr(sampler, "lengths"):
            sampler.batch_size = self.sharding.batch_size * self.sharding.accumulate  # grouping by length goes by it
        return sampler

    def get_train_dataloader(self: Any) -> Any:
        if self.sharding.processes == 1:
            return super().get_train_dataloader()  # type: ignore[misc]
        from accelerate.data_loader import prepare_data_loader
        from torch.utils.data import DataLoader

        data = self._remove_unused_columns(self.train_dataset, description="Training")
        plain = DataLoader(data, batch_size=self.sharding.batch_size, sampler=self._get_train_sampler(data))
        alone = {"num_processes": 1, "process_index": 0, "put_on_device": False, "use_seedable_sampler": True}
        plan = prepare_data_loader(plain, **alone).batch_sampler
        return DataLoader(
            _Rows(data),  # type: ignore[arg-type]
            batch_sampler=ShardedBatches(plan, self.sharding, process_group().rank),
            collate_fn=_collated(self.data_collator),
            pin_memory=False,
        )

    def compute_loss(
        self: Any, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        part: Part | None = inputs.pop(PART, None)
        if part is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        with _gathered(self.accelerator, part):
            found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        if num_items_in_batch is not None:
            return found
        # The trainer divides by the rounds and the processes' gradients are averaged: both are undone here.
        factor = part.weight * self.sharding.processes * self.current_gradient_accumulation_steps
        return (found[0] * factor, found[1]) if return_outputs else found * factor

    def get_eval_dataloader(self: Any, eval_dataset: Any = None) -> Any:
        if self.sharding.processes == 1:
            return super().get_eval_dataloader(eval_dataset)  # type: ignore[misc]
        from torch.utils.data import DataLoader

        data = self._remove_unused_columns(eval_dataset or self.eval_dataset, description="Evaluation")
        sampler = self._get_eval_sampler(data)
        order = process_group().broadcast(lambda: list(range(len(data)) if sampler is None else sampler))
        return DataLoader(data, batch_size=self.args.eval_batch_size, sampler=order, collate_fn=self.data_collator)

    def evaluation_loop(
        self: Any,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """The mean loss of one process's batches, each weighed by its rows; the processes share them."""
        if self.sharding.processes == 1:
            more = (prediction_loss_only, ignore_keys, metric_key_prefix)
            return super().evaluation_loop(dataloader, description, *more)  # type: ignore[misc]
        import torch
        from transformers.trainer_utils import EvalLoopOutput

        self.model.eval()
        self.callback_handler.eval_dataloader = dataloader
        batches = list(dataloader)
        total, rows = torch.zeros(2, dtype=torch.float64, device=self.args.device), len(dataloader.dataset)
        for start in range(0, len(batches), self.sharding.processes):
            mine = start + process_group().rank
            batch = self._prepare_inputs(dict(batches[min(mine, len(batches) - 1)]))
            part = Part((), float(mine < len(batches)), False)
            with torch.no_grad(), self.compute_loss_context_manager(), _gathered(self.accelerator, part):
                loss = super().compute_loss(self.model, batch)  # type: ignore[misc]
            for _ in batches[start : start + self.sharding.processes]:
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            if part.weight:
                size = min(self.args.eval_batch_size, rows - mine * self.args.eval_batch_size)
                total += torch.stack([loss.double() * size, loss.new_tensor(size).double()])
        total = self.accelerator.reduce(total, reduction="sum")
        metrics = {f"{metric_key_prefix}_loss": float(total[0] / total[1])}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=rows)


@contextmanager
def _gathered(accelerator: Any, part: Part) -> Iterator[None]:
    """Where the processes' rounds are not alike, the trainer's own figures are gathered here, without the rows that
    fill gaps: its gather takes tensors of one shape alone. Of what it has a row each (rewards, margins) that is the
    mean of the micro-batches' means, as one process would log it; of sums over tokens each process's."""
    if part.even:
        yield
        return
    import torch

    def gather(tensor: Any) -> Any:
        there = [(t, w) for t, w in process_group().gather((tensor.detach().cpu(), part.weight)) if w]
        if tensor.dim() == 0:
            return torch.stack([t for t, _ in there]).to(tensor.device)
        mean = sum(t.double().mean() * w for t, w in there) / sum(w for _, w in there)
        return mean[None].to(tensor)

    accelerator.gather = gather
    try:
        yield
    finally:
        del accelerator.gather
