"""Low-rank adapters (LoRA, arXiv 2106.09685; QLoRA, arXiv 2305.14314): settings to PEFT, saving byte for byte.

PEFT writes its settings' target modules in hash order and its own model card; here the config is sorted JSON and the
identity of the base stands beside it, so that two equal adapters are equal files and an adapter knows its base.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core import io
from alignment_core.errors import UserError, nearest
from alignment_core.models import decoder
from alignment_core.models.adapter import BASE, CONFIG, WEIGHTS
from alignment_core.models.noise import quiet

if TYPE_CHECKING:
    from alignment_core.config import LoraSettings

log = logging.getLogger("alignment_core")


_ROLES = {
    "q_proj": ("qkv_proj", "query_key_value", "Wqkv", "c_attn"),
    "k_proj": ("qkv_proj", "query_key_value", "Wqkv", "c_attn"),
    "v_proj": ("qkv_proj", "query_key_value", "Wqkv", "c_attn"),
    "o_proj": ("out_proj", "dense", "c_proj"),
    "gate_proj": ("gate_up_proj", "fc1", "c_fc", "dense_h_to_4h"),
    "up_proj": ("gate_up_proj", "fc1", "c_fc", "dense_h_to_4h"),
    "down_proj": ("fc2", "c_proj", "dense_4h_to_h"),
}
"""What other families call the modules that Llama names so, the likeliest first."""


def targets(model: Any, settings: LoraSettings) -> tuple[str, ...]:
    """Names of the text decoder's linear modules that get an adapter, sorted.

    A name of Llama's stands for what the model has in that place (Phi-3's `qkv_proj`, Phi-2's `fc1`). `UserError` for
    any other name that the model has no module for.
    """
    known = linear_names(model)
    if settings.targets == "all-linear":
        return tuple(known)
    found: set[str] = set()
    for target in settings.targets:
        there = target if target in known else next((n for n in _ROLES.get(target, ()) if n in known), None)
        if there is None:
            raise UserError(
                f"lora.targets: the model has no linear module {target!r}{nearest(target, known)}; "
                f"it has {', '.join(known)}; or set lora.targets=all-linear"
            )
        found.add(there)
    return tuple(sorted(found))


def to_peft(settings: LoraSettings, model: Any) -> Any:
    """The PEFT `LoraConfig` of these settings for a model; B starts at zero, so a fresh adapter changes nothing."""
    from peft import LoraConfig

    names = targets(model, settings)
    outside = decoder.apart(model)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets if settings.targets == "all-linear" else list(names),
        exclude_modules="|".join(rf"{re.escape(name)}\..*" for name in outside) or None,
        bias=settings.bias,
    )


def linear_names(model: Any) -> list[str]:
    """Last parts of the names of the linear modules in the text decoder's layers, sorted."""
    return sorted({name.rsplit(".", 1)[-1] for name in decoder.linear(model)})


def add_adapter(model: Any, settings: LoraSettings) -> Any:
    """A PeftModel with a fresh adapter named `default` on its text decoder; `UserError` for a target that the model
    has no module for, and for a model whose weights are not in linear matrices."""
    from peft import get_peft_model

    decoder.check(model)
    names = targets(model, settings)
    if settings.targets != "all-linear" and set(names) != set(settings.targets):
        log.info("adapters: this model has no %s; they go on %s", _missing(settings, names), ", ".join(names))
    with quiet():
        return get_peft_model(model, to_peft(settings, model))


def _missing(settings: LoraSettings, names: Sequence[str]) -> str:
    return ", ".join(name for name in settings.targets if name not in names)


def adapter_state(model: Any, name: str = "default") -> dict[str, Any]:
    """Copies of an adapter's weights on the CPU, by PEFT's names without the adapter's own; where the processes hold
    a part each (FSDP) all of them call this, and each gets the whole."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    whole = {k: t.full_tensor() if hasattr(t, "full_tensor") else t for k, t in ((k, state[k]) for k in sorted(state))}
    return {key: tensor.detach().to("cpu").clone().contiguous() for key, tensor in whole.items()}


def save_adapter(model: Any, folder: Path, base: dict[str, Any], state: dict[str, Any] | None = None) -> None:
    """Write the adapter `default` of a PeftModel: weights (or `state`, where that was read already), sorted settings,
    and the identity of its base.

    `base` is `load.identity(...)["weights"]`. The folder holds no pickle, and two equal adapters give equal bytes.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapter_state(model) if state is None else state, str(folder / WEIGHTS), metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    for key, value in config.items():
        if isinstance(value, set | frozenset):
            config[key] = sorted(value)
        elif hasattr(value, "value"):
            config[key] = value.value
    config |= {"base_model_name_or_path": base["name"], "revision": base.get("revision"), "inference_mode": True}
    io.write_json(folder / CONFIG, dict(sorted(config.items())))
    io.write_json(folder / BASE, base)
