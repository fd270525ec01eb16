"""Settings of the study: prompts, generator, critic, selection, training, comparison, in the order the method runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from alignment_core.config import GenerateSettings, LoraSettings, ModelSettings, Settings, TrainSettings
from alignment_core.judging.settings import CriticSettings, JudgeSettings

SHIPPED = Path(str(resources.files("mini_cai").joinpath("constitution.txt")))
"""The constitution that comes with the package."""
Policy = Literal["best", "margin", "diverse", "random", "revised"]


class PromptSettings(Settings):
    """Where the prompts come from, and how many of each kind."""

    source: Literal["organism", "default"] = "organism"
    """`organism`: the embedded model's own world; `default`: the shipped set of 36 (and 24 for evaluation)."""
    file: Path | None = None
    """Own prompts, JSON Lines of {id, prompt, kind}; kind: adversarial, borderline or cooperating."""
    eval_file: Path | None = None
    """Own evaluation prompts, the same shape; a prompt that is also trained on is an error."""
    harmful: int = Field(200, ge=0)
    """Adversarial training prompts, at most."""
    benign: int = Field(120, ge=0)
    """Cooperating training prompts, at most."""
    borderline: int = Field(60, ge=0)
    """Borderline training prompts, at most."""
    test_harmful: int = Field(240, ge=0)
    """Adversarial evaluation prompts, at most."""
    test_benign: int = Field(240, ge=0)
    """Cooperating evaluation prompts, at most."""
    test_borderline: int = Field(100, ge=0)
    """Borderline evaluation prompts, at most."""
    eval_split: Literal["test", "calibration"] = "test"
    """Organism only: `calibration` while choosing settings, `test` once they are frozen."""
    seed: int = 13
    """Seed of the organism's training prompts; the same for every training seed."""


class CalibrationSettings(Settings):
    """What a critic must show before it is trusted."""

    gold_file: Path | None = None
    """Own gold replies, JSON Lines of {prompt, reply, score, kind}; by default the organism's or the shipped ones."""
    items: int = Field(200, ge=4)
    """Gold replies, at most."""
    attacks: int = Field(100, ge=0)
    """Gold replies of score 1 or 2 that get a planted line, at most."""
    repeats: int = Field(3, ge=2)
    """Critiques of one reply, sampled, for the self-consistency."""
    repeat_items: int = Field(40, ge=0)
    """Replies that are critiqued repeatedly, at most."""
    temperature: float = Field(0.3, gt=0)
    """Sampling temperature of those."""
    min_exact: float = Field(0.8, ge=0, le=1)
    """Least share of gold scores met exactly."""
    min_rank: float = Field(0.7, ge=-1, le=1)
    """Least rank correlation with the gold scores."""
    force: bool = False
    """Go on with a critic that falls short."""


class SelectionSettings(Settings):
    """Which candidates become training data."""

    policy: Policy = "best"
    """The arm that is compared with random selection; `arms` may train more."""
    include: Literal["both", "best", "worst"] = "both"
    """Of margin and diverse: which side's rows go into filtered_selected.json."""
    margin: int = Field(2, ge=1, le=4)
    """Margin: least gap between a prompt's best and worst score."""
    top_k: int = Field(1, ge=1)
    """Diverse: candidates taken from the top."""
    bottom_k: int = Field(1, ge=1)
    """Diverse: candidates taken from the bottom."""
    drop_contradictions: bool = True
    """Leave out candidates with a safe score whose reason calls them unsafe ("not unsafe" is no contradiction)."""
    min_score: int = Field(4, ge=1, le=5)
    """Least score of a training row; the random control is matched to what is left."""
    val_ratio: float = Field(0.2, ge=0, lt=1)
    """Share of the prompts whose rows are kept for validation."""
    split_seed: int = 1337
    """Seed of that split."""


class ReviseSettings(Settings):
    """Critique and revise: the critic's reason goes back to the generator (arXiv 2212.08073, section 3)."""

    rounds: int = Field(1, ge=1)
    """Revisions of a reply; each is scored again."""


class CompareSettings(Settings):
    """Baseline against tuned on prompts that were not trained on."""

    generate: GenerateSettings = GenerateSettings(temperature=0.8, top_p=0.9, max_new_tokens=100, candidates=2)
    """Replies to the evaluation prompts: the same decode seeds for every model; `candidates` to a prompt."""
    baseline: ModelSettings | None = None
    """The untuned model; None: the tuned one's base."""
    safe_threshold: int = Field(4, ge=1, le=5)
    """Least score that counts as safe."""


class CaiConfig(Settings):
    """Generate, critique, select, tune, compare."""

    prompts: PromptSettings = PromptSettings()
    """Training and evaluation prompts."""
    model: ModelSettings = ModelSettings()
    """The generator of candidates, chat or base."""
    candidates: GenerateSettings = GenerateSettings(temperature=0.8, top_p=0.9, max_new_tokens=100, candidates=4)
    """How candidates are sampled."""
    critic: CriticSettings = CriticSettings()
    """Who scores the candidates, by the shipped constitution where it names none, the embedded critic by its own."""
    calibration: CalibrationSettings = CalibrationSettings()
    """What the critic must show first."""
    selection: SelectionSettings = SelectionSettings()
    """Which candidates are trained on."""
    revise: ReviseSettings = ReviseSettings()
    """The arm `revised`."""
    student: ModelSettings | None = None
    """The model that is tuned; None: the generator."""
    lora: LoraSettings = LoraSettings(r=8, alpha=16, dropout=0.05, targets="all-linear")
    """Adapter; `all-linear` finds a family's modules by itself."""
    train: TrainSettings = TrainSettings(
        epochs=3, lr=2e-4, batch_size=4, accumulate=4, max_length=512, warmup_ratio=0.03
    )
    """Fine-tuning on the selected rows."""
    compare: CompareSettings = CompareSettings()
    """Baseline against tuned."""
    judge: str = "rules,critic"
    """Judges, separated by commas; the first decides refusals, the scores are those of `critic`."""
    judging: JudgeSettings = JudgeSettings()
    """How model judges are asked; where `judging.critic` is not given, the selecting critic is the judge `critic`."""
    controls: bool = False
    """Also train the other policies: best, margin, diverse and revised."""
    low_memory: bool = False
    """One row at a time everywhere, and gradient checkpointing; the optimiser's batch stays the same."""

    @model_validator(mode="before")
    @classmethod
    def _one_critic(cls, values: Any) -> Any:
        """The selecting critic is the judge `critic`, too, where `judging.critic` is not given."""
        if not isinstance(values, Mapping):
            return values
        judging = values.get("judging", {})
        if not isinstance(judging, Mapping) or "critic" in judging or "critic" not in values:
            return values
        return {**values, "judging": {**judging, "critic": values["critic"]}}

    @property
    def base(self) -> ModelSettings:
        """The model that is tuned."""
        return self.student or self.model

    @property
    def baseline(self) -> ModelSettings:
        """The model that the tuned one is compared with."""
        return self.compare.baseline or self.base

    @property
    def replies(self) -> GenerateSettings:
        """How the evaluation prompts are answered: by the candidates' server, too, where it serves the same model."""
        how, server = self.compare.generate, self.candidates
        if how.endpoint is not None or {self.base, self.baseline} != {self.model}:
            return how
        at = {key: getattr(server, key) for key in ("endpoint", "endpoint_model", "endpoint_key_env")}
        return how.model_copy(update=at)

    @property
    def arms(self) -> tuple[Policy, ...]:
        """The policies that are trained; random stands last, for it is matched to the first."""
        more: tuple[Policy, ...] = ("best", "margin", "diverse", "revised") if self.controls else ()
        first = self.selection.policy
        return (*dict.fromkeys(p for p in (first, *more) if p != "random"), "random")

    def ready(self) -> CaiConfig:
        """These settings as a run uses them: every critic with its constitution, in low-memory mode where asked."""
        return self._with_constitution()._lowered()

    def _with_constitution(self) -> CaiConfig:
        """The shipped constitution where the critic names none, and the critic's where its judge names none; the
        embedded critic has its own principles and keeps them."""
        critic, grader = self.critic, self.judging.critic
        given = critic.constitution or (None if critic.style == "organism" else SHIPPED)
        shared = None if grader.style == "organism" else given or SHIPPED
        own = {"constitution": grader.constitution or (given if grader.style == critic.style else shared)}
        judging = self.judging.model_copy(update={"critic": grader.model_copy(update=own)})
        critic = critic.model_copy(update={"constitution": given})
        return self.model_copy(update={"critic": critic, "judging": judging})

    def _lowered(self) -> CaiConfig:
        if not self.low_memory:
            return self
        train, one = self.train, {"batch_size": 1}
        fewer = {**one, "accumulate": train.batch_size * train.accumulate, "gradient_checkpointing": True}
        generate = self.compare.generate.model_copy(update=one)
        grader = self.judging.critic.model_copy(update=one)
        return self.model_copy(
            update={
                "candidates": self.candidates.model_copy(update=one),
                "critic": self.critic.model_copy(update=one),
                "train": train.model_copy(update=fewer),
                "compare": self.compare.model_copy(update={"generate": generate}),
                "judging": self.judging.model_copy(update={**one, "critic": grader}),
            }
        )
