"""What is done to an attack between its gradient and its next weights: projections, controls and defences.

A `Rule` may change the gradient before the optimiser (`gradient`) and the weights after it (`update`). `Steering` is
the trainer callback that applies one rule, measures every step, and keeps snapshots on the preset steps. Clipping
comes before all of it: what a rule does to a gradient is not undone by a clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignment_core.pipeline.process_group import process_group
from alignment_core.pipeline.writers import append_jsonl, cut_jsonl
from orth_refusal.directions import Directions, read_weights
from orth_refusal.factors import Factors, difference, inner
from orth_refusal.files import METER, SNAPSHOTS
from orth_refusal.flat import Flat, Group, check_names
from orth_refusal.projection import constrain, remove, remove_left, squares
from orth_refusal.rounding import Rounding
from orth_refusal.snapshots import Snapshots


class Rule:
    """Nothing: the vanilla attack."""

    def begin(self, flat: Flat, start: Tensor) -> None:
        """Called once, with the weights the attack started from (a buffer of `flat`'s layout)."""

    def gradient(self, flat: Flat, model: Any) -> None:
        """May change `flat.grads`, after clipping and before the optimiser."""

    def update(self, flat: Flat, before: Tensor, step: int) -> None:
        """May change `flat.values` after the optimiser's step; `before` is what they were."""


class FactorGradient(Rule):
    """The original's: each factor tensor's gradient loses its component along u."""

    def __init__(self, direction: Directions) -> None:
        self.direction = direction

    def begin(self, flat: Flat, start: Tensor) -> None:
        self.u = flat.lay_out(self.direction.tensors)
        self.square = squares(self.u, flat.tensor_of)

    def gradient(self, flat: Flat, model: Any) -> None:
        remove(flat.grads, self.u, flat.tensor_of, self.square, out=flat.grads)


class FactorUpdate(FactorGradient):
    """Each factor tensor's actual update loses its component along u, so momentum and decay cannot carry it back;
    what rounding the weights leaves along u is taken back, too."""

    def begin(self, flat: Flat, start: Tensor) -> None:
        super().begin(flat, start)
        self.rounding = Rounding(flat, self.u, start)

    def gradient(self, flat: Flat, model: Any) -> None:
        """The optimiser sees the whole gradient."""

    def update(self, flat: Flat, before: Tensor, step: int) -> None:
        flat.values.copy_(before + remove(flat.values - before, self.u, flat.tensor_of, self.square))
        self.rounding.settle(flat, before)


def stacked(direction: Directions, group: Group, like: Tensor) -> Factors:
    """The group's changes R as one batch; whatever rank they have."""
    b = torch.stack([direction.tensors[f"{n}.lora_B"] for n in group.names])
    a = torch.stack([direction.tensors[f"{n}.lora_A"] for n in group.names])
    return Factors(b, a, 1.0).to(like)


class DeltaTangent(Rule):
    """The update projected on the tangent of <ΔW − ΔW₀, R> = 0 of each matrix, then retracted onto it."""

    def __init__(self, direction: Directions) -> None:
        self.direction = direction

    def begin(self, flat: Flat, start: Tensor) -> None:
        check_names(dict.fromkeys(self.direction.modules), set(flat.names))
        self.targets = [stacked(self.direction, group, flat.values) for group in flat.groups]
        self.offsets = [inner(flat.factors(start, g), t) for g, t in zip(flat.groups, self.targets, strict=True)]

    def update(self, flat: Flat, before: Tensor, step: int) -> None:
        for group, target, offset in zip(flat.groups, self.targets, self.offsets, strict=True):
            now = flat.factors(flat.values, group)
            moved, _ = constrain(flat.factors(before, group), now, target, offset)
            now.B.copy_(moved.B)
            now.A.copy_(moved.A)


class LeftSubspace(Rule):
    """UᵀB stays what it was at the start, exactly: ΔW − ΔW₀ has nothing in the span of U when B₀ = 0."""

    def __init__(self, direction: Directions) -> None:
        self.direction = direction

    def begin(self, flat: Flat, start: Tensor) -> None:
        check_names(dict.fromkeys(self.direction.modules), set(flat.names))
        self.start = start
        tensors = self.direction.tensors
        self.bases = [torch.stack([tensors[f"{n}.U"] for n in g.names]).to(flat.values) for g in flat.groups]

    def update(self, flat: Flat, before: Tensor, step: int) -> None:
        for group, basis in zip(flat.groups, self.bases, strict=True):
            first, now = flat.factors(self.start, group).B, flat.factors(flat.values, group).B
            now.copy_(first + remove_left(now - first, basis))


class Shrunk(Rule):
    """Each step at most as long as another arm's step was; the direction is the attack's own."""

    def __init__(self, lengths: Sequence[float]) -> None:
        self.lengths = lengths

    def update(self, flat: Flat, before: Tensor, step: int) -> None:
        change = flat.values - before
        length = change.norm()
        share = (self.lengths[step - 1] / length.clamp(min=1e-30)).clamp(max=1.0)
        flat.values.copy_(before + share * change)


class Penalty(Rule):
    """The gradient of (λ/2)·Σ (v·(θ − θ₀))² over the factor tensors, with unit v: the original's regularised mode,
    which took the penalty of detached weights and so added nothing."""

    def __init__(self, direction: Directions, strength: float) -> None:
        self.direction, self.strength = direction, strength

    def begin(self, flat: Flat, start: Tensor) -> None:
        self.v, self.start = flat.lay_out(self.direction.tensors), start
        self.square = squares(self.v, flat.tensor_of)

    def gradient(self, flat: Flat, model: Any) -> None:
        moved = flat.values - self.start
        along = moved - remove(
            moved, self.v, flat.tensor_of, self.square
        )  # (v·moved)v of each tensor, from the one formula
        flat.grads.add_(along, alpha=self.strength)


class KlToBase(Rule):
    """Adds the gradient of β·KL(base ‖ model), the mean over the reply tokens of the step's own rows.

    The rows are caught as the model sees them; the base is the same model with its adapter off.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.rows: list[dict[str, Tensor]] = []

    def catch(self, module: Any, args: Any, inputs: Mapping[str, Any]) -> None:
        """A forward hook: keep a training pass's rows until the step is taken."""
        if module.training and inputs.get("labels") is not None:
            self.rows.append({k: v for k, v in inputs.items() if torch.is_tensor(v)})

    def gradient(self, flat: Flat, model: Any) -> None:
        rows, self.rows = self.rows, []
        if not rows:
            raise RuntimeError("no row was caught: the KL penalty would be silent")
        share = process_group()
        total = sum(share.gather(sum(int((r["labels"][:, 1:] != -100).sum()) for r in rows)))
        others = flat.grads.clone() if share.size > 1 else None
        if others is not None:
            flat.attach_grads()  # this process's part of the penalty by itself, to be added up over all
        for row in rows:
            kl = kl_to_base(model, row)
            (self.strength * kl / total).backward()
        flat.collect_grads()
        if others is not None:
            share.all_reduce(flat.grads)
            flat.grads.add_(others)


def kl_to_base(model: Any, row: Mapping[str, Tensor]) -> Tensor:
    """Sum over reply tokens of KL(base ‖ model) in nats; `row` has input_ids, labels and perhaps attention_mask."""
    inputs = {k: v for k, v in row.items() if k in ("input_ids", "attention_mask", "position_ids")}
    here = row["labels"][:, 1:] != -100

    def log_p() -> Tensor:
        return torch.log_softmax(model(**inputs, use_cache=False).logits[:, :-1][here].float(), -1)

    training = model.training
    model.eval()  # dropout would make even the base differ from itself
    with torch.no_grad(), model.disable_adapter():
        base = log_p()
    now = log_p()
    model.train(training)
    return torch.nn.functional.kl_div(now, base, reduction="sum", log_target=True)


class Meter:
    """cos(ΔW_t − ΔW₀, R) of each matrix and pooled, and how long each step was."""

    def __init__(self, refusal: Directions) -> None:
        self.refusal = refusal

    def begin(self, flat: Flat, start: Tensor) -> None:
        check_names(dict.fromkeys(self.refusal.modules), set(flat.names))
        self.flat, self.start = flat, start
        self.targets = [stacked(self.refusal, group, flat.values) for group in flat.groups]

    def read(self) -> tuple[float, list[float]]:
        """(pooled cosine, cosine of each matrix in the order of `flat.names`); 0 where nothing has changed."""
        dots, moved, wanted = [], [], []
        for group, target in zip(self.flat.groups, self.targets, strict=True):
            change = difference(self.flat.factors(self.flat.values, group), self.flat.factors(self.start, group))
            change = Factors(change.B.double(), change.A.double(), change.scale)
            goal = Factors(target.B.double(), target.A.double(), target.scale)
            dots.append(inner(change, goal))
            moved.append(inner(change, change).clamp(min=0))
            wanted.append(inner(goal, goal))
        dot, square, goal_square = torch.cat(dots), torch.cat(moved), torch.cat(wanted)
        size = (square * goal_square).sqrt()
        each = torch.where(size > 0, dot / torch.where(size > 0, size, 1.0), 0.0)
        whole = (square.sum() * goal_square.sum()).sqrt()
        pooled = float(dot.sum() / whole) if whole > 0 else 0.0
        return pooled, each.tolist()


class Steering(Snapshots):
    """Applies a rule, meters every step and keeps snapshots; everything else about the training is the trainer's."""

    def __init__(self, rule: Rule, refusal: Directions, folder: Path, points: int) -> None:
        super().__init__(folder, points)
        self.rule, self.meter = rule, Meter(refusal)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        super().on_train_begin(args, state, control, model=model)
        self.flat = Flat(model)
        cut_jsonl(self.folder / METER, keep=state.global_step)
        first = read_weights(self.folder / SNAPSHOTS / "0.safetensors")
        named = {f"{n}.{part}": pair[part == "lora_A"] for n, pair in first.items() for part in ("lora_A", "lora_B")}
        start = self.flat.lay_out(named)
        self.rule.begin(self.flat, start)
        self.meter.begin(self.flat, start)
        if isinstance(self.rule, KlToBase):
            model.register_forward_pre_hook(self.rule.catch, with_kwargs=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.flat.attach_grads()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.flat.collect_grads()
        self.before = self.flat.values.clone()
        self.rule.gradient(self.flat, model)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        step = state.global_step + 1
        self.rule.update(self.flat, self.before, step)
        pooled, each = self.meter.read()
        length = float((self.flat.values - self.before).norm())
        row = {"step": step, "pooled": pooled, "most": max(map(abs, each)), "length": length, "matrices": each}
        append_jsonl(self.folder / METER, [row])
