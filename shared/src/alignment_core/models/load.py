"""A model and its tokenizer, from the embedded ones, the hub at a pinned revision, or a folder.

Weights are safetensors only; code that comes with a model is never run: a config.json that asks for it is refused
before anything is loaded, and so are weights and logits that are not finite. Nothing heavy is imported until a model
is asked for.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core import io
from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError
from alignment_core.models.adapter import CONFIG, WEIGHTS, adapter_identity, attach, check_folder
from alignment_core.models.choose_template import template_for
from alignment_core.models.device import place
from alignment_core.models.finite import check_logits, embedded_tokens
from alignment_core.models.noise import hush
from alignment_core.models.pretrained import own_stops, read_folder
from alignment_core.models.screen import asks_for_code, screen
from alignment_core.models.template import stop_ids, template_identity
from alignment_core.pipeline.notes import note

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings

__all__ = [
    "Loaded", "Resolved", "adapter_identity", "check_adapter", "fetch", "identity", "load", "resolve", "screen",
    "tuned",
]  # fmt: skip

log = logging.getLogger("alignment_core")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_REVISION = re.compile(r"[0-9a-f]{40}")
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_COPIES = ["consolidated*", "*/*"]
"""The same weights a second time, in their publishers' own format (Mistral, Llama), and other tools' folders."""


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
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=_FILES, ignore_patterns=_COPIES))
    screen(folder)
    return folder


def free() -> None:
    """Give a model's memory back once nothing holds it."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tuned(settings: ModelSettings, folder: Path) -> tuple[ModelSettings, Path | None]:
    """What `load` needs for the tuned model in `folder`: an adapter on the model of `settings`, or a whole fine-tuned
    model in its place; also those of a training's step, in `adapter/` or `model/`. `UserError` when it is neither."""
    for one in (folder, folder / "adapter"):
        if any((one / name).is_file() for name in (CONFIG, WEIGHTS, "adapter_model.bin")):
            return settings, one
    for one in (folder, folder / "model"):
        if (one / "config.json").is_file() and any(one.glob("*.safetensors")):
            own = embedded_seed(settings.name) and settings.template in (
                "auto",
                "organism",
            )  # an embedded model's own template
            template = "own" if own else settings.template
            return settings.model_copy(update={"name": str(one), "revision": None, "template": template}), None
    raise UserError(f"{folder}: no adapter there ({CONFIG}), and no whole model (config.json and *.safetensors)")


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
    tokenizer, model = read_folder(settings, resolved.device, resolved.dtype, folder)
    template = template_for(settings, tokenizer)
    for one in template.notes:
        note(one)
    tokenizer.chat_template = template.text
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= embedded_tokens(model):
        tokenizer.pad_token = tokenizer.eos_token
    stops = tuple(dict.fromkeys((*stop_ids(tokenizer, template), *own_stops(model, folder))))
    model.generation_config.eos_token_id = list(stops)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    if trainable and settings.quantize != "none":
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if adapter is not None:
        model = attach(model, adapter, trainable=trainable)
    model.eval()
    check_logits(model, tokenizer, f"{folder}: the model" if adapter is None else f"{adapter}: the model with it")
    log.debug("loaded %s on %s as %s, template %s", settings.name, resolved.device, resolved.dtype, template.name)
    return Loaded(model, tokenizer, resolved.device, resolved.dtype, template.name, stops)
