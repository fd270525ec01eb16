"""What a model folder must not do: bring code to be run, or weights as pickles. Looked at before anything is loaded.

A config can name Python files or kernel repositories in several places besides `auto_map`; transformers has run some
of them in spite of trust_remote_code=False, so such a config is refused and not merely loaded without trust.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.models.adapter import pickles

# Keys through which a config names Python code or a kernel repository to be fetched and run.
_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code", "custom_generate", "auto_mapping")


def asks_for_code(value: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of a config's keys that name code to be fetched and run."""
    if isinstance(value, dict):
        for key, part in value.items():
            here = f"{path}.{key}" if path else str(key)
            # An attention or expert "implementation" with a slash in it is a kernel repository on the hub.
            kernel = "implementation" in str(key) and "/" in str(part)
            if (key in _CODE_KEYS and part) or kernel or (key == "kernel_config" and part):
                yield here
            yield from asks_for_code(part, here)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from asks_for_code(part, f"{path}.{index}")


def screen(folder: Path) -> None:
    """`UserError` when a model folder is incomplete, holds its weights as pickles only, or asks for code to be run."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; a model folder holds config.json, safetensors and a tokenizer")
    for file in sorted(folder.glob("*.json")):
        if file.name.endswith(".index.json"):
            _screen_index(file)
        elif file.name not in ("tokenizer.json", "vocab.json"):
            for key in asks_for_code(io.read_json(file)):
                raise UserError(
                    f"{file}: {key!r} asks for code that comes with the model, which is never run here; "
                    "use a model that transformers supports itself, without that key"
                )
    if not any(folder.glob("*.safetensors")):
        found = pickles(folder)
        why = f"only the pickle {found[0]}, which can run code; convert it to safetensors" if found else "no weights"
        raise UserError(f"{folder}: {why} (model.safetensors is needed)")


def _screen_index(file: Path) -> None:
    index = io.read_json(file)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    for name in sorted({str(name) for name in shards.values()} if isinstance(shards, dict) else ()):
        if file.name.startswith("model.safetensors") and (not name.endswith(".safetensors") or "/" in name):
            raise UserError(f"{file}: names the shard {name!r}; shards are safetensors files in the same folder")
