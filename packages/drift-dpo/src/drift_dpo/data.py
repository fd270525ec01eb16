"""The stages' data: every source's prompts split once, examples and pairs in the original's record shapes.

`public.py` splits the public sets, `embedded.py` the embedded model's world. Each source's prompts go to test,
validation, DPO, B and A in that order, so that no prompt is in two of them. Training files hold `messages`,
`category`, `source`, or `chosen`, `rejected`, and nothing else: TRL loads them as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alignment_core.data import jsonl
from alignment_core.data.sources import Rejects
from alignment_core.data.splits import rank
from alignment_core.data.summary import DataReport, check_overlaps
from alignment_core.io import read_jsonl, sha256_file, write_jsonl
from alignment_core.organism import world
from alignment_core.records import Completion, Example, Message, PreferencePair, Prompt
from drift_dpo import embedded, public
from drift_dpo.config import DataConfig, DriftConfig
from drift_dpo.parts import EVAL, STAGES, Parts

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
TRAIN_SHARE = 0.9
"""Stages A and B of the public sets are split 90/5/5 into train, validation and test."""


def identity(config: DataConfig) -> dict[str, Any]:
    """What names the data in a step's key, without reading more than local files' hashes."""
    named: dict[str, Any] = {"eval_file": sha256_file(config.eval_file) if config.eval_file else None}
    return named | (public.identity(config) if config.sources == "public" else {})


def build(config: DataConfig, folder: Path, seed: int | None = None) -> DataReport:
    """Build every file of the study in `folder` and say what became of each row.

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
        if config.sources == "public":
            public.build(config, seed, rejects, report, parts)
        else:
            embedded.build(config, seed, report, parts)
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


# What a plan and the evaluation need to know of it


def size(config: DataConfig, part: str) -> int:
    """Training rows of `stageA`, `stageB`, `own` or `dpo`; 0 where the source decides (every pair it yields)."""
    whole = config.sources == "organism"
    if part == "dpo":
        return config.dpo_limit if whole else round(config.dpo_limit * (1 - config.eval_ratio))
    rows = config.stage_b_size if part == "stageB" else config.stage_a_size
    return rows if whole else round(rows * TRAIN_SHARE)


def held_out(config: DataConfig) -> int:
    """Held-out prompts, at most."""
    return config.test_harmful + config.test_benign + config.test_borderline


def needs(config: DriftConfig) -> list[tuple[str, str, str | None]]:
    """The data sets that the run takes from the hub."""
    if config.data.sources == "organism":
        return []
    asked = [(source, own) for source, own in public.sources(config.data) if own.path is None]
    return [("dataset", source.repo, own.revision or source.revision) for source, own in asked]


def topics(replies: Sequence[Completion]) -> list[dict[str, Any]]:
    """Whether each reply is on the topic of its prompt, in the embedded model's world."""
    return [{"topic": world.topic(reply.prompt, reply.text)} for reply in replies]


# Reading what was built


def examples(folder: Path, part: str) -> list[Example]:
    """The examples of a part such as `stageA_train`."""
    return list(read_jsonl(folder / f"{part}.jsonl", Example.from_json))


def pairs(folder: Path, part: str = "dpo_train") -> list[PreferencePair]:
    """The preference pairs of `dpo_train` or `dpo_eval`."""
    return list(read_jsonl(folder / f"{part}.jsonl", lambda row: PreferencePair.from_json({"source": "dpo", **row})))


def prompts(folder: Path) -> list[Prompt]:
    """The held-out prompts that all four states answer."""
    return list(read_jsonl(folder / f"{EVAL}.jsonl", Prompt.from_json))


def chosen(folder: Path, part: str = "dpo_train") -> list[Example]:
    """The preferred replies alone, as examples: what the SFT-on-chosen control trains on."""
    return [Example(p.chosen, "chosen", p.source, p.cluster) for p in pairs(folder, part)]
