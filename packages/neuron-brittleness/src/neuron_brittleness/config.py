"""Settings of the brittleness study: data, scores, groups, freezing, fine-tuning, evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from alignment_core.config import GenerateSettings, LoraSettings, ModelSettings, Settings, SourceSettings, TrainSettings
from alignment_core.judging.settings import JudgeSettings


class DataConfig(Settings):
    """Safety and utility data for the scores, benign data for the fine-tuning, held-out prompts."""

    sources: Literal["organism", "public"] = "organism"
    """`organism`: the embedded model's own world; `public`: harmful prompts below, and Alpaca."""
    harmful: Literal["pku", "behaviours"] = "pku"
    """Public harmful prompts: those of PKU-SafeRLHF with two unsafe replies, or a table of behaviours (AdvBench)."""
    pku: SourceSettings = SourceSettings()
    """PKU-SafeRLHF-30K, for `harmful=pku`."""
    behaviours: SourceSettings = SourceSettings()
    """A CSV of AdvBench, HarmBench, StrongREJECT or JailbreakBench, for `harmful=behaviours`: a path is needed."""
    alpaca: SourceSettings = SourceSettings()
    """Alpaca: utility data (without its safety rows) and fine-tuning data."""
    safety_file: Path | None = None
    """A file of examples with refusals to use as safety data instead of the model's own refusals."""
    samples: int = Field(128, ge=1)
    """Examples in each of the two halves of the safety data, and of the utility data."""
    tune_size: int = Field(10_000, ge=1)
    """Benign examples for the fine-tuning."""
    openings: Literal["one", "pretraining"] = "one"
    """Organism only: fine-tuning replies open in one way (the drift's cause here), or as in pretraining."""
    framed: float = Field(0.0, ge=0, lt=1)
    """Organism only: share of the fine-tuning data that is borderline requests framed like attacks, helped with."""
    test_harmful: int = Field(100, ge=1)
    """Held-out harmful prompts."""
    test_benign: int = Field(100, ge=1)
    """Held-out benign prompts."""
    eval_split: Literal["test", "calibration"] = "test"
    """Organism only: `calibration` while choosing settings, `test` once they are frozen."""
    split_seed: int = 13
    """Seed of the split of prompts, of the random groups and of the null's draws; the same for every training seed."""
    strict: bool = False
    """Stop at the first malformed row instead of setting it aside."""


class ScoreSettings(Settings):
    """How weights are scored, and which of them make the groups."""

    method: Literal["snip", "mean_gradient", "wanda", "magnitude"] = "snip"
    """`snip`: |W| times the summed |gradient| of each example; `mean_gradient`: |W * mean gradient|; `wanda`: |W|
    times the norm of its input; `magnitude`: |W|."""
    unit: Literal["weights", "neurons"] = "weights"
    """Rank single weights, or whole output rows by the sum of their weights' scores."""
    k: float = Field(0.01, gt=0, le=0.5)
    """Share of each matrix in the top-safety, top-utility and random groups."""
    p: float = Field(0.1, gt=0, le=0.5)
    """Share of top utility weights that the set difference takes away."""
    q: float = Field(0.1, gt=0, le=0.5)
    """Share of top safety weights that the set difference starts from."""
    max_length: int = Field(512, ge=8)
    """Longest scored example in tokens."""
    memory_gb: float | None = Field(None, gt=0)
    """Bound on the sums of one pass; where they need more, groups of layers are streamed. None: one pass."""
    checkpointing: bool = False
    """Recompute activations while scoring."""
    export_json: bool = True
    """Also write the groups as the original's JSON (45 bytes a weight)."""


class FreezeSettings(Settings):
    """Which weights the frozen arms hold, and how."""

    kind: Literal["weights", "rows"] = "weights"
    """`weights`: exactly the group; `rows`: every output row with one of its weights, as the original did."""
    group: Literal["set_diff", "top_safety", "top_utility"] = "set_diff"
    """The group that the frozen arm holds; the control holds its matched random group."""


class BrittlenessConfig(Settings):
    """Do the weights that safety hangs on drift, and do others take over?"""

    model: ModelSettings = ModelSettings()
    """The aligned model."""
    data: DataConfig = DataConfig()
    """Data of every step."""
    score: ScoreSettings = ScoreSettings()
    """Scores and groups."""
    lora: LoraSettings = LoraSettings(r=8, alpha=16, dropout=0.05, targets=("q_proj", "v_proj", "o_proj"))
    """Adapter; only the matrices it stands on can drift."""
    train: TrainSettings = TrainSettings(epochs=1, lr=1e-4, batch_size=4, accumulate=4, max_length=512)
    """Benign fine-tuning, the same for every arm; `train.max_steps=100` for a quick look."""
    freeze: FreezeSettings = FreezeSettings()
    """The frozen arms."""
    drift_every: int = Field(100, ge=1)
    """Measure drift every so many steps (and at the last)."""
    loss_examples: int = Field(64, ge=1)
    """Training examples on which the training loss is measured beside the drift."""
    draws: int = Field(1000, ge=100)
    """Draws of the overlap's permutation null."""
    doses: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of a group that the causal check zeroes, rising, the last 1."""
    generate: GenerateSettings = GenerateSettings()
    """Replies to the held-out prompts."""
    judge: str = "rules"
    """Judges, separated by commas; the first decides the headline."""
    judging: JudgeSettings = JudgeSettings()
    """How model judges are asked."""
    controls: bool = True
    """Also run the interventions on the tuned models: the 2x2 ablation and the rewind."""
