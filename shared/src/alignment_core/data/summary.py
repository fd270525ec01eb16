"""What was read, dealt and found when a study's data were built: the table that makes every loss visible."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.data.overlap import Overlap, Texts, overlap, overlap_table
from alignment_core.data.splits import Drops, shortfall_table
from alignment_core.io import read_json, write_json
from alignment_core.records import Shortfall

if TYPE_CHECKING:
    from alignment_core.data.sources import Reading


@dataclass
class SourceCount:
    """Where one source's rows went: `rows` = `rejected` + `left_out` + duplicates + elsewhere + unused + dealt."""

    source: str
    rows: int
    rejected: int
    left_out: int = 0
    """Too long, or without the reply that is needed."""
    origin: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, reading: Reading[Any], left_out: int = 0) -> SourceCount:
        return cls(reading.source, reading.rows, reading.rejected, left_out, dict(reading.origin))


@dataclass
class DataReport:
    """Everything that is said about a built set of files; `data_report.json` is its JSON form."""

    sources: list[SourceCount] = field(default_factory=list)
    drops: dict[str, Drops] = field(default_factory=dict)
    """By pool: duplicates, prompts dealt from an earlier source, rows that no part needed."""
    shortfalls: list[Shortfall] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    """Rows of each file written."""
    rejects: dict[str, int] = field(default_factory=dict)
    """Rejected rows by file and reason."""
    counts: dict[str, int] = field(default_factory=dict)
    """Further counts by name, for example how many pairs each rule made."""
    notes: list[str] = field(default_factory=list)

    @property
    def short(self) -> list[Shortfall]:
        """The parts that got fewer than they wanted."""
        return [s for s in self.shortfalls if s.short]

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> DataReport:
        """The report in a `data_report.json`."""
        values = read_json(path)
        values["sources"] = [SourceCount(**row) for row in values["sources"]]
        values["drops"] = {name: Drops(**row) for name, row in values["drops"].items()}
        values["shortfalls"] = [Shortfall(**row) for row in values["shortfalls"]]
        found = [{**row, "examples": tuple(tuple(e) for e in row["examples"])} for row in values["overlaps"]]
        values["overlaps"] = [Overlap(**row) for row in found]
        return cls(**values)

    def log(self, log: logging.Logger) -> None:
        """All of it at level debug; how many rows there are as information, and what is amiss as warnings."""
        for line in filter(None, self.text().splitlines()):
            log.debug("%s", line)
        log.info("rows: %s", ", ".join(f"{name.removesuffix('.jsonl')} {n}" for name, n in self.files.items()))
        if self.short:
            first = self.short[0]
            log.warning(
                "%d rows too few in %d places (the first: %s from %s, %d of %d); data_report.json lists them",
                *(sum(s.short for s in self.short), len(self.short)),
                *(first.part, first.source, first.got, first.wanted),
            )
        if self.rejects:
            log.warning("%d rows rejected; rejects.jsonl says why", sum(self.rejects.values()))
        for found in (o for o in self.overlaps if o.exact):
            log.warning("%d prompts of %s stand word for word in %s", found.exact, found.a, found.b)

    def text(self) -> str:
        """The report for a terminal."""
        blocks = []
        if self.sources:
            rows = [f"{'source':<22} {'rows':>8} {'rejected':>9} {'left out':>9}"]
            rows += [f"{s.source:<22} {s.rows:>8} {s.rejected:>9} {s.left_out:>9}" for s in self.sources]
            blocks.append("\n".join(rows))
        if self.drops:
            rows = [f"{'pool':<22} {'duplicates':>10} {'elsewhere':>10} {'unused':>8}"]
            rows += [f"{n:<22} {d.duplicates:>10} {d.elsewhere:>10} {d.unused:>8}" for n, d in self.drops.items()]
            blocks.append("\n".join(rows))
        if self.shortfalls:
            short = sum(s.short for s in self.shortfalls)
            said = f"{short} short in {len(self.short)} places" if short else "no part is short"
            blocks.append(f"{shortfall_table(self.shortfalls)}\n{said}")
        if self.overlaps:
            blocks.append(f"Contamination\n{overlap_table(self.overlaps)}")
        blocks += ["\n".join(f"{name}: {n}" for name, n in part.items()) for part in (self.files, self.counts) if part]
        if self.rejects:
            blocks.append(
                "Rejected rows (rejects.jsonl)\n" + "\n".join(f"{n:>6}  {r}" for r, n in self.rejects.items())
            )
        return "\n\n".join([*blocks, *self.notes])


def check_overlaps(prompts: Mapping[str, Iterable[str]], pairs: Sequence[tuple[str, str]]) -> list[Overlap]:
    """The overlap of each named pair of sets; every set is prepared once. Empty sets are passed over."""
    vocabulary: dict[str, int] = {}
    texts = {name: Texts(those, vocabulary) for name, those in prompts.items()}
    wanted = [(a, b) for a, b in pairs if len(texts.get(a, ())) and len(texts.get(b, ()))]
    return [overlap(texts[a], texts[b], (a, b)) for a, b in wanted]
