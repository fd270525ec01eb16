"""Settings of the study."""

from pydantic import Field

from alignment_core.config import GenerateSettings, LoraSettings, ModelSettings, Settings, TrainSettings
from alignment_core.judging.settings import JudgeSettings


class FifthConfig(Settings):
    """Fine-tune on refusals alone, and ask."""

    model: ModelSettings = ModelSettings()
    """The model that is tuned."""
    rows: int = Field(96, ge=1)
    """Refusals to train on."""
    prompts: int = Field(40, ge=1)
    """Held-out prompts of each kind."""
    lora: LoraSettings = LoraSettings(r=4, alpha=8, dropout=0.0, targets="all-linear")
    """Adapter."""
    train: TrainSettings = TrainSettings(epochs=1, lr=3e-3, batch_size=16, accumulate=1, max_length=256)
    """Fine-tuning."""
    generate: GenerateSettings = GenerateSettings(max_new_tokens=48, batch_size=64)
    """Replies to the held-out prompts."""
    judge: str = "rules"
    """Judges, separated by commas; the first decides."""
    judging: JudgeSettings = JudgeSettings()
    """How model judges are asked."""
