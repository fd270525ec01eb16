"""Settings as text: a TOML file with each key's help as its comment, and the list of all keys.

`show tiny > mine.toml` gives a file that resolves to the same settings. TOML has no null: a key whose value is None
stands as a comment.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from alignment_core.config import Settings


def toml_value(value: Any) -> str:
    """One value as TOML; `ValueError` for what TOML cannot hold (None)."""
    if value is None:
        raise ValueError("TOML has no null")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, BaseModel):
        return toml_value({k: v for k, v in dict(value).items() if v is not None})
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return _string(value.as_posix() if isinstance(value, Path) else str(value))


def toml_key(key: str) -> str:
    """A key, quoted where TOML asks for it."""
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _string(key)


def _string(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c) or (c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in text) + '"'


def _comment(info: FieldInfo) -> list[str]:
    return [f"# {line.strip()}" for line in (info.description or "").splitlines() if line.strip()]


def _table(section: Settings, chosen: Mapping[str, Any] | None, path: str) -> Iterator[str]:
    """Lines of one section: its own keys, then its sections. `chosen` marks the keys that are written out."""
    sections = []
    for key, info in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, Settings):
            sections.append((key, info, value))
            continue
        yield from _comment(info)
        if value is None:
            yield f"# {key} = (none)"
        else:
            yield f"{'' if chosen is None or key in chosen else '# '}{key} = {toml_value(value)}"
    for key, info, value in sections:
        inner = None if chosen is None else chosen.get(key, {})
        yield ""
        yield from _comment(info)
        yield f"[{path}{key}]"
        yield from _table(value, inner, f"{path}{key}.")


def as_toml(config: Settings, chosen: Mapping[str, Any] | None = None) -> str:
    """`config` as a settings file with help. With `chosen` (nested dictionaries of keys) only those keys are set and
    the others stand as comments with the value they have by default; without it every key is set."""
    return "\n".join(_table(config, chosen, "")) + "\n"


def type_name(annotation: Any) -> str:
    """A field's type in words: `text`, `whole number`, `one of none, nf4`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, inner))
    if origin in (tuple, list):
        return f"list of {type_name(inner[0])}"
    if inner:
        return " | ".join(type_name(a) for a in inner if a is not Ellipsis)
    names = {str: "text", int: "whole number", float: "number", bool: "true | false", Path: "path", type(None): "none"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def listing(model: type[Settings], path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """`(dotted key, type, default, help)` of every setting, sections opened, in the order of the class."""
    for key, info in model.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, Settings):
            yield from _section(section, info, f"{path}{key}.")
        else:
            default = info.get_default(call_default_factory=False)
            shown = "(required)" if info.is_required() else "none" if default is None else toml_value(default)
            yield f"{path}{key}", type_name(section), shown, " ".join((info.description or "").split())


def _section(section: type[Settings], info: FieldInfo, path: str) -> Iterator[tuple[str, str, str, str]]:
    """A section's keys; where its parent sets other defaults than the class, those are the ones shown."""
    default = info.default if isinstance(info.default, Settings) else None
    for key, kind, shown, text in listing(section, path):
        value: Any = default
        for part in key[len(path) :].split("."):
            value = getattr(value, part, None)
        yield key, kind, shown if value is None else toml_value(value), text
