"""A model and its tokenizer, from the embedded ones, the hub at a pinned revision, or a folder.

Weights are safetensors only; code that comes with a model is never run: a config.json that asks for it is refused
before anything is loaded. 4-bit loading is NF4 with double quantisation (QLoRA, arXiv 2305.14314) and also works on
the CPU. Nothing heavy is imported until a model is asked for.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core import io
from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError
from alignment_core.models.adapter import adapter_identity, attach, check_folder
from alignment_core.models.choose_template import template_for
from alignment_core.models.device import place
from alignment_core.models.noise import hush, quiet
from alignment_core.models.screen import asks_for_code, screen
from alignment_core.models.template import stop_ids, template_identity
from alignment_core.pipeline.notes import note

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings

__all__ = ["Loaded", "Resolved", "adapter_identity", "check_adapter", "fetch", "identity", "load", "resolve", "screen"]

log = logging.getLogger("alignment_core")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_REVISION = re.compile(r"[0-9a-f]{40}")
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class Resolved:
    """Where a model is and how it will be held: device type, dtype's name, and either a folder or hub id + revision."""

    device: str
    dtype: str
    folder: Path | None
    hub_id: str | None = None
    revision: str | None = None


@dataclass
class Loaded:
    """A model in memory. `stop_ids` end a reply; `template_name` is a family or `own`."""

    model: Any
    tokenizer: Any
    device: str
    dtype: str
    template_name: str
    stop_ids: tuple[int, ...] = ()


def resolve(settings: ModelSettings) -> Resolved:
    """Settle device, dtype and place without loading or downloading anything; `UserError` names what is wrong."""
    device, dtype = place(settings)
    name, revision = settings.name, settings.revision
    if seed := embedded_seed(settings.name):
        from alignment_core.organism import weights

        return Resolved(device, dtype, weights.path(seed))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Resolved(device, dtype, folder)
    if not _HUB_ID.fullmatch(name) or name.startswith((".", "/", "~")):
        raise UserError(f"model.name={name}: no such folder, and not a hub id (owner/name); or use organism")
    if revision is None or not _REVISION.fullmatch(revision):
        raise UserError(
            f"model.revision={revision}: a hub model needs the full commit, 40 hex digits, so that the run can be "
            f"repeated; see the commits page of {name} on the hub"
        )
    return Resolved(device, dtype, None, name, revision)


@lru_cache(maxsize=64)
def _digest(file: Path, size: int, changed: int) -> str:
    return io.sha256_file(file)


def _folder_identity(folder: Path) -> str:
    """Hex sha256 over the names and contents of a model folder's settings, tokenizer and weights."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in (".json", ".safetensors", ".model", ".txt", ".jinja"):
            stat = file.stat()
            digest.update(f"{file.name} {_digest(file, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


def _weights(settings: ModelSettings, resolved: Resolved) -> dict[str, Any]:
    if resolved.folder is None:
        return {"kind": "hub", "name": resolved.hub_id, "revision": resolved.revision}
    if embedded_seed(settings.name):
        from alignment_core.organism import weights

        return {"kind": "organism", "name": settings.name, "sha256": weights.identity(resolved.folder)}
    return {"kind": "folder", "name": resolved.folder.name, "sha256": _folder_identity(resolved.folder)}


def identity(settings: ModelSettings) -> dict[str, Any]:
    """What a model is, as JSON data for step keys: weights, template, quantisation, dtype, device type, attention.

    Loads no weights and needs no network. Raises `UserError` as `resolve` does.
    """
    resolved = resolve(settings)
    return {
        "weights": _weights(settings, resolved),
        "template": template_identity(settings.template),
        "quantize": settings.quantize,
        "dtype": resolved.dtype,
        "device": resolved.device,
        "attention": settings.attention,
    }


def check_adapter(folder: Path, settings: ModelSettings) -> None:
    """`UserError` unless `folder` holds a safetensors LoRA adapter that may stand on this base."""
    check_folder(folder, _weights(settings, resolve(settings)))


def fetch(resolved: Resolved) -> Path:
    """Folder with the model's files, downloaded where it must be; the config is screened before weights are fetched."""
    if resolved.folder is not None:
        screen(resolved.folder)
        return resolved.folder
    from huggingface_hub import hf_hub_download, snapshot_download

    from alignment_core.data import hub

    repo, revision = str(resolved.hub_id), str(resolved.revision)
    with hub.explained(repo, "model"):
        config = Path(hf_hub_download(repo, "config.json", revision=revision))
        for key in asks_for_code(io.read_json(config)):
            raise UserError(f"{repo}: config.json: {key!r} asks for code of the model's own, which is never run")
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=_FILES))
    screen(folder)
    return folder


def free() -> None:
    """Give a model's memory back once nothing holds it."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _quantisation(settings: ModelSettings, dtype: Any) -> Any:
    if settings.quantize == "none":
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _one_arithmetic(model: Any) -> None:
    """Keep bitsandbytes from rewriting 4-bit weights in place at the first evaluation on some CPUs.

    With AVX512-BF16 it repacks them with coarser scales once a layer runs without gradients: the model that was
    evaluated is then not the one that was trained, training cannot go on, and shapes off its grid fail.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _device(device: str) -> str:
    """The device of this process: under torchrun each has its own CUDA device."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def _read(settings: ModelSettings, resolved: Resolved, folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model from a screened folder; `UserError` when transformers cannot make them of its files."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantisation = _quantisation(settings, getattr(torch, resolved.dtype))
    placement = {"device_map": {"": _device(resolved.device)}} if quantisation is not None else {}
    attention = {} if settings.attention == "auto" else {"attn_implementation": settings.attention}
    safe = {"trust_remote_code": False, "local_files_only": True}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, resolved.dtype),
                use_safetensors=True,
                quantization_config=quantisation,
                **safe,
                **placement,
                **attention,
            )
            if quantisation is None:
                model.to(_device(resolved.device))
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: the model cannot be loaded: {type(error).__name__}: {reason}") from error
    if quantisation is not None:
        _one_arithmetic(model)
    return tokenizer, model


def _own_stops(model: Any) -> list[int]:
    """The end tokens the model itself names: Llama 3.1 has two beside its end of turn."""
    own = model.generation_config.eos_token_id
    return [] if own is None else [own] if isinstance(own, int) else list(own)


def load(settings: ModelSettings, adapter: Path | None = None, trainable: bool = False) -> Loaded:
    """Model (in eval mode) and tokenizer with the template of `settings` set; `adapter` is put on top, checked.

    `trainable` leaves the adapter's weights trainable (everything else is frozen by PEFT). Raises `UserError` for
    everything a user can mend: missing or foreign files, code, pickles, templates, adapters of another base.
    """
    hush()
    resolved = resolve(settings)
    if adapter is not None:
        check_folder(adapter, _weights(settings, resolved))
    folder = fetch(resolved)
    tokenizer, model = _read(settings, resolved, folder)
    template = template_for(settings, tokenizer)
    for one in template.notes:
        note(one)
    tokenizer.chat_template = template.text
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    stops = tuple(dict.fromkeys((*stop_ids(tokenizer, template), *_own_stops(model))))
    model.generation_config.eos_token_id = list(stops)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    if trainable and settings.quantize != "none":
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if adapter is not None:
        model = attach(model, adapter, trainable=trainable)
    model.eval()
    log.debug("loaded %s on %s as %s, template %s", settings.name, resolved.device, resolved.dtype, template.name)
    return Loaded(model, tokenizer, resolved.device, resolved.dtype, template.name, stops)
