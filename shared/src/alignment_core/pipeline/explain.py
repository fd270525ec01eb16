"""Why a step is made again: in what it differs from the one that was there, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alignment_core.pipeline.step import parse_label

_MOST = 3
"""Names in one reason; the rest is counted."""


def why(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """What decides the step and differs: its code by module, its settings and models by key, its inputs by name."""
    return "; ".join(_reasons(new, old)) or "its key is made in another way"


def _reasons(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[str]:
    code = _different(_modules(new), _modules(old))
    if code:
        yield f"{_listed(code)} changed"
    settings = _different(_flat(new.get("settings")), _flat(old.get("settings")))
    if settings:
        yield f"settings differ: {_listed([_setting(k, new, old) for k in settings])}"
    models = _different(_flat(new.get("identity")), _flat(old.get("identity")))
    if models:
        yield f"models or files differ: {_listed(models)}"
    inputs = sorted({_named(label) for label in new.get("reads", {}).keys() ^ old.get("reads", {}).keys()})
    if inputs:
        yield f"its input {_listed(inputs)} is another"


def _modules(facts: Mapping[str, Any]) -> dict[str, Any]:
    code = facts.get("code")
    return dict(code.get("modules", {})) if isinstance(code, Mapping) else {}


def _different(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted(new.keys() | old.keys()) if new.get(key) != old.get(key)]


def _setting(key: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    return f"{key} was {_flat(old.get('settings')).get(key)!r}, is {_flat(new.get('settings')).get(key)!r}"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, part in value.items() for k, v in _flat(part, f"{prefix}{key}.").items()}
    return {prefix[:-1]: value}


def _named(label: str) -> str:
    found = parse_label(label)
    return label if found is None else found[0]


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")
