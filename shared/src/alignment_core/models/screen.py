"""What a model folder must not do: bring code to be run, or weights as pickles. Looked at before anything is loaded.

A config can name Python files or kernel repositories in several places besides `auto_map`; transformers has run some
of them in spite of trust_remote_code=False, so such a config is refused and not merely loaded without trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.models.adapter import CONFIG, pickles
from alignment_core.models.tensors import FLOATS, Entry, header

# Keys through which a config names Python code or a kernel repository to be fetched and run.
_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code", "custom_generate", "auto_mapping")
# The largest numbers that a config's keys may have, by the keys' form. The largest models of 2026 have a few hundred
# layers, a thousand experts and a quarter of a million tokens.
_LARGEST = (
    (re.compile(r".*(layers?|heads?|experts?|groups?|labels|beams?|ngroups?|n_layer|n_head)(_.*)?"), 1 << 16),
    (re.compile(r".*(positions?|position_embeddings|_len|_length)(_.*)?"), 1 << 31),
    (re.compile(r"(num_|n_|d_).*|.*(_size|_dim|_rank|_width|_inner|_factor)"), 1 << 26),
)
_LAYERS = re.compile(r"num_hidden_layers|n_layers?|num_layers|num_decoder_layers")


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
    if not (folder / "config.json").is_file() and (folder / CONFIG).is_file():
        raise UserError(f"{folder}: an adapter, which is no whole model; name its base as the model")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; a model folder holds config.json, safetensors and a tokenizer")
    io.read_object(folder / "config.json")
    for file in sorted(folder.glob("*.json")):
        if file.name.endswith(".index.json"):
            _screen_index(file)
        elif file.name not in ("tokenizer.json", "vocab.json"):
            for key in asks_for_code(io.read_json(file)):
                raise UserError(
                    f"{file}: {key!r} asks for code that comes with the model, which is never run here; "
                    "use a model that transformers supports itself, without that key"
                )
    weights = [file for file in sorted(folder.glob("*.safetensors")) if not file.name.startswith("consolidated")]
    if not weights:
        found = pickles(folder)
        why = f"only the pickle {found[0]}, which can run code; convert it to safetensors" if found else "no weights"
        raise UserError(f"{folder}: {why} (model.safetensors is needed)")
    _screen_numbers(folder / "config.json", [(file, header(file)) for file in weights])


def _screen_numbers(config: Path, weights: Sequence[tuple[Path, Mapping[str, Entry]]]) -> None:
    """`UserError` for sizes that no model has, before anything is built of them, and for integers as weights."""
    settings = io.read_object(config)
    tensors = sum(len(entries) for _, entries in weights)
    for key, value in _numbers(settings):
        name = key.rsplit(".", 1)[-1]
        largest = next((most for form, most in _LARGEST if form.fullmatch(name)), None)
        if _LAYERS.fullmatch(name):
            largest = tensors
        if largest is not None and not abs(value) <= largest:
            more = f"; its weights are {tensors} tensors" if largest == tensors else ""
            raise UserError(f"{config}: {key}={str(value)[:20]} is no size of a model{more}")
    if settings.get("quantization_config"):
        return
    for file, entries in weights:
        for name, entry in entries.items():
            if name.endswith(".weight") and entry.dtype not in FLOATS:
                raise UserError(
                    f"{file}: {name!r:.80} is of type {entry.dtype}, and config.json names no quantisation; "
                    "weights are floating-point numbers"
                )


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a config, by its dotted key."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def _screen_index(file: Path) -> None:
    index = io.read_json(file)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    for name in sorted({str(name) for name in shards.values()} if isinstance(shards, dict) else ()):
        if file.name.startswith("model.safetensors") and (not name.endswith(".safetensors") or "/" in name):
            raise UserError(f"{file}: names the shard {name!r}; shards are safetensors files in the same folder")
