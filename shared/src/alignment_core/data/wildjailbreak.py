"""WildJailbreak (arXiv 2406.18510): harmful and benign requests, plain and in adversarial dress.

The prompt of a `vanilla_*` row is `vanilla`, that of an `adversarial_*` row is `adversarial`. An adversarial request
is made from a plain one, so both belong to one cluster, that of the plain one. Completions of harmful rows are
refusals already. The benign rows resemble harmful ones by design: they measure over-refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Reading, Rejects, Turn, flag, read, text
from alignment_core.errors import nearest
from alignment_core.records import fingerprint

if TYPE_CHECKING:
    from alignment_core.config import SourceSettings

TYPES = ("vanilla_harmful", "vanilla_benign", "adversarial_harmful", "adversarial_benign")


def parse(row: Mapping[str, Any]) -> Turn:
    """One row of the training or the evaluation set (which has no completion, and a label that must agree)."""
    kind = text(row, "data_type")
    if kind not in TYPES:
        raise ValueError(f"'data_type' must be one of {', '.join(TYPES)}, found {kind!r:.60}{nearest(kind, TYPES)}")
    if row.get("label") not in (None, "") and flag(row, "label") != kind.endswith("harmful"):
        raise ValueError(f"'label' says {row['label']!r:.20} and 'data_type' says {kind}")
    prompt = text(row, "vanilla" if kind.startswith("vanilla") else "adversarial")
    plain = text(row, "vanilla", default=prompt)
    reply = text(row, "completion") if "completion" in row else ""
    return Turn(prompt, reply, f"wildjailbreak:{kind}", tag=kind, cluster=fingerprint(plain))


def harmful(turn: Turn) -> bool:
    """Whether the request is harmful."""
    return turn.tag.endswith("harmful")


def load(settings: SourceSettings, rejects: Rejects) -> Reading[Turn]:
    """Every row of the set; see `sources.read` for the errors."""
    return read(SOURCES["wildjailbreak"], settings, parse, rejects)
