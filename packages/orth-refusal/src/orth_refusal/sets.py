"""The study's data as files, with more attack rows where a file of them is given, and which sets overlap.

`embedded.py` gives the rows of the embedded model's world, `public.py` those of the public sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.config import SourceSettings
from alignment_core.data.catalogue import Source
from alignment_core.data.overlap import Texts, overlap
from alignment_core.data.sources import Rejects, read
from alignment_core.data.splits import rank
from alignment_core.data.summary import DataReport, check_overlaps
from alignment_core.io import write_jsonl
from alignment_core.records import Example, Prompt
from orth_refusal.rows import EVAL

if TYPE_CHECKING:
    from orth_refusal.config import DataConfig

Made = tuple[dict[str, list[Example]], list[Prompt]]
"""Examples by part, and the held-out prompts."""
Fill = Callable[["DataConfig", Rejects, DataReport], Made]
"""Gives a source's rows; what is left out or short goes to the rejects and the report."""


def build(config: DataConfig, folder: Path, fill: Fill) -> DataReport:
    """Write `refusal`, `attack`, `red`, `benign`, `held_out`.jsonl, eval_prompts.jsonl and data_report.json.

    `red` holds the red side of the refusal part's questions (for the blue − red direction): the attack's own
    questions stay unseen by the defender. Raises `UserError` for a source that cannot be had or holds nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report, rejects = DataReport(), Rejects(config.strict)
    try:
        examples, prompts = fill(config, rejects, report)
        if config.synthetic_data_path is not None:
            examples["attack"] += _synthetic(config.synthetic_data_path, examples, prompts, rejects, report)
    finally:
        rejects.write(folder / "rejects.jsonl")
    report.rejects = rejects.reasons()
    for name, rows in examples.items():
        rows.sort(key=lambda e: rank(config.split_seed, "order", e.source, *(m.content for m in e.messages)))
        limit = {"refusal": config.refusal_limit, "attack": config.attack_limit, "red": config.refusal_limit,
                 "benign": config.benign_limit, "held_out": config.test_attack}.get(name, 0)  # fmt: skip
        report.files[f"{name}.jsonl"] = write_jsonl(folder / f"{name}.jsonl", rows[: limit or None])
    report.files[f"{EVAL}.jsonl"] = write_jsonl(folder / f"{EVAL}.jsonl", prompts)
    sets = {name: [e.prompt for e in rows] for name, rows in examples.items()}
    sets[EVAL] = [p.text for p in prompts]
    report.overlaps = check_overlaps(sets, [(EVAL, part) for part in ("refusal", "attack", "red", "benign")])
    report.write(folder / "data_report.json")
    return report


def _synthetic(
    path: Path,
    examples: dict[str, list[Example]],
    prompts: Sequence[Prompt],
    rejects: Rejects,
    report: DataReport,
) -> list[Example]:
    """Rows of a `synthesize` file that touch no evaluation set; how many were left out is counted."""
    found = read(Source("synthetic", "", "", ("*.jsonl",), ""), SourceSettings(path=path), parse_synthetic, rejects)
    held = [p.text for p in prompts] + [e.prompt for e in examples["held_out"]]
    clean = without(found.records, held)
    report.counts["synthetic rows"] = len(clean)
    report.counts["synthetic rows left out: they stand in an evaluation set"] = len(found.records) - len(clean)
    return clean


def parse_synthetic(row: Mapping[str, Any]) -> Example:
    """An attack row as `synthesize` writes it: an example with `provenance`; without one the row is refused."""
    values = dict(row)
    if not isinstance(values.pop("provenance", None), Mapping):
        raise ValueError("'provenance' is missing: who made this row, from what, and how")
    return Example.from_json(values)


def without(rows: Sequence[Example], held: Sequence[str]) -> list[Example]:
    """The rows whose prompt stands in none of the held-out texts, neither exactly nor nearly."""
    vocabulary: dict[str, int] = {}
    against = Texts(held, vocabulary)
    out = []
    for row in rows:
        found = overlap(Texts([row.prompt], vocabulary), against, ("row", "evaluation"))
        if not (found.exact or found.near):
            out.append(row)
    return out
