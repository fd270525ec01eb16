"""Settings of the study: data, directions, the attack every arm shares, and what a run evaluates."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from alignment_core.config import (
    EndpointSettings,
    GenerateSettings,
    LoraSettings,
    ModelSettings,
    Settings,
    SourceSettings,
    TrainSettings,
)
from alignment_core.judging.settings import JudgeSettings


class DataConfig(Settings):
    """Blue and red data on disjoint questions, and the held-out prompts."""

    sources: Literal["organism", "public"] = "organism"
    """`organism`: the embedded model's own world; `public`: HarmfulQA, with Dolly and XSTest for usefulness."""
    harmfulqa: SourceSettings = SourceSettings()
    """HarmfulQA: harmful questions by topic with harmless (blue) and harmful (red) conversations."""
    dolly: SourceSettings = SourceSettings()
    """databricks-dolly-15k: benign requests for the benign task and the held-out benign prompts."""
    xstest: SourceSettings = SourceSettings()
    """XSTest: safe prompts that look harmful, for over-refusal."""
    refusal_share: float = Field(0.4, gt=0, lt=1)
    """Share of each topic's questions that the refusal adapter is trained on."""
    attack_share: float = Field(0.5, gt=0, lt=1)
    """Share of each topic's questions that the attacks are trained on; what is left is held out."""
    blue: Literal["all", "refusals"] = "all"
    """Blue replies are harmless, often without refusing: train on all, or only on those the rules call refusals."""
    refusal_limit: int = Field(0, ge=0)
    """At most so many training rows of the refusal adapter; 0: all."""
    attack_limit: int = Field(0, ge=0)
    """At most so many training rows of the attacks; 0: all."""
    benign_limit: int = Field(2000, ge=1)
    """Rows of the benign task, whose subspace is a control."""
    synthetic_data_path: Path | None = None
    """More attack rows, as `synthesize` writes them; rows that touch an evaluation set are left out and counted."""
    test_harmful: int = Field(200, ge=1)
    """Held-out harmful prompts, as many as there are up to this."""
    test_benign: int = Field(100, ge=1)
    """Held-out benign prompts."""
    test_borderline: int = Field(50, ge=0)
    """Held-out borderline prompts (benign, but they look harmful)."""
    test_attack: int = Field(200, ge=1)
    """Held-out attack rows, for the attack loss."""
    eval_split: Literal["test", "calibration"] = "test"
    """Organism only: `calibration` while choosing settings, `test` once they are frozen."""
    split_seed: int = 13
    """Seed of the split of questions; the same for every training seed."""
    strict: bool = False
    """Stop at the first malformed row instead of setting it aside in rejects.jsonl."""


class DirectionConfig(Settings):
    """How a direction is read from the refusal adapter."""

    rank: int = Field(4, ge=1)
    """k of the left subspace, of each matrix."""
    factor: Literal["change", "raw"] = "change"
    """Factor space: the change of each tensor since its start, or (the original's) its value, mostly random start."""


class SorryBenchConfig(Settings):
    """SORRY-Bench over OpenAI-compatible endpoints; an arm whose `model` is empty is left out."""

    source: SourceSettings = SourceSettings()
    """The data set: the hub (gated), or its files."""
    styles: tuple[str, ...] = ("base",)
    """Prompt styles, `base` and the set's 20 mutations."""
    limit: int = Field(0, ge=0)
    """At most so many questions, the categories taking turns; 0: all."""
    base: EndpointSettings = EndpointSettings(max_tokens=256)
    """The model as it comes."""
    vanilla: EndpointSettings = EndpointSettings(max_tokens=256)
    """The model under the vanilla attack."""
    orthogonal: EndpointSettings = EndpointSettings(max_tokens=256)
    """The model under the projected attack."""


class SynthesizeConfig(Settings):
    """More attack pairs from a model."""

    rows: int = Field(1000, ge=1)
    """Requests put to the model."""
    adapter: Path | None = None
    """An adapter on the model, for example a run's vanilla attack, or the folder of a whole fine-tuned model."""
    temperature: float = Field(0.8, ge=0)
    """Sampling temperature."""
    keep: Literal["compliance", "all"] = "compliance"
    """Keep replies the rules call compliance, or all that are not empty."""


class HubConfig(Settings):
    """Where `push` and `pull` find the hub. The token comes from HF_TOKEN alone."""

    endpoint: str = "https://huggingface.co"
    """Address of the hub."""
    prefix: str = "refusal-experiment"
    """Repositories are called <namespace>/<prefix>-<name>."""


class OrthConfig(Settings):
    """Can an attack be kept out of a direction?"""

    model: ModelSettings = ModelSettings()
    """The aligned model under attack."""
    setup: Literal["base", "merged"] = "base"
    """The attack's start: a fresh adapter on the base, or a fresh one on the base with the refusal adapter merged."""
    data: DataConfig = DataConfig()
    """Data of the adapters and of the evaluation."""
    lora: LoraSettings = LoraSettings()
    """Every adapter's rank, scale and targets."""
    refusal: TrainSettings = TrainSettings()
    """Training of the refusal adapter (and of the benign and red ones, for controls)."""
    attack: TrainSettings = TrainSettings()
    """Training of every attack: one budget for all arms."""
    direction: DirectionConfig = DirectionConfig()
    """Directions."""
    points: int = Field(6, ge=2)
    """Evaluated steps after the start, evenly spaced in log(1 + step)."""
    penalty: float = Field(0.1, gt=0)
    """Strength lambda of the penalty arm."""
    kl: float = Field(1.0, gt=0)
    """Strength beta of the KL arm."""
    replay_share: float = Field(0.05, gt=0, lt=1)
    """Share of the attack's rows that the replay arm replaces by refusals."""
    projected_epochs: float | None = Field(None, gt=0)
    """CONFOUNDED when set: the projected arms train so many epochs instead of the attack's own, as the original did.
    Budgets are then unequal, and no hypothesis is decided."""
    controls: bool = False
    """Also run the controls and the competing defences."""
    generate: GenerateSettings = GenerateSettings()
    """Replies to the held-out prompts."""
    judge: str = "rules"
    """Judges, separated by commas; the first decides the headline."""
    judging: JudgeSettings = JudgeSettings()
    """How model judges are asked."""
    sorry_bench: SorryBenchConfig = SorryBenchConfig()
    """The command `sorry-bench`."""
    synthesize: SynthesizeConfig = SynthesizeConfig()
    """The command `synthesize`."""
    hub: HubConfig = HubConfig()
    """The commands `push` and `pull`."""
