"""LoRA adapter folders: what they are, whether they may be loaded, and putting one on a base model.

An adapter is `adapter_model.safetensors`, `adapter_config.json` and, where this project wrote it, `base.json`: the
identity of the base it was trained on. PEFT falls back to a pickle when the safetensors file is missing and only
warns about missing weights; here the pickle is refused, and missing, unexpected or misshapen weights are errors.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.models.adapter_base import BASE, check_base
from alignment_core.models.adapter_settings import CONFIG, WEIGHTS, check_ranks, check_settings, to_peft
from alignment_core.models.noise import quiet
from alignment_core.models.tensors import header, read

__all__ = ["BASE", "CONFIG", "WEIGHTS", "adapter_identity", "attach", "check_folder", "pickles"]

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def pickles(folder: Path) -> list[str]:
    """Names of the weight files in `folder` that are pickles (a pickle can run code when it is read)."""
    return sorted(f.name for f in folder.iterdir() if f.suffix in _PICKLES and f.is_file())


def adapter_identity(folder: Path) -> str:
    """Hex sha256 of an adapter: its weights and its settings."""
    digest = hashlib.sha256()
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}; an adapter folder holds {WEIGHTS} and {CONFIG}")
        digest.update(f"{name} {io.sha256_file(folder / name)}\n".encode())
    return digest.hexdigest()


def check_folder(folder: Path, base: dict[str, Any] | None) -> dict[str, Any]:
    """The adapter's settings, after every check that reads no weights; `UserError` says what is wrong.

    `base` is the identity of the base model it is to stand on (`load.identity(...)["weights"]`), or None where it
    stands on none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such adapter folder")
    if not (folder / WEIGHTS).is_file():
        found = pickles(folder)
        why = f"only the pickle {found[0]}, which can run code; convert it to safetensors" if found else "no weights"
        raise UserError(f"{folder}: {why} ({WEIGHTS} is needed)")
    config = io.read_object(folder / CONFIG)
    check_settings(folder / CONFIG, config)
    check_ranks(folder, config)
    if base is not None:
        check_base(folder, config.get("base_model_name_or_path"), base)
    return config


def attach(model: Any, folder: Path, *, trainable: bool) -> Any:
    """`model` with the adapter in `folder` on it, under the name `default`; the caller has run `check_folder`.

    Returns a PeftModel. Weights are read from the safetensors file alone and must match the adapter's places in this
    base one to one, by name and shape. `trainable=False` freezes them.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    file = folder / WEIGHTS
    _check_widths(model, file)
    config = to_peft(folder)
    config.inference_mode = not trainable
    try:
        with quiet():
            peft_model = get_peft_model(model, config)
    except Exception as error:
        raise UserError(f"{folder}: the adapter's modules are not in this base model: {_line(error)}") from error
    state = read(file)
    with quiet():
        wanted = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    if missing := sorted(wanted.keys() - state.keys()):
        raise UserError(f"{file}: {len(missing)} weights are missing, the first {missing[0]}")
    if extra := sorted(state.keys() - wanted.keys()):
        raise UserError(f"{file}: {len(extra)} weights have no place in this base, the first {extra[0]!r:.120}")
    for name in sorted(state):
        _check_shape(file, name, tuple(state[name].shape), tuple(wanted[name].shape))
    with quiet():
        set_peft_model_state_dict(peft_model, state)
    return peft_model


def _check_widths(model: Any, file: Path) -> None:
    """`UserError` where a factor does not fit its matrix; before memory is taken for a foreign file's ranks."""
    modules = dict(model.named_modules())
    for name, entry in header(file).items():
        module, _, factor = name.removeprefix("base_model.model.").rpartition(".lora_")
        if factor not in ("A.weight", "B.weight") or len(entry.shape) != 2:
            continue
        rows, columns = entry.shape
        inputs, outputs = (getattr(modules.get(module), of, None) for of in ("in_features", "out_features"))
        if inputs is not None and factor == "A.weight":
            _check_shape(file, name, entry.shape, (rows, inputs))
        elif outputs is not None and factor == "B.weight":
            _check_shape(file, name, entry.shape, (outputs, columns))


def _check_shape(file: Path, name: str, shape: tuple[int, ...], needed: tuple[int, ...]) -> None:
    if shape != needed:
        raise UserError(
            f"{file}: {name} has shape {shape}, this base needs {needed}; the adapter was trained on another model"
        )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
