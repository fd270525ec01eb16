"""Low-rank adapters (LoRA, arXiv 2106.09685; QLoRA, arXiv 2305.14314): settings to PEFT, saving byte for byte.

PEFT writes its settings' target modules in hash order and its own model card; here the config is sorted JSON and the
identity of the base stands beside it, so that two equal adapters are equal files and an adapter knows its base.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core import io
from alignment_core.errors import UserError, nearest
from alignment_core.models.adapter import BASE, CONFIG, WEIGHTS
from alignment_core.models.noise import quiet

if TYPE_CHECKING:
    from alignment_core.config import LoraSettings


def to_peft(settings: LoraSettings) -> Any:
    """The PEFT `LoraConfig` of these settings; B starts at zero, so a fresh adapter changes nothing."""
    from peft import LoraConfig

    targets = settings.targets if settings.targets == "all-linear" else sorted(settings.targets)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        bias=settings.bias,
    )


def linear_names(model: Any) -> list[str]:
    """Last parts of the names of a model's linear modules, the output head left out, sorted."""
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if module is not head and type(module).__name__ in ("Linear", "Conv1D", "Linear4bit", "Linear8bitLt")
        }
    )


def add_adapter(model: Any, settings: LoraSettings) -> Any:
    """A PeftModel with a fresh adapter named `default`; `UserError` for a target that the model has no module for."""
    from peft import get_peft_model

    if settings.targets != "all-linear":
        known = linear_names(model)
        for target in settings.targets:
            if target not in known:
                raise UserError(
                    f"lora.targets: the model has no linear module {target!r}{nearest(target, known)}; "
                    f"it has {', '.join(known)}"
                )
    with quiet():
        return get_peft_model(model, to_peft(settings))


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
