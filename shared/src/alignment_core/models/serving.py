"""What a server holds: its base model, and the adapter that is on the model in memory while it is asked for.

An adapter is written to a folder, loaded by vLLM's `/load_lora_adapter` (VLLM_ALLOW_RUNTIME_LORA_UPDATING=True) under
a name made of its contents, looked for in `/models`, and unloaded afterwards. Weights that were changed in memory
cannot be sent: a model in such a state is an error here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from alignment_core.errors import UserError
from alignment_core.models.adapter import adapter_identity
from alignment_core.models.endpoint import Endpoint, unusable
from alignment_core.models.lora import save_adapter
from alignment_core.models.outcome import Failure

if TYPE_CHECKING:
    from alignment_core.config import GenerateSettings
    from alignment_core.models.load import Loaded

log = logging.getLogger("alignment_core")

NAMES = ("endpoint", "endpoint_model", "endpoint_key_env")
"""What generation's settings call a server's address, model and key."""
ADAPTER = "adapter-"
"""How the names of adapters begin that are loaded here."""


async def _models(server: Endpoint) -> list[dict[str, Any]] | Failure:
    """The entries of the server's model list."""

    def read(content: bytes) -> list[dict[str, Any]] | Failure:
        try:
            found = [dict(entry) for entry in json.loads(content)["data"]]
            return found if all(isinstance(entry["id"], str) for entry in found) else []
        except (ValueError, RecursionError, LookupError, TypeError):
            return Failure("not_json", "the model list is not one")

    return await server.request("/models", None, read)


async def base_model(server: Endpoint, settings: GenerateSettings) -> str:
    """Name of the base model on the server: the one given, or the only one in its list that is no adapter."""
    if settings.endpoint_model:
        return settings.endpoint_model
    found = await _models(server)
    if isinstance(found, Failure) and found.why != "not_json" and not (found.status or 0) >= 500:
        raise unusable(server.settings, "any", found, NAMES)
    names = [] if isinstance(found, Failure) else [entry["id"] for entry in found if not entry.get("parent")]
    if len(names) != 1:
        listed = f"serves {', '.join(names)[:200]}" if names else "lists no model"
        raise UserError(f"endpoint {settings.endpoint} {listed}: name the base model with endpoint_model, beside it")
    return str(names[0])


def _adapted(model: Any) -> bool:
    """Whether an adapter is on the model in memory and at work; `UserError` for a state that no server can hold."""
    if not hasattr(model, "peft_config"):
        return False
    status = model.get_model_status()
    if status.enabled is False:
        return False
    variants = any(getattr(module, "lora_variant", None) for module in model.modules())
    if status.enabled is not True or status.active_adapters != ["default"] or status.merged_adapters or variants:
        raise UserError("this model's adapter is changed in memory, which no server can load: unset the endpoint")
    return True


@asynccontextmanager
async def state(server: Endpoint, base: str, loaded: Loaded, file: Path, subject: str) -> AsyncIterator[str]:
    """The name under which the server holds the state in memory: the base, or its adapter while the block runs."""
    if not _adapted(loaded.model):
        yield base
        return
    folder = file.with_name(f".{file.name}.adapter").resolve()
    try:
        save_adapter(loaded.model, folder, {"kind": "served", "name": base})
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the adapter for the server to {folder}: {error}; free space there") from error
    # The place is part of the name: a process never takes away an adapter that another one is asking.
    place = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()
    name = f"{ADAPTER}{adapter_identity(folder)[:16]}-{place[:8]}"
    try:
        await _load(server, name, folder)
        log.info("%s: the server holds the adapter as %s", subject, name)
        yield name
    finally:
        gone = await _post(server, "/unload_lora_adapter", {"lora_name": name})
        if isinstance(gone, Failure):
            log.debug("adapter %s may be left on the server: %s", name, gone.reason)
        shutil.rmtree(folder, ignore_errors=True)


async def _post(server: Endpoint, path: str, body: dict[str, Any]) -> str | Failure:
    return await server.request(path, body, lambda content: content[:200].decode("utf-8", "replace"))


async def _load(server: Endpoint, name: str, folder: Path) -> None:
    """Load an adapter under a new name, and see that the server lists it; `UserError` says what would work."""
    listed = await _models(server)
    if not isinstance(listed, Failure) and any(entry["id"] == name for entry in listed):
        await _post(server, "/unload_lora_adapter", {"lora_name": name})  # a killed process left it there
    said = await _post(server, "/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
    url = server.settings.base_url
    if isinstance(said, Failure) and said.status in (404, 405) and "adapter" not in said.reason.lower():
        raise UserError(
            f"endpoint {url} has no /load_lora_adapter ({said.reason}), so it can answer for the base model alone: "
            "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora, or unset the endpoint"
        )
    if isinstance(said, Failure) and said.why in ("connection", "deadline"):
        raise unusable(server.settings, name, said, NAMES)
    if isinstance(said, Failure) and "already" not in said.reason:
        raise UserError(
            f"endpoint {url} did not load the adapter in {folder}: {said.reason}; it must see that folder (same "
            "machine or shared disk), and vLLM needs --enable-lora and --max-lora-rank of at least lora.r"
        )
    listed = await _models(server)
    if isinstance(listed, Failure) or not any(entry["id"] == name for entry in listed):
        why = listed.reason if isinstance(listed, Failure) else "its model list does not name it"
        raise UserError(f"endpoint {url} said it loaded the adapter {name}, but {why}: another server is needed")
