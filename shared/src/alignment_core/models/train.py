"""Supervised fine-tuning with the loss on replies only: one entry over TRL's SFTTrainer for every study.

Examples are tokenized and masked here, by the core's own templates, and handed to the trainer as token ids and
labels: what TRL's masking options do to a message data set depends on the template and fails without a word. The
first batch that the trainer really sees is checked against the masks made here, and reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.models import loop
from alignment_core.models.loop import MaskReport, TrainReport
from alignment_core.models.noise import quiet
from alignment_core.models.packing import kept_apart, packed_rows
from alignment_core.models.sharding import ShardedTrainer, Sharding
from alignment_core.models.tokens import IGNORE, Tokenized, tokenize
from alignment_core.pipeline.process_group import world_size
from alignment_core.records import Example

if TYPE_CHECKING:
    from alignment_core.config import LoraSettings, ModelSettings, TrainSettings

__all__ = ["MaskReport", "TrainReport", "sft"]

log = logging.getLogger("alignment_core")


def _runs(labels: Sequence[int]) -> list[tuple[int, ...]]:
    """Maximal stretches of trained labels in a row."""
    runs: list[tuple[int, ...]] = []
    current: list[int] = []
    for label in [*labels, IGNORE]:
        if label != IGNORE:
            current.append(label)
        elif current:
            runs.append(tuple(current))
            current = []
    return runs


def check_first_batch(trainer: Any, tokenizer: Any, size: int, rows: Tokenized) -> MaskReport:
    """What the loss sees in a batch as the trainer collates it; `RuntimeError` when that is not our masks' replies."""
    data = trainer.train_dataset
    batch = trainer.data_collator([data[i] for i in range(min(size, len(data)))])
    labels = batch["labels"]
    seen = [run for row in labels.tolist() for run in _runs(row)]
    ours = {run for row in rows.labels for run in _runs(row)}
    if not seen or any(run not in ours for run in seen):
        raise RuntimeError("the trainer's labels are not the replies: the loss would fall on other tokens")
    trained = int((labels != IGNORE).sum())
    tokens = sum(len(data[i]["input_ids"]) for i in range(min(size, len(data))))
    report = MaskReport(trained, tokens - trained, tokenizer.decode(list(seen[0])))
    log.debug(
        "first batch: %d tokens train, %d are masked; first trained text: %r", trained, report.masked, report.text
    )
    return report


def sft(
    examples: Sequence[Example],
    *,
    model: ModelSettings,
    lora: LoraSettings,
    train: TrainSettings,
    seed: int,
    folder: Path,
    start: Path | None = None,
    validation: Sequence[Example] = (),
    callbacks: Sequence[Any] = (),
    prepare: Callable[[Any], str] | None = None,
) -> TrainReport:
    """Fine-tune a fresh adapter, or the one in `start`, on the replies of `examples`.

    Writes `folder/adapter/`, `train_log.jsonl`, `train_report.json`, and sealed checkpoints in `checkpoints/` from
    which the same call continues, bit for bit on the CPU. `callbacks` are transformers' TrainerCallbacks (they see
    gradients in `on_pre_optimizer_step` and may change weights in `on_optimizer_step`). `prepare` is handed the
    PeftModel before the trainer is built (to mask or hook its adapter) and returns a text that names what it did, so
    that no checkpoint of another preparation is continued. Raises `UserError` for what a user can mend: data,
    adapter, settings changed under a checkpoint, a loss that is not a number.
    """
    loaded = loop.policy(model, lora, start, seed)
    train = kept_apart(loaded.model, train)
    rows = tokenize(examples, loaded.tokenizer, train.max_length)
    held_out = tokenize(validation, loaded.tokenizer, train.max_length)
    loop.check_rows(len(rows.input_ids), rows.dropped, "training examples")
    prepared = [] if prepare is None else [prepare(loaded.model)]
    mark = loop.fingerprint(model, lora, train, seed, start, [rows.input_ids, rows.labels, *prepared])
    with quiet(), loop.kept_precise(loaded.model):
        trainer = _trainer(loaded, rows, held_out, train, seed, folder, callbacks)
    if callbacks or prepare is not None:
        loop.check_whole(trainer)
    mask = check_first_batch(trainer, loaded.tokenizer, train.batch_size, rows)

    def report(trainable: int, losses: list[tuple[int, float]], eval_loss: float | None) -> TrainReport:
        return TrainReport(
            examples=len(rows.input_ids),
            cut=rows.cut,
            dropped=rows.dropped,
            steps=trainer.state.global_step,
            tokens_trained=rows.trained,
            tokens_masked=rows.masked,
            trainable=trainable,
            losses=losses,
            eval_loss=eval_loss,
            mask=mask,
        )

    return loop.train_loop(trainer, model=model, train=train, folder=folder, mark=mark, report=report)


def _trainer(
    loaded: Any,
    rows: Tokenized,
    held_out: Tokenized,
    train: TrainSettings,
    seed: int,
    folder: Path,
    callbacks: Sequence[Any],
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class Trainer(ShardedTrainer, SFTTrainer):  # type: ignore[misc]
        sharding = Sharding.of(train, world_size())

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """A checkpoint needs no model card."""

    def dataset(part: Tokenized) -> Any:
        return Dataset.from_dict({"input_ids": part.input_ids, "labels": part.labels}) if part.input_ids else None

    settings = loop.arguments(train, loaded, seed, folder, bool(held_out.input_ids))
    config = SFTConfig(
        **settings,
        packing=train.packing,
        packing_strategy="bfd",
        max_length=train.max_length if train.packing else None,
    )
    trainer = Trainer(
        model=loaded.model,
        args=config,
        train_dataset=dataset(rows),
        eval_dataset=dataset(held_out),
        processing_class=loaded.tokenizer,
        callbacks=list(callbacks),
    )
    if train.packing and "flash" not in str(loaded.model.config._attn_implementation):
        trainer.data_collator = packed_rows(loaded.tokenizer.pad_token_id)
    return trainer
