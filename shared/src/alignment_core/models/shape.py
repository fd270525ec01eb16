"""A model's shape, read from its config.json: the modules that transformers would build, without their weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.models import decoder
from alignment_core.models.catalogue import CATALOGUE
from alignment_core.models.noise import hush, quiet
from alignment_core.models.screen import asks_for_code

if TYPE_CHECKING:
    from alignment_core.config import LoraSettings, ModelSettings


@dataclass(frozen=True)
class Architecture:
    """Shape of a text decoder; sizes in elements."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    matrices: tuple[tuple[str, int, int], ...]
    """Last part of the name, inputs and outputs of every linear matrix in the layers."""
    others: int = 0
    """Weights elsewhere: norms, biases, experts, and what is no part of the text decoder."""

    @property
    def linear(self) -> int:
        """Weights in the layers' linear matrices."""
        return sum(i * o for _, i, o in self.matrices)

    @property
    def embedding(self) -> int:
        """Weights of the input embedding and, where it is not tied, the output head."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def weights(self) -> int:
        """All of the model's weights."""
        return self.linear + self.embedding + self.others

    def adapter_parameters(self, lora: LoraSettings, names: tuple[str, ...] | None = None) -> int:
        """Trainable weights: r (inputs + outputs) for each adapted matrix, `names` being what is adapted."""
        wanted = names if names is not None else None if lora.targets == "all-linear" else lora.targets
        return lora.r * sum(i + o for name, i, o in self.matrices if wanted is None or name in wanted)


def of(model: Any) -> Architecture:
    """The shape of a model, loaded or without weights."""
    config = model.config.get_text_config()
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings().weight
    tied = head is None or bool(config.tie_word_embeddings)
    matrices = tuple((name.rsplit(".", 1)[-1], *_sides(module)) for name, module in decoder.linear(model).items())
    copy_of = head.weight if tied and head is not None and head.weight is not embedding else None
    held = {id(p): int(p.numel()) for p in model.parameters() if p is not copy_of}
    vocab, hidden = embedding.shape
    inside = sum(i * o for _, i, o in matrices) + vocab * hidden * (1 if tied else 2)
    heads = config.num_attention_heads
    return Architecture(
        layers=len(decoder.layers(model)[1]),
        hidden=hidden,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocab=vocab,
        tied=tied,
        matrices=matrices,
        others=sum(held.values()) - inside,
    )


def _sides(module: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear module; GPT-2's is stored the other way round."""
    if hasattr(module, "in_features"):
        return int(module.in_features), int(module.out_features)
    inputs, outputs = module.weight.shape
    return int(inputs), int(outputs)


def config_file(settings: ModelSettings) -> Path | None:
    """The model's config.json: a folder's, or the hub's from its cache or, where there is a network, fetched."""
    folder = Path(settings.name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: no config.json; a model folder holds config.json, safetensors and a tokenizer")
        return folder / "config.json"
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    found = try_to_load_from_cache(settings.name, "config.json", revision=settings.revision)
    if isinstance(found, str):
        return Path(found)
    if constants.HF_HUB_OFFLINE:
        return None
    from alignment_core.data.hub import HubError, explained

    try:
        with explained(settings.name, "model"):
            return Path(hf_hub_download(settings.name, "config.json", revision=settings.revision))
    except HubError:
        return None


def config_of(settings: ModelSettings) -> dict[str, Any] | None:
    """What config.json says, or of a published model the catalogue; None where neither is at hand."""
    file = config_file(settings)
    if file is None:
        known = CATALOGUE.get(settings.name)
        return None if known is None else dict(known.config)
    values = io.read_json(file)
    for key in asks_for_code(values):
        raise UserError(f"{file}: {key!r} asks for code that comes with the model, which is never run here")
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UserError(f"{file}: not a model's config.json (no model_type)")
    return values


def build(values: Mapping[str, Any], attention: str = "auto") -> Any:
    """The model that config.json describes on the meta device, without weights; a new one at each call.

    Rotary positions that depend on the text's length are made plain: they change no shape. `UserError` where
    transformers cannot build it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    hush()
    plain = {k: v for k, v in copy.deepcopy(dict(values)).items() if k not in ("quantization_config", "dtype")}
    try:
        with quiet(), torch.device("meta"):
            config = AutoConfig.for_model(plain.pop("model_type"), **plain)
            rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
            if rope.get("rope_type") in ("dynamic", "longrope"):
                rope["rope_type"] = "default"
            asked = {} if attention in ("auto", "flash_attention_2") else {"attn_implementation": attention}
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **asked)
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"config.json: transformers cannot build this model: {reason}") from error


@lru_cache(maxsize=16)
def built(canonical: str) -> Any:
    """The model of a config.json, given as canonical text, on the meta device; shared: do not change it."""
    return build(json.loads(canonical))


def meta_model(settings: ModelSettings) -> Any | None:
    """The model of these settings on the meta device, shared: do not change it. None where its config.json is not at
    hand."""
    values = config_of(settings)
    return None if values is None else built(io.canonical(values))


def architecture(settings: ModelSettings) -> Architecture | None:
    """The shape of the model of these settings; None where its config.json is not at hand."""
    model = meta_model(settings)
    return None if model is None else of(model)
