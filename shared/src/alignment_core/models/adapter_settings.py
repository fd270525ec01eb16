"""An adapter's settings (`adapter_config.json`), checked before PEFT sees them: LoRA of finite, believable numbers.

PEFT takes what stands there: it multiplies by `lora_alpha` NaN, makes factors of rank `r` whatever their file holds,
imports the library that `megatron_config` names, and matches regular expressions that need not end. Here only
settings of a known type and size are handed on, and the modules are read from the weights' names where the settings
give them as an expression.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.models.tensors import header

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
LARGEST_RANK, LARGEST_ALPHA = 1 << 14, 1e6
# What makes another computation of an adapter than plain LoRA, imports a named module, rewrites the base's weights,
# or is copied wrongly by TRL into a DPO reference.
_REFUSED = (
    "megatron_config", "corda_config", "eva_config", "lora_ga_config", "trainable_token_indices", "layer_replication",
    "use_qalora", "use_bdlora", "arrow_config", "kasa_config", "velora_config", "monteclora_config",
    "alora_invocation_tokens",
)  # fmt: skip
_PLAIN_INIT = (True, False, None, "gaussian", "orthogonal")

Name = Annotated[str, Field(pattern=r"^[\w.\-]+$", max_length=300)]
"""A module's name or the end of one; PEFT reads it as an expression, in which these letters mean no loop."""
Pattern = Annotated[str, Field(pattern=r"^\^?[\w.\-\\$]+$", max_length=300)]
Rank = Annotated[int, Field(ge=1, le=LARGEST_RANK)]
Alpha = Annotated[float, Field(gt=0, le=LARGEST_ALPHA, allow_inf_nan=False)]


class LoraFile(BaseModel):
    """The settings that are handed to PEFT; every other key of the file is left out."""

    model_config = ConfigDict(strict=True, extra="ignore")

    task_type: Literal["CAUSAL_LM"] | None = None
    r: Rank
    lora_alpha: Alpha
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rank_pattern: dict[Pattern, Rank] | None = None
    alpha_pattern: dict[Pattern, Alpha] | None = None
    target_modules: list[Annotated[str, Field(max_length=300)]] | Annotated[str, Field(max_length=10_000)] | None = None
    exclude_modules: list[str] | str | None = None
    target_parameters: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[Name] | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    init_lora_weights: bool | str | None = True


def check_settings(file: Path, config: dict[str, Any]) -> None:
    """`UserError` unless an adapter's settings are those of a LoRA adapter that can be loaded here."""
    if config.get("peft_type") != "LORA":
        raise UserError(f"{file}: not a LoRA adapter (peft_type {config.get('peft_type')!r:.80})")
    for key in _REFUSED:
        if config.get(key):
            raise UserError(f"{file}: {key!r} is not supported; save the adapter as plain LoRA")
    if (init := config.get("init_lora_weights", True)) not in _PLAIN_INIT:
        raise UserError(
            f"{file}: init_lora_weights={init!r:.80} rewrites the base model when loaded; "
            "convert it to plain LoRA first (save_pretrained with path_initial_model_for_weight_conversion)"
        )
    try:
        LoraFile.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"][:2])
        raise UserError(f"{file}: {at}={first['input']!r:.80}: {first['msg']}; save the adapter again") from error


def check_ranks(folder: Path, config: dict[str, Any]) -> None:
    """`UserError` where the settings name a rank that none of the factors in the weights has."""
    shapes = [e.shape for name, e in header(folder / WEIGHTS).items() if _FACTOR.search(name) and e.shape]
    if not shapes:
        raise UserError(f"{folder / WEIGHTS}: holds no lora_A; it is not the weights of a LoRA adapter")
    ranks = {"r": config["r"], **(config.get("rank_pattern") or {})}
    for name, rank in ranks.items():
        if rank > max(shape[0] for shape in shapes):
            raise UserError(f"{folder / CONFIG}: {name}={rank}, but no factor in {WEIGHTS} has that rank")


_FACTOR = re.compile(r"\.lora_(?:embedding_)?A\b")


def to_peft(folder: Path) -> Any:
    """The PEFT `LoraConfig` of a checked adapter folder, of nothing but the settings that were checked."""
    from peft import LoraConfig

    config = io.read_object(folder / CONFIG)
    kept = {key: config[key] for key in LoraFile.model_fields if config.get(key) is not None}
    if _expressions(config):
        names = (name.removeprefix("base_model.model.") for name in header(folder / WEIGHTS))
        kept["target_modules"] = sorted({name[: at.start()] for name in names if (at := _FACTOR.search(name))})
        for key in ("exclude_modules", "layers_to_transform", "layers_pattern"):
            kept.pop(key, None)
    return LoraConfig(**kept)


def _expressions(config: dict[str, Any]) -> bool:
    """Whether an adapter's modules are chosen by a regular expression."""
    chosen = config.get("target_modules")
    plain = chosen is None or isinstance(chosen, list) or chosen == "all-linear"
    return not plain or isinstance(config.get("exclude_modules"), str) or bool(config.get("layers_pattern"))
