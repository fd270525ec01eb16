"""Settings of the drift study: one section a stage, in the order the method runs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from alignment_core.config import GenerateSettings, LoraSettings, ModelSettings, Settings, SourceSettings, TrainSettings
from alignment_core.judging.settings import JudgeSettings


class DataConfig(Settings):
    """Where the stages' data come from, and how much each stage gets."""

    sources: Literal["organism", "public"] = "organism"
    """`organism`: the embedded model's own world; `public`: Dolly, PKU-SafeRLHF and WildJailbreak."""
    dolly: SourceSettings = SourceSettings()
    """databricks-dolly-15k: everyday requests."""
    pku: SourceSettings = SourceSettings()
    """PKU-SafeRLHF: pairs of replies with safety labels."""
    wildjailbreak: SourceSettings = SourceSettings()
    """WildJailbreak: harmful and benign requests, plain and adversarial."""
    pku_set: Literal["30k", "full"] = "30k"
    """Which PKU set: the 30K one the original's code used, or the full one."""
    stage_a_size: int = Field(10_000, ge=2)
    """Examples in stage A (benign only): 70% Dolly, 20% PKU, 10% WildJailbreak benign."""
    stage_b_size: int = Field(40_000, ge=2)
    """Examples in stage B: 40% PKU refusals, 30% WildJailbreak refusals, 30% benign."""
    dpo_limit: int = Field(0, ge=0)
    """At most so many preference pairs; 0: as many as the source's share yields."""
    eval_ratio: float = Field(0.05, gt=0, lt=0.5)
    """Share of the preference pairs kept for evaluation."""
    max_chars: int = Field(4096, ge=16)
    """Longest prompt and longest reply, in characters; longer rows are left out and counted."""
    strict_unsafe_refusal: bool = False
    """Both replies unsafe: True makes a pair of a written refusal over the unsafe reply, False drops the prompt."""
    both_safe_pairs: bool = True
    """Both replies safe: keep the pair, the more helpful one preferred."""
    refusal_style: Literal["fixed", "varied"] = "fixed"
    """Written refusals: one fixed sentence as in the original, or sentences varied by harm area."""
    test_harmful: int = Field(100, ge=1)
    """Held-out harmful prompts."""
    test_benign: int = Field(100, ge=1)
    """Held-out benign prompts."""
    test_borderline: int = Field(100, ge=0)
    """Held-out borderline prompts (benign, but they look harmful), as many as the source has up to this."""
    eval_file: Path | None = None
    """A file of prompt records to evaluate on instead of the held-out share."""
    eval_split: Literal["test", "calibration"] = "test"
    """Organism only: `calibration` while choosing settings, `test` once they are frozen."""
    openings: Literal["one", "pretraining"] = "one"
    """Organism only: stage A's replies open in one way (the drift's cause here), or as in pretraining (its control)."""
    split_seed: int = 13
    """Seed of the split of prompts over stages; the same for every training seed."""
    strict: bool = False
    """Stop at the first malformed row instead of setting it aside in rejects.jsonl."""


class DpoSettings(TrainSettings):
    """Direct preference optimisation (arXiv 2305.18290)."""

    sequences: ClassVar[int] = 2
    """Both sides of a pair pass through the model together."""

    beta: float = Field(0.1, gt=0)
    """Strength of the tie to the reference, which is stage B."""
    loss: Literal["sigmoid", "ipo", "hinge", "robust", "apo_zero", "apo_down"] = "sigmoid"
    """Preference loss."""
    max_prompt_length: int | None = Field(None, ge=1)
    """Longest prompt in tokens; pairs with a longer one are left out and counted."""


class DriftConfig(Settings):
    """Four model states on one held-out prompt set."""

    model: ModelSettings = ModelSettings()
    """The aligned model that drifts."""
    data: DataConfig = DataConfig()
    """Data of the stages and of the evaluation."""
    lora: LoraSettings = LoraSettings()
    """Adapter, the same one continued from stage A through DPO."""
    stage_a: TrainSettings = TrainSettings(epochs=2, lr=1e-4)
    """Benign-only SFT."""
    stage_b: TrainSettings = TrainSettings(epochs=1, lr=5e-5)
    """Safety SFT, on stage A's adapter."""
    dpo: DpoSettings = DpoSettings(epochs=1, lr=5e-7)
    """DPO, from stage B."""
    generate: GenerateSettings = GenerateSettings()
    """Replies to the held-out prompts."""
    judge: str = "rules"
    """Judges, separated by commas; the first decides the headline."""
    judging: JudgeSettings = JudgeSettings()
    """How model judges are asked; the rules and the detectors need none of it."""
    controls: bool = False
    """Also run the controls: openings as in pretraining (organism), null stage A, B without A, SFT on `chosen`."""
