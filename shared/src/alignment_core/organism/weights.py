"""Where the shipped models lie, and what they are. Torch-free.

A folder is an ordinary checkpoint: `AutoModelForCausalLM.from_pretrained(path())` and
`AutoTokenizer.from_pretrained(path())` load it with no remote code and no network.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from alignment_core.errors import UserError
from alignment_core.io import read_json, sha256_file

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
"""The files that make the model what it is; `recipe.json` beside them only describes it."""


SEEDS = range(1, 9)
"""Pretraining seeds of the shipped models."""


def path(seed: int = 1) -> Path:
    """Folder of a shipped model. Raises `UserError` when there is none of that seed, or it is not whole."""
    if seed not in SEEDS:
        raise UserError(
            f"organism:{seed} is not shipped: there are seeds 1 to {len(SEEDS)}; `alignment-core organism build "
            f"--seed {seed}` makes it, and its folder is then the model's name"
        )
    folder = Path(str(resources.files("alignment_core.organism").joinpath("weights", str(seed))))
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise UserError(f"{folder}: {missing[0]} is missing; install alignment-core again")
    return folder


def identity(folder: Path | None = None) -> str:
    """Hex sha256 over the model, tokenizer and template files (by default of seed 1)."""
    base = path() if folder is None else folder
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(f"{name} {sha256_file(base / name)}\n".encode())
    return digest.hexdigest()


def card(seed: int = 1) -> dict[str, Any]:
    """What `recipe.json` says: recipe, versions, and the figures measured on the calibration split."""
    record: dict[str, Any] = read_json(path(seed) / "recipe.json")
    return record
