"""Whether an adapter belongs to a base model: by the identity this project saves beside it, or by the name PEFT does.

Bases of one family have equal shapes, so an adapter fits the wrong one without an error, and every number is then of
no model at all. The identity is certain. A name is only looked at where it clearly is another model's: copies of a
model go by other owners' names, and folders by any.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError

log = logging.getLogger("alignment_core")

BASE = "base.json"
_DECIDES = {"hub": ("name", "revision"), "folder": ("sha256",), "organism": ("name", "sha256"), "served": ("name",)}
"""What makes two bases of a kind the same model."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COPY = re.compile(r"^meta-|(?:-unsloth)?(?:-bnb)?-[48]bit$|-(?:gptq|awq|nf4|fp8|bf16|hf)(?:-.*)?$")
"""What owners of copies add to a model's name."""


def check_base(folder: Path, name: object, base: dict[str, Any]) -> None:
    """`UserError` where the adapter in `folder` was trained on another base than `base`.

    `base` is the identity `load.identity(...)["weights"]`; `name` is what the adapter's settings call its base.
    """
    if (folder / BASE).is_file():
        trained_on = io.read_object(folder / BASE)
        kind = trained_on.get("kind")
        if not isinstance(kind, str) or kind not in _DECIDES:
            raise UserError(f"{folder / BASE}: not the identity of a base model; train the adapter again")
        if kind == base.get("kind"):
            differ = any(trained_on.get(key) != base.get(key) for key in _DECIDES[kind])
        else:
            differ = "organism" in (kind, base.get("kind"))
            if not differ:
                log.info("%s was trained on the %s of %s: only its shapes tell whether %s is the same model",
                         folder, kind, trained_on.get("name"), base.get("name"))  # fmt: skip
        if differ:
            raise UserError(
                f"{folder}: this adapter was trained on {trained_on.get('name')} ({short(trained_on)}), "
                f"not on {base.get('name')} ({short(base)}); load that base, or train an adapter for this one"
            )
    elif isinstance(name, str) and _another(name, base):
        raise UserError(
            f"{folder}: this adapter was trained on {name!r:.120}, not on {base.get('name')}; load that base, or mend "
            "base_model_name_or_path in adapter_config.json where it is the same model under another name"
        )


def _another(name: str, base: dict[str, Any]) -> bool:
    """Whether an adapter's name for its base is clearly that of another model."""
    embedded, kind = embedded_seed(name), base.get("kind")
    if kind == "organism":
        return embedded != embedded_seed(str(base["name"])) if embedded else bool(_HUB_ID.fullmatch(name))
    if embedded:
        return True
    return kind == "hub" and bool(_HUB_ID.fullmatch(name)) and _model(name) != _model(str(base["name"]))


def _model(name: str) -> str:
    """A hub id without its owner and without what owners of copies add to a model's name."""
    return _COPY.sub("", name.rsplit("/", 1)[-1].casefold())


def short(identity: dict[str, Any]) -> str:
    """Twelve characters that tell one base from another in a message."""
    return str(identity.get("revision") or identity.get("sha256") or "unknown")[:12]
