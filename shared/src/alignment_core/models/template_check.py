"""Which chat template a model will get, seen from its tokenizer alone: before anything is trained or asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError
from alignment_core.models.choose_template import template_for
from alignment_core.models.noise import hush, quiet

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings
    from alignment_core.models.template import Template


def expected(settings: ModelSettings) -> Template | None:
    """The template that `load` will set; None for an embedded model, and where the tokenizer is not on this machine.

    Raises `UserError` as `template_for` and `tokenizer_of` do.
    """
    tokenizer = tokenizer_of(settings)
    return None if tokenizer is None else template_for(settings, tokenizer)


def tokenizer_of(settings: ModelSettings) -> Any:
    """The model's tokenizer; None for an embedded model, and where it is not on this machine. `UserError` where it
    cannot be loaded."""
    folder = None if embedded_seed(settings.name) else _folder(settings)
    if folder is None:
        return None
    from transformers import AutoTokenizer

    hush()
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: the tokenizer cannot be loaded: {type(error).__name__}: {reason}") from error


def _folder(settings: ModelSettings) -> Path | None:
    """The folder of the model's tokenizer: its own, or its snapshot in the hub's cache; None where there is neither."""
    folder = Path(settings.name).expanduser()
    if folder.is_dir() or settings.revision is None:
        return folder if folder.is_dir() else None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(settings.name, "tokenizer_config.json", revision=settings.revision)
    except ValueError:  # not a repository's name: loading will say so
        return None
    return Path(found).parent if isinstance(found, str) else None


def described(settings: ModelSettings) -> str:
    """The template in a phrase; empty for an embedded model. Raises `UserError` as `expected` does."""
    found = expected(settings)
    if found is None:
        return "" if embedded_seed(settings.name) else "not known before its tokenizer is on this machine"
    if found.notes:
        return " ".join(found.notes)
    return "Instruction and Response headings" if found.name == "plain" else f"{found.name}, as the tokenizer's own"
