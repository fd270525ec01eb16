"""The stages' data as files: examples and pairs in the original's record shapes, and which sets overlap.

Training files hold `messages`, `category`, `source`, or `chosen`, `rejected`, and nothing else: TRL loads them as they
are. `embedded.py` fills the parts from the embedded model's world, `public.py` from the public sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.data import jsonl
from alignment_core.data.sources import Rejects
from alignment_core.data.splits import rank
from alignment_core.data.summary import DataReport, check_overlaps
from alignment_core.io import write_jsonl
from alignment_core.records import Message, Prompt
from drift_dpo.parts import STAGES, Parts
from drift_dpo.rows import EVAL

if TYPE_CHECKING:
    from drift_dpo.config import DataConfig

TRAINING = ("stageA_train", "stageB_train", "dpo_train")
PAIRS_OF_SETS = (
    *((EVAL, part) for part in TRAINING),
    *((f"{stage}_{part}", f"{stage}_train") for stage in ("stageA", "stageB") for part in ("test", "val")),
    ("dpo_eval", "dpo_train"),
    ("stageA_train", "stageB_train"),
    ("stageA_train", "dpo_train"),
    ("dpo_train", "stageB_train"),
)
"""Which sets are checked against which."""

Fill = Callable[["DataConfig", int, Rejects, DataReport, Parts], None]
"""Puts a source's rows into the parts; what is left out or short goes to the rejects and the report."""


def build(config: DataConfig, folder: Path, fill: Fill, seed: int | None = None) -> DataReport:
    """Build every file of the study in `folder` from what `fill` gives, and say what became of each row.

    `seed` orders the split (default: `config.split_seed`). Writes stageA_, stageB_{train,val,test}.jsonl,
    dpo_{train,eval}.jsonl, eval_prompts.jsonl, rejects.jsonl and data_report.json. Raises `UserError` for a source
    that cannot be had or holds nothing.
    """
    seed = config.split_seed if seed is None else seed
    folder.mkdir(parents=True, exist_ok=True)
    rejects, report, parts = Rejects(config.strict), DataReport(), Parts()
    try:
        if config.eval_file is not None:
            parts.prompts = jsonl.load(config.eval_file, Prompt, rejects).records
        fill(config, seed, rejects, report, parts)
    finally:
        rejects.write(folder / "rejects.jsonl")
    report.rejects = rejects.reasons()
    _write(parts, folder, seed, report)
    report.overlaps = check_overlaps(_prompts_of(parts), PAIRS_OF_SETS)
    report.write(folder / "data_report.json")
    return report


def _write(parts: Parts, folder: Path, seed: int, report: DataReport) -> None:
    """The files, in a fixed shuffled order that mixes the sources."""
    for name in STAGES:
        parts.examples.setdefault(name, [])
    for name, examples in parts.examples.items():
        examples.sort(key=lambda e: rank(seed, "order", e.prompt, e.source))
        rows = [{"messages": _turns(e.messages), "category": e.category, "source": e.source} for e in examples]
        report.files[f"{name}.jsonl"] = write_jsonl(folder / f"{name}.jsonl", rows)
    for name, pairs in parts.pairs.items():
        pairs.sort(key=lambda p: rank(seed, "order", p.prompt, p.chosen[-1].content))
        pair_rows = [{"chosen": _turns(p.chosen), "rejected": _turns(p.rejected)} for p in pairs]
        report.files[f"{name}.jsonl"] = write_jsonl(folder / f"{name}.jsonl", pair_rows)
    report.files[f"{EVAL}.jsonl"] = write_jsonl(folder / f"{EVAL}.jsonl", parts.prompts)
    buckets = Counter(p.bucket for pairs in parts.pairs.values() for p in pairs)
    report.counts |= {f"pairs {bucket}": n for bucket, n in sorted(buckets.items())}


def _turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


def _prompts_of(parts: Parts) -> dict[str, list[str]]:
    sets = {name: [e.prompt for e in those] for name, those in parts.examples.items()}
    sets |= {name: [p.prompt for p in those] for name, those in parts.pairs.items()}
    return sets | {EVAL: [p.text for p in parts.prompts]}
