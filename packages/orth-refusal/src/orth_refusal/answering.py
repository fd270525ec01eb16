"""The base and every evaluated step of every attack answer the same prompts, on one base with adapters exchanged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.evaluation.answer import answer, losses, reference_losses, write_losses
from alignment_core.evaluation.files import write_places
from alignment_core.models import load
from alignment_core.records import Prompt
from orth_refusal import rows as built
from orth_refusal.files import snapshots

if TYPE_CHECKING:
    from alignment_core.config import GenerateSettings, ModelSettings
    from alignment_core.models.load import Loaded
    from alignment_core.pipeline.step import Step
    from orth_refusal.config import OrthConfig

ATTACK = "attack"
"""The set of rows whose losses are those of held-out attack replies."""


class Bench:
    """One loaded base on which adapters are exchanged; loaded when the first step asks."""

    def __init__(self, config: OrthConfig, model: ModelSettings, adapter: Path, accept_missing: bool) -> None:
        self.config, self.model, self.adapter, self.accept_missing = config, model, adapter, accept_missing
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        if self._loaded is None:
            self._loaded = load.load(self.model, self.adapter)
        return self._loaded

    def put(self, weights: Path) -> None:
        """Exchange the adapter's weights for those in a snapshot of the same shapes."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        from alignment_core.models.lora import adapter_state

        state = load_file(str(weights))
        wanted = adapter_state(self.loaded.model)
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in wanted.items()}:
            raise RuntimeError(f"{weights}: not a snapshot of this run's adapters")
        set_peft_model_state_dict(self.loaded.model, state)


def how(config: OrthConfig) -> GenerateSettings:
    """How replies are made. A merged start is made by the run itself, so no server holds it: those, and all that is
    compared with them, are made here."""
    return config.generate if config.setup == "base" else config.generate.here()


def at_base(bench: Bench, subject: str, seed: int | None, split: Path, folder: Path) -> None:
    """Replies and losses of the base, the adapter switched off."""
    with bench.loaded.model.disable_adapter():
        _answer(bench, subject, seed, split, folder)


def at_end(bench: Bench, trained: Step, subject: str, seed: int | None, split: Path, folder: Path) -> None:
    """Replies and losses of an adapter at the end of its training."""
    bench.put(snapshots(trained)[-1][1])
    _answer(bench, subject, seed, split, folder)


def along(bench: Bench, trained: Step, subject: str, seed: int | None, split: Path, folder: Path) -> None:
    """Replies and losses at every snapshot of an attack, each in `folder/<step>/`; the last one is also the attack's
    own state."""
    kept = snapshots(trained)
    for step, file in kept:
        bench.put(file)
        _answer(bench, subject, seed, split, folder / str(step))
    places = [(subject, {"step": step}, str(step)) for step, _ in kept]
    write_places(folder, [*places, (subject, {}, str(kept[-1][0]))])


def _answer(bench: Bench, subject: str, seed: int | None, split: Path, folder: Path) -> None:
    """Greedy replies, and the losses of held-out attack replies and of benign reference answers."""
    config, prompts = bench.config, built.prompts(split)
    answer(
        bench.loaded, prompts, how(config), folder,
        subject=subject, seed=seed, accept_missing=bench.accept_missing,
    )  # fmt: skip
    held_out = built.examples(split, "held_out")
    asked = [Prompt(f"held-out/{i}", e.messages[:-1], "harmful", cluster=e.cluster) for i, e in enumerate(held_out)]
    size = config.generate.batch_size
    rows = losses(bench.loaded, ATTACK, asked, [e.reply for e in held_out], size)
    write_losses(folder, [*rows, *reference_losses(bench.loaded, prompts, size)])
