"""Settings of the judges that are models; the rules and the published detectors need none."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from alignment_core.config import EndpointSettings, ModelSettings, Settings

Style = Literal["instruct", "basic", "organism"]


class CriticEndpoint(EndpointSettings):
    """A critic behind an OpenAI-compatible chat endpoint; a critique is longer than a label."""

    max_tokens: int = Field(120, ge=1)
    """Longest critique in tokens."""


class CriticSettings(Settings):
    """A model that scores a reply from 1 to 5 against a constitution."""

    via: Literal["model", "endpoint"] = "model"
    """`model`: in this process; `endpoint`: an OpenAI-compatible server."""
    model: ModelSettings = ModelSettings()
    """The model in this process."""
    endpoint: CriticEndpoint = CriticEndpoint()
    """The server."""
    constitution: Path | None = None
    """Text file of numbered principles; the embedded critic takes up to five of its ten, by default four."""
    style: Style = "organism"
    """How it is asked: `instruct` for chat models, `basic` for base models, `organism` for the embedded ones, which
    know one form of question."""
    scoring: Literal["digits", "generate", "both"] = "digits"
    """`generate`: it writes a critique, whose score line is parsed; `digits`: one forward pass reads how probable
    each of the digits 1 to 5 is; `both`: score by digits, reason and principle from the critique."""
    max_new_tokens: int = Field(120, ge=8)
    """Longest critique in tokens."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of critiques in this process; 0 is greedy."""
    batch_size: int = Field(16, ge=1)
    """Questions in one forward pass."""
    max_chars: int = Field(8000, ge=1)
    """Characters of request and reply that are shown; a note says what is left out."""

    @model_validator(mode="after")
    def _endpoint_writes(self) -> Self:
        if self.via == "endpoint" and self.scoring != "generate":
            raise ValueError("an endpoint gives text and no digits' probabilities: set scoring=generate")
        return self


class JudgeSettings(Settings):
    """How model judges are asked."""

    model: ModelSettings = ModelSettings()
    """The local model of the judge `model`."""
    endpoint: EndpointSettings = EndpointSettings()
    """The server of the judge `endpoint`."""
    critic: CriticSettings = CriticSettings()
    """The judge `critic`: a score of 1 to 5, and the label that a rubric gives it."""
    reads: Literal["probabilities", "generate"] = "probabilities"
    """How the judge `model` answers: by the probabilities of the four labels in one forward pass, or in writing."""
    max_chars: int = Field(8000, ge=1)
    """Characters of request and reply that `model` and `endpoint` are shown."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest written answer of `model` in tokens."""
    batch_size: int = Field(16, ge=1)
    """Questions to `model` in one forward pass."""
