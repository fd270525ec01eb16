"""PKU-SafeRLHF (arXiv 2406.15513): two replies to a prompt, each labelled safe or not, ranked by help and by safety.

Traps: "safe" does not mean "refused"; `safer_response_id` is set even when both replies are unsafe; the same prompt
recurs across models. Releases before 2024 lack harm categories and severities, some name `question` and `answer_i`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignment_core.data.catalogue import SOURCES
from alignment_core.data.sources import Reading, Rejects, flag, index, read, text
from alignment_core.records import fingerprint

if TYPE_CHECKING:
    from alignment_core.config import SourceSettings


@dataclass(frozen=True, slots=True)
class PkuRow:
    """One prompt with its two replies."""

    prompt: str
    replies: tuple[str, str]
    safe: tuple[bool, bool]
    better: int | None = None
    """The more helpful reply, 0 or 1; None where the release does not say."""
    safer: int | None = None
    """The safer reply, 0 or 1, which may still be unsafe."""
    harms: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """Harm categories of each reply."""
    severity: tuple[int | None, int | None] = (None, None)
    """0 (safe) to 3 for each reply."""
    cluster: str = ""

    def __post_init__(self) -> None:
        if not self.cluster:
            object.__setattr__(self, "cluster", fingerprint(self.prompt))

    @property
    def tag(self) -> str:
        """First harm category of the first unsafe reply that has one."""
        return next((h[0] for h, safe in zip(self.harms, self.safe, strict=True) if h and not safe), "unlabelled")


def _harms(row: Mapping[str, Any], i: int) -> tuple[str, ...]:
    value = row.get(f"response_{i}_harm_category")
    if value is None or value == "":
        return ()
    if not isinstance(value, Mapping):
        raise ValueError(f"'response_{i}_harm_category' must be an object, found {type(value).__name__}")
    return tuple(sorted(str(name) for name, yes in value.items() if yes is True))


def parse(row: Mapping[str, Any]) -> PkuRow:
    """One row of any release."""
    return PkuRow(
        prompt=text(row, "prompt", "question"),
        replies=(text(row, "response_0", "answer_0"), text(row, "response_1", "answer_1")),
        safe=(
            flag(row, "is_response_0_safe", "is_answer_0_safe"),
            flag(row, "is_response_1_safe", "is_answer_1_safe"),
        ),
        better=index(row, "better_response_id", "better_answer_id"),
        safer=index(row, "safer_response_id", "safer_answer_id"),
        harms=(_harms(row, 0), _harms(row, 1)),
        severity=(index(row, "response_0_severity_level", below=4), index(row, "response_1_severity_level", below=4)),
    )


def load(settings: SourceSettings, rejects: Rejects, full: bool = True) -> Reading[PkuRow]:
    """Every training row of the full set or of the 30K one; see `sources.read` for the errors."""
    return read(SOURCES["pku-saferlhf" if full else "pku-saferlhf-30k"], settings, parse, rejects)
