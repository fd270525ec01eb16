"""XSTest (arXiv 2308.01263): 250 safe prompts that look unsafe, and 200 unsafe ones in contrast to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Reading, Rejects, read, text
from alignment_core.records import Kind, Message, Prompt

if TYPE_CHECKING:
    from alignment_core.config import SourceSettings

_KINDS: dict[str, Kind] = {"safe": "borderline", "unsafe": "harmful"}


def parse(row: Mapping[str, Any]) -> Prompt:
    """One row; a safe prompt is borderline here, because it is made to look harmful. Versions before `label` tell an
    unsafe prompt by its type, which begins with `contrast`."""
    category, asked = text(row, "type"), text(row, "prompt")
    label = text(row, "label", default="unsafe" if category.startswith("contrast") else "safe")
    if label not in _KINDS:
        raise ValueError(f"'label' must be safe or unsafe, found {label!r:.40}")
    number = text({"id": str(row.get("id", row.get("id_v2", "")))}, "id")
    return Prompt(f"xstest:{number}", (Message("user", asked),), _KINDS[label], category, "xstest")


def load(settings: SourceSettings, rejects: Rejects) -> Reading[Prompt]:
    """Every prompt of the set; see `sources.read` for the errors."""
    return read(SOURCES["xstest"], settings, parse, rejects)
