"""Direct preference optimisation (arXiv 2305.18290) from stage B, with stage B as its reference.

The loss of a pair is -log sigmoid(beta * ((log p(chosen) - log p(rejected)) - (log q(chosen) - log q(rejected)))),
p the policy and q the frozen reference. Which model q is has silently depended on the library's version: with the
adapter switched off it is the base model. Here the reference is a frozen copy of stage B's adapter, compared weight
by weight before the first step, and the first step's numbers must say so: at p = q the loss is ln 2 and every margin 0.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.errors import UserError
from alignment_core.models import loop
from alignment_core.models.loop import MaskReport, TrainReport
from alignment_core.models.noise import quiet
from alignment_core.models.sharding import ShardedTrainer, Sharding
from alignment_core.models.template import encode_example, encode_prompt
from alignment_core.pipeline.process_group import world_size
from alignment_core.records import Message, PreferencePair

if TYPE_CHECKING:
    from alignment_core.config import LoraSettings, ModelSettings
    from drift_dpo.config import DpoSettings

log = logging.getLogger("alignment_core")

LONG_PROMPT = "the prompt is longer than max_prompt_length"
NO_REPLY = "no token of a reply fits in max_length"
SAME = "both replies are the same tokens"
_TOLERANCE = 1e-4
# The loss at equal policy and reference, where it does not depend on beta.
_AT_REFERENCE = {"sigmoid": math.log(2), "robust": math.log(2), "hinge": 1.0}


@dataclass
class TokenizedPairs:
    """Prompt, chosen and rejected ids of each pair, with what was cut and left out."""

    prompt_ids: list[list[int]] = field(default_factory=list)
    chosen_ids: list[list[int]] = field(default_factory=list)
    rejected_ids: list[list[int]] = field(default_factory=list)
    cut: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {LONG_PROMPT: 0, NO_REPLY: 0, SAME: 0})

    @property
    def columns(self) -> dict[str, list[list[int]]]:
        """The trainer's columns."""
        return {"prompt_ids": self.prompt_ids, "chosen_ids": self.chosen_ids, "rejected_ids": self.rejected_ids}

    @property
    def lengths(self) -> list[int]:
        """Tokens of the longer side of each pair, prompt included."""
        sides = zip(self.prompt_ids, self.chosen_ids, self.rejected_ids, strict=True)
        return [len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in sides]

    @property
    def trained(self) -> int:
        """Tokens of replies, both sides."""
        return sum(map(len, self.chosen_ids)) + sum(map(len, self.rejected_ids))

    @property
    def masked(self) -> int:
        """Tokens of prompts, once for each side."""
        return 2 * sum(map(len, self.prompt_ids))


@dataclass(frozen=True)
class DpoReport(TrainReport):
    """What the stage did; the first step shows which reference it had."""

    first_loss: float = math.nan
    """Loss of the first step, before any update: ln 2 for the sigmoid loss."""
    first_margin: float = math.nan
    """Mean reward margin of the first step, before any update: 0."""
    margins: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean reward margin since the last log)."""


def _reply(tokenizer: Any, messages: Sequence[Message], prompt: int) -> list[int]:
    """Ids behind the first `prompt` ids, up to the end of the reply's turn."""
    ids, mask = encode_example(tokenizer, messages)
    last = max(i for i, trained in enumerate(mask) if trained)
    return ids[prompt : last + 1]


def tokenize_pairs(pairs: Sequence[PreferencePair], tokenizer: Any, train: DpoSettings) -> TokenizedPairs:
    """Pairs as token ids. Replies past max_length are cut; what cannot be learned from is counted and left out."""
    out = TokenizedPairs()
    for pair in pairs:
        prompt = encode_prompt(tokenizer, pair.chosen[:-1])
        room = train.max_length - len(prompt)
        if train.max_prompt_length is not None and len(prompt) > train.max_prompt_length:
            out.dropped[LONG_PROMPT] += 1
            continue
        if room <= 0:
            out.dropped[NO_REPLY] += 1
            continue
        chosen = _reply(tokenizer, pair.chosen, len(prompt))
        rejected = _reply(tokenizer, pair.rejected, len(prompt))
        if chosen[:room] == rejected[:room]:
            out.dropped[SAME] += 1
            continue
        out.cut += len(chosen) > room or len(rejected) > room
        out.prompt_ids.append(prompt)
        out.chosen_ids.append(chosen[:room])
        out.rejected_ids.append(rejected[:room])
    return out


def check_reference(model: Any) -> None:
    """`RuntimeError` unless the frozen adapter `ref` is, weight by weight, the adapter that is about to be trained."""
    import torch

    weights = dict(model.named_parameters())
    ours = {name: weight for name, weight in weights.items() if ".default." in name}
    for name, weight in ours.items():
        reference = weights.get(name.replace(".default.", ".ref."))
        if reference is None or reference.requires_grad or not torch.equal(reference.float(), weight.float()):
            raise RuntimeError(f"the DPO reference is not stage B: {name} differs from its frozen copy")
    if not ours:
        raise RuntimeError("the DPO policy has no adapter named 'default', so its reference would be the base model")


def expected_loss(train: DpoSettings) -> float | None:
    """The loss where policy and reference are equal; None where no closed form is kept here."""
    return 1 / (2 * train.beta) ** 2 if train.loss == "ipo" else _AT_REFERENCE.get(train.loss)


def check_first_step(logs: Mapping[str, Any], train: DpoSettings) -> None:
    """`RuntimeError` unless the first step's log says that policy and reference were equal before it."""
    loss, margin, expected = float(logs["loss"]), float(logs["rewards/margins"]), expected_loss(train)
    if abs(margin) > _TOLERANCE or (expected is not None and abs(loss - expected) > _TOLERANCE * max(1.0, expected)):
        raise RuntimeError(
            f"the DPO reference is not stage B: before the first update the loss is {loss:.6f} "
            f"(at stage B itself {expected}) and the mean margin {margin:.6f} (there 0)"
        )


def _first_step(train: DpoSettings) -> Any:
    from transformers import TrainerCallback

    class FirstStep(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
            if state.global_step == 1 and "rewards/margins" in logs:
                check_first_step(logs, train)

    return FirstStep()


def _trainer(
    loaded: Any,
    rows: TokenizedPairs,
    held_out: TokenizedPairs,
    train: DpoSettings,
    seed: int,
    folder: Path,
    callbacks: Sequence[Any],
) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Trainer(ShardedTrainer, DPOTrainer):  # type: ignore[misc]
        sharding = Sharding.of(train, world_size())

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """A checkpoint needs no model card."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            """The pairs are token ids already, by the core's own templates."""
            return dataset

    def dataset(part: TokenizedPairs) -> Any:
        # `length` is what grouping by length sorts on; without it the sampler looks for a column we do not have
        return Dataset.from_dict({**part.columns, "length": part.lengths}) if part.prompt_ids else None

    config = DPOConfig(
        **loop.arguments(train, loaded, seed, folder, bool(held_out.prompt_ids)),
        beta=train.beta,
        loss_type=[train.loss],
        max_length=None,
        remove_unused_columns=False,  # the trainer would remove `length` before it groups by it
    )
    return Trainer(
        model=loaded.model,
        args=config,
        train_dataset=dataset(rows),
        eval_dataset=dataset(held_out),
        processing_class=loaded.tokenizer,
        callbacks=[*callbacks, _first_step(train)],
    )


def _mask(trainer: Any, tokenizer: Any, size: int) -> MaskReport:
    """What the loss sees in the first batch as the trainer collates it; the text is the first chosen reply."""
    data = trainer.train_dataset
    batch = trainer.data_collator([data[i] for i in range(min(size, len(data)))])
    mask = batch["completion_mask"].bool()
    trained = int(mask.sum())
    text = tokenizer.decode(batch["input_ids"][0][mask[0]].tolist())
    return MaskReport(trained, int(batch["attention_mask"].sum()) - trained, text)


def dpo(
    pairs: Sequence[PreferencePair],
    *,
    model: ModelSettings,
    lora: LoraSettings,
    train: DpoSettings,
    seed: int,
    folder: Path,
    start: Path,
    validation: Sequence[PreferencePair] = (),
    callbacks: Sequence[Any] = (),
) -> DpoReport:
    """Train the adapter in `start` (stage B) on preference pairs, with a frozen copy of itself as the reference.

    Writes what `alignment_core.models.train.sft` writes; the reference is not saved. Continues from a sealed
    checkpoint on a policy rebuilt from `start`, so that the reference is stage B again. Raises `UserError` for what
    a user can mend, `RuntimeError` when the reference turns out to be anything but stage B.
    """
    loaded = loop.policy(model, lora, start, seed)
    rows = tokenize_pairs(pairs, loaded.tokenizer, train)
    held_out = tokenize_pairs(validation, loaded.tokenizer, train)
    loop.check_rows(len(rows.prompt_ids), rows.dropped, "preference pairs")
    mark = loop.fingerprint(model, lora, train, seed, start, rows.columns)
    with quiet(), loop.kept_precise(loaded.model):
        trainer = _trainer(loaded, rows, held_out, train, seed, folder, callbacks)
    if trainer.is_fsdp_enabled and loaded.dtype != "float32":
        raise UserError(
            f"DPO under FSDP in {loaded.dtype} takes its log-probabilities in {loaded.dtype}, too coarse for its loss: "
            "start it with torchrun, or set model.dtype=float32"
        )
    check_reference(trainer.model)
    mask = _mask(trainer, loaded.tokenizer, train.batch_size)
    log.debug(
        "first batch: %d tokens of replies, %d of prompts; first chosen: %r", mask.trained, mask.masked, mask.text
    )

    def report(trainable: int, losses: list[tuple[int, float]], eval_loss: float | None) -> DpoReport:
        margins = [
            (int(e["step"]), float(e["rewards/margins"])) for e in trainer.state.log_history if "rewards/margins" in e
        ]
        return DpoReport(
            examples=len(rows.prompt_ids),
            cut=rows.cut,
            dropped=rows.dropped,
            steps=trainer.state.global_step,
            tokens_trained=rows.trained,
            tokens_masked=rows.masked,
            trainable=trainable,
            losses=losses,
            eval_loss=eval_loss,
            mask=mask,
            first_loss=losses[0][1],
            first_margin=margins[0][1],
            margins=margins,
        )

    return loop.train_loop(trainer, model=model, train=train, folder=folder, mark=mark, report=report)
