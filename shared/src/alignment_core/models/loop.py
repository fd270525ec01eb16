"""What every kind of fine-tuning here shares: the policy, the trainer's arguments, the loop, and its report.

SFT (`train.py`) and a study's own trainers build on this, so that seeds, sealed checkpoints, precision, logs and
the checks that training took place are the same everywhere.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.models import checkpoints, trackers
from alignment_core.models.adapter import adapter_identity
from alignment_core.models.load import Loaded, identity, load
from alignment_core.models.lora import adapter_state, add_adapter, save_adapter
from alignment_core.models.noise import quiet
from alignment_core.models.sharding import Sharding
from alignment_core.pipeline.process_group import world_size
from alignment_core.progress import Work, work

if TYPE_CHECKING:
    from alignment_core.config import LoraSettings, ModelSettings, TrainSettings

log = logging.getLogger("alignment_core")

_CLOCK = {
    f"{part}_{what}" for part in ("train", "eval") for what in ("runtime", "samples_per_second", "steps_per_second")
}
# These count from the start of the process.
_CLOCK |= {"total_flos", "num_tokens", "eval_num_tokens", "train_loss"}


R = TypeVar("R", bound="TrainReport")


@dataclass(frozen=True)
class MaskReport:
    """What the loss sees in the first batch: how many tokens train, how many are masked, and the first trained text."""

    trained: int
    masked: int
    text: str


@dataclass(frozen=True)
class TrainReport:
    """What a stage did. `to_json` leaves out the clock, so that the file is the same on every machine and run."""

    examples: int
    """Examples trained on in an epoch, after drops."""
    cut: int
    """Examples longer than max_length, cut at the end."""
    dropped: dict[str, int]
    """Examples left out, by reason."""
    steps: int
    tokens_trained: int
    """Tokens with loss in an epoch."""
    tokens_masked: int
    """Tokens without loss in an epoch."""
    trainable: int
    """Trainable parameters."""
    losses: list[tuple[int, float]]
    """(step, mean training loss since the last log)."""
    eval_loss: float | None
    mask: MaskReport
    resumed_from: int | None = field(default=None, compare=False)
    seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k not in ("seconds", "resumed_from")}


def policy(model: ModelSettings, lora: LoraSettings, start: Path | None, seed: int) -> Loaded:
    """The model to train: a fresh adapter (initialised by `seed`), or the one in `start`, continued.

    Raises `UserError` where `start` has another rank or scale than `lora` says, so that a setting is never ignored.
    """
    loaded = load(model, adapter=start, trainable=True)
    from transformers import set_seed

    set_seed(seed)
    if start is None:
        loaded.model = add_adapter(loaded.model, lora)
    config = loaded.model.peft_config["default"]
    if (config.r, config.lora_alpha) != (lora.r, lora.alpha):
        raise UserError(
            f"{start}: this adapter has r={config.r} and alpha={config.lora_alpha}, but lora.r={lora.r} and "
            f"lora.alpha={lora.alpha}; an adapter keeps its rank and scale when it is continued"
        )
    return loaded


def arguments(train: TrainSettings, loaded: Loaded, seed: int, folder: Path, evaluate: bool) -> dict[str, Any]:
    """Keyword arguments for TRL's SFTConfig and DPOConfig; every default that could surprise is set by hand.

    TRL's defaults ask for bf16 and gradient checkpointing, which fail or cost time on a CPU; trackers are chosen
    from what happens to be installed; NaN losses are filtered out of the log. None of that here.
    """
    dealt = Sharding.of(train, world_size())
    # A launcher's own precision (accelerate's configuration files name one) would win over model.dtype in silence.
    os.environ["ACCELERATE_MIXED_PRECISION"] = {"bfloat16": "bf16", "float16": "fp16"}.get(loaded.dtype, "no")
    constant = train.scheduler == "constant" and train.warmup_ratio > 0
    return {
        "output_dir": str(folder / "checkpoints"),
        "num_train_epochs": train.epochs,
        "max_steps": train.max_steps or -1,
        "per_device_train_batch_size": dealt.size,
        "per_device_eval_batch_size": train.batch_size,
        "gradient_accumulation_steps": dealt.rounds,
        "learning_rate": train.lr,
        "lr_scheduler_type": "constant_with_warmup" if constant else train.scheduler,
        "warmup_steps": train.warmup_ratio,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "optim": "adamw_torch_fused" if train.optimizer == "adamw_torch" else train.optimizer,
        "train_sampling_strategy": "group_by_length" if train.group_by_length else "random",
        "eval_strategy": "steps" if evaluate and train.eval_steps else "no",
        "eval_steps": train.eval_steps if evaluate else None,
        "save_strategy": "steps" if train.save_steps else "no",
        "save_steps": train.save_steps or 500,
        "logging_steps": train.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        **trackers.prepare(train.report_to, folder),
        "seed": seed,
        "use_cpu": loaded.device == "cpu",
        "bf16": loaded.dtype == "bfloat16",
        "fp16": loaded.dtype == "float16",
        "activation_checkpointing": train.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if train.gradient_checkpointing else None,
        "disable_tqdm": True,
        "dataloader_pin_memory": loaded.device == "cuda",
        "ddp_find_unused_parameters": False,
    }


def fingerprint(
    model: ModelSettings, lora: LoraSettings, train: TrainSettings, seed: int, start: Path | None, data: Any
) -> str:
    """Hex sha256 of all that decides a training run; a checkpoint of another run is never continued.

    `data` is the tokenized training set, as JSON data.
    """
    parts = {
        "model": identity(model),
        "lora": lora.model_dump(mode="json"),
        "train": train.model_dump(mode="json", exclude={"report_to", "save_total_limit"}),
        "seed": seed,
        "start": None if start is None else adapter_identity(start),
        "processes": world_size(),
        "data": hashlib.sha256(io.canonical(data).encode()).hexdigest(),
    }
    return hashlib.sha256(io.canonical(parts).encode()).hexdigest()


def _check_launcher(trainer: Any) -> None:
    """`UserError` for ways to deal out a model that the adapter could not be read back from."""
    accelerator = trainer.accelerator
    if trainer.is_deepspeed_enabled or (trainer.is_fsdp_enabled and not accelerator.is_fsdp2):
        what = "DeepSpeed" if trainer.is_deepspeed_enabled else "FSDP version 1"
        raise UserError(
            f"{what} is not supported: start it with torchrun, or with accelerate launch and a multi_gpu or FSDP "
            "version 2 configuration"
        )


def check_whole(trainer: Any) -> None:
    """`UserError` where the model is dealt out over the processes, for a training whose callbacks touch its weights."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise UserError(
            "this training reads and changes the adapter on its way, so each process needs it whole: start it without "
            "FSDP and DeepSpeed (torchrun, or accelerate launch with a multi_gpu configuration)"
        )


@contextmanager
def kept_precise(model: Any) -> Iterator[None]:
    """Give the adapter back its float32 weights after the block, in which a TRL trainer is built.

    TRL rounds the adapter of a quantised model to bfloat16, whose steps near .01 are 4e-5: the adapter is no longer
    the one that was loaded, and an update of DPO's usual 5e-7 is rounded away, all in silence. The compute dtype is
    not touched.
    """
    import torch

    weights = {n: p.detach().to(torch.float32).clone() for n, p in model.named_parameters() if p.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.data = weights[name]


def count_trainable(model: Any) -> int:
    """Number of trainable parameters; `RuntimeError` when there are none, which trainers take without a word."""
    count = sum(int(p.numel()) for p in model.parameters() if p.requires_grad)
    if count == 0:
        raise RuntimeError("nothing is trainable: the adapter was loaded frozen")
    return count


def _watch(told: Work) -> Any:
    """A callback that tells how far training is and stops at the first loss that is not a number."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        validation: ExitStack | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            told.resize(state.max_steps, state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            told.at(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
            if "loss" not in logs:
                return
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                raise UserError(
                    f"the training loss is {loss} at step {state.global_step} of {state.max_steps}; "
                    "lower train.lr, or set model.dtype=bfloat16 or float32"
                )
            told.at(state.global_step, f"loss {loss:.4f}")

        def on_prediction_step(self, args: Any, state: Any, control: Any, eval_dataloader: Any, **_: Any) -> None:
            if self.validation is None:
                self.validation = ExitStack()
                self.checked = self.validation.enter_context(work("validation", len(eval_dataloader)))
            self.checked.advance()

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.validation is not None:
                self.validation.close()
                self.validation = None

    return Watch()


class _Trained(Exception):
    """The checkpoint that was continued from is that of the last step."""


def _steady() -> Any:
    """A callback for what a trainer does otherwise once it was stopped and continued.

    It takes one more step after the last one's checkpoint where `max_steps` ends within an epoch (`_Trained` is raised
    instead), and logs means that begin at the stop: so each checkpoint is a place where a mean ends, stopped or not.
    """
    from transformers import TrainerCallback

    class Steady(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= state.max_steps:
                raise _Trained

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if control.should_save:
                control.should_log = True

    return Steady()


def train_loop(
    trainer: Any,
    *,
    model: ModelSettings,
    train: TrainSettings,
    folder: Path,
    mark: str,
    report: Callable[[int, list[tuple[int, float]], float | None], R],
) -> R:
    """Run a TRL trainer to its end, from the newest sealed checkpoint if there is one, and write what it made.

    `mark` is the run's fingerprint; `report` is told (trainable, losses, eval loss). Writes `adapter/` (tokenizer too),
    `train_log.jsonl`, `train_report.json` and, apart because it differs between runs, `train_timings.json`.
    Raises `RuntimeError` when nothing was trainable or the adapter did not change.
    """
    from transformers import PrinterCallback

    _check_launcher(trainer)
    started = time.monotonic()
    saved = folder / "checkpoints"
    with trainer.args.main_process_first(desc="looking for a checkpoint"):  # the first process removes damaged ones
        resume = checkpoints.newest(saved, mark)
    trainable = count_trainable(trainer.model)
    before = adapter_state(trainer.model)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(checkpoints.sealing(saved, mark, train.save_total_limit))
    if resume is not None:
        log.info("continuing from %s", resume.name)
    trainer.add_callback(_steady())
    with quiet(), work("training", 0, "steps") as told:
        trainer.add_callback(_watch(told))
        try:
            _train(trainer, train, resume)
        finally:
            trackers.finish(train.report_to)
    after = adapter_state(trainer.model)
    _check_changed(before, after, trainer.state.global_step, train)
    history = [{k: e[k] for k in sorted(e.keys() - _CLOCK)} for e in trainer.state.log_history]
    history = [entry for entry in history if entry.keys() - {"epoch", "step"}]
    evals = [e["eval_loss"] for e in history if "eval_loss" in e]
    losses = [(int(e["step"]), float(e["loss"])) for e in history if "loss" in e]
    made = report(trainable, losses, float(evals[-1]) if evals else None)
    seconds = time.monotonic() - started
    if trainer.is_world_process_zero():
        save_adapter(trainer.model, folder / "adapter", identity(model)["weights"], after)
        _save_tokenizer(trainer.processing_class, folder / "adapter")
        io.write_jsonl(folder / "train_log.jsonl", history)
        io.write_json(folder / "train_report.json", made.to_json())
        io.write_json(folder / "train_timings.json", {"seconds": seconds, "resumed": resume is not None})
    trainer.accelerator.wait_for_everyone()
    resumed = None if resume is None else checkpoints.step_of(resume)
    return replace(made, seconds=seconds, resumed_from=resumed)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer with its chat template beside the adapter, so that other tools take the folder as it is."""
    tokenizer.save_pretrained(str(folder))
    settings = io.read_object(folder / "tokenizer_config.json")
    settings.pop("name_or_path", None)  # a place on this machine
    io.write_json(folder / "tokenizer_config.json", settings)


def _train(trainer: Any, train: TrainSettings, resume: Path | None) -> None:
    """Train to the end, and measure the validation loss there unless that was done in the last step. `UserError` where
    a pass does not fit the device's memory."""
    import torch

    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except _Trained:
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device's memory does not hold a training pass of {train.batch_size} rows of up to {train.max_length} "
            "tokens; halve batch_size and double accumulate (the global batch stays), set gradient_checkpointing=true, "
            "or lower max_length"
        ) from error
    if trainer.eval_dataset is not None and not any(
        entry["step"] == trainer.state.global_step and "eval_loss" in entry for entry in trainer.state.log_history
    ):
        trainer.evaluate()


def _check_changed(before: Mapping[str, Any], after: Mapping[str, Any], steps: int, train: TrainSettings) -> None:
    import torch

    if not all(bool(torch.isfinite(t).all()) for t in after.values()):
        raise UserError("the adapter's weights are no longer finite; lower train.lr, or set model.dtype=bfloat16")
    if all(torch.equal(before[k], after[k]) for k in before):
        if steps <= math.ceil(train.warmup_ratio * steps):
            raise UserError(
                f"nothing was learned: all {steps} steps are warm-up; set train.warmup_ratio=0 or train longer"
            )
        raise RuntimeError("training changed no weight of the adapter")


def check_rows(kept: int, dropped: Mapping[str, int], what: str) -> None:
    """Log what was left out; `UserError` when nothing is left to train on."""
    for reason, count in dropped.items():
        if count:
            log.warning("%d %s left out: %s", count, what, reason)
    if not kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items() if n) or "none were given"
        raise UserError(f"no {what} to train on ({reasons}); raise train.max_length or give other data")
