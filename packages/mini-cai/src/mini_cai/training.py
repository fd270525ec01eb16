"""What the steps do that need the generator or train an adapter: candidates, critiques, rows, fine-tuning, replies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment_core.errors import UserError
from alignment_core.evaluation.answer import answer as answer_prompts
from alignment_core.io import read_json, read_jsonl, read_rows
from alignment_core.judging import critics
from alignment_core.judging.critique import Critique
from alignment_core.models import load
from alignment_core.pipeline.step import Step
from alignment_core.pipeline.writers import write_json, write_jsonl
from alignment_core.records import Completion, Example
from mini_cai import data, revision
from mini_cai import selection as choose
from mini_cai.config import CaiConfig, Policy
from mini_cai.selection import Row, Scored

log = logging.getLogger(__name__)

CANDIDATES, SCORES, GENERATIONS, SELECTED = (
    "candidates.jsonl",
    "scored.jsonl",
    "generations.json",
    "filtered_selected.json",
)


def candidates(config: CaiConfig, seed: int, prompts: Path, accept_missing: bool, folder: Path) -> None:
    """N sampled candidates of each prompt, batched; only the new tokens are text."""
    from alignment_core.models.generate import generate

    generate(
        data.load(prompts),
        config.candidates,
        load.load(config.model),
        subject="candidates",
        seed=seed,
        file=folder / CANDIDATES,
        accept_missing=accept_missing,
    )
    load.free()


def answer(
    config: CaiConfig,
    subject: str,
    trained: Step | None,
    prompts: Path,
    seed: int,
    accept_missing: bool,
    folder: Path,
) -> None:
    """One model's replies to the evaluation prompts; the decode seed is the same for every model of a run's seed."""
    model, adapter = (config.baseline, None) if trained is None else (config.base, trained / "adapter")
    loaded = load.load(model, adapter)
    asked = data.load(prompts, data.EVAL_PROMPTS)
    answer_prompts(loaded, asked, config.replies, folder, subject=subject, seed=seed, accept_missing=accept_missing)
    del loaded
    load.free()


def criticise(config: CaiConfig, generated: Path, accept_missing: bool, folder: Path) -> None:
    """The critic's word on every candidate, also in the original's shape (generations with critiques)."""
    replies = list(read_jsonl(generated / CANDIDATES, Completion.from_json))
    rules = critics.own_constitution(config.critic)
    said = critics.criticise(replies, config.critic, rules, folder, accept_missing=accept_missing)
    write_jsonl(folder / SCORES, said)
    scored = [Scored(r, c) for r, c in zip(replies, said, strict=True)]
    write_json(folder / GENERATIONS, generations(scored))


def generations(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """The original's file of generations with critiques: {id, prompt, scored: [{candidate, score, reason}]}."""
    return [
        {
            "id": ident,
            "prompt": group[0].reply.prompt,
            "scored": [
                {
                    "candidate": s.reply.text,
                    "score": s.critique.score,
                    "reason": s.critique.reason,
                    "principle": s.critique.principle,
                    "expected": s.critique.expected,
                    "missing": s.critique.why if s.critique.score is None else "",
                }
                for s in group
            ],
        }
        for ident, group in choose.by_prompt(scored).items()
    ]


def scored(generated: Path, criticised: Path) -> list[Scored]:
    """Candidates with their critiques, from the two steps' files."""
    replies = read_jsonl(generated / CANDIDATES, Completion.from_json)
    said = read_jsonl(criticised / SCORES, Critique.from_json)
    return [Scored(r, c) for r, c in zip(replies, said, strict=True)]


def revised(
    config: CaiConfig,
    seed: int,
    prompts: Path,
    generated: Path,
    criticised: Path,
    accept_missing: bool,
    folder: Path,
) -> None:
    """The first candidates of all prompts, revised; the revisions stand as candidates of their own."""
    first = [s for s in scored(generated, criticised) if s.reply.candidate == 0]
    made = revision.revise(config, data.load(prompts), first, seed, accept_missing, folder)
    write_jsonl(folder / CANDIDATES, [s.reply for s in made])
    write_jsonl(folder / SCORES, [s.critique for s in made])


def _selected(config: CaiConfig, policy: Policy, pool: Sequence[Scored]) -> choose.Selected:
    settings, safe = config.selection, config.compare.safe_threshold
    if policy != "revised":
        return choose.select(policy, pool, settings, safe).included(settings.include)
    return choose.Selected(tuple(choose.row(s) for s in choose.usable(pool, settings, safe)))


def select(config: CaiConfig, policy: Policy, generated: Path, criticised: Path, folder: Path) -> None:
    """What a policy takes: filtered_selected.json, the SFT rows, and preference pairs where the policy has any."""
    found = _selected(config, policy, scored(generated, criticised))
    write_json(folder / SELECTED, [r.to_json() for r in found.rows])
    if policy in ("margin", "diverse"):
        write_jsonl(folder / "pairs.jsonl", found.pairs)
    rows = choose.kept(found.rows, config.selection.min_score)
    if not rows:
        raise UserError(
            f"the policy {policy!r} leaves no row of score {config.selection.min_score} or more; lower "
            "selection.min_score or selection.margin, set selection.include=both, or give more candidates"
        )
    _write_rows(config, rows, folder)


def select_random(like: Path, generated: Path, criticised: Path, seed: int, folder: Path) -> None:
    """The control: for the rows another policy trains on, random candidates of the same prompts, as many, as long."""
    parts = {part: [Row(**r) for r in read_json(like / f"{part}_rows.json")] for part in ("train", "val")}
    pool = scored(generated, criticised)
    rows = {part: choose.matched_random(given, pool, seed) for part, given in parts.items()}
    write_json(folder / SELECTED, [r.to_json() for r in (*rows["train"], *rows["val"])])
    _write_parts(rows["train"], rows["val"], folder)


def _write_rows(config: CaiConfig, rows: Sequence[Row], folder: Path) -> None:
    _write_parts(*choose.split(rows, config.selection.val_ratio, config.selection.split_seed), folder)


def _write_parts(train: Sequence[Row], val: Sequence[Row], folder: Path) -> None:
    for name, rows in (("train", train), ("val", val)):
        write_jsonl(folder / f"{name}.jsonl", choose.sft_rows(rows))
        write_json(folder / f"{name}_rows.json", [r.to_json() for r in rows])
    log.info(
        "%d rows of %d prompts with %d reply tokens to train on, %d for validation",
        len(train),
        len({r.id for r in train}),
        sum(r.tokens for r in train),
        len(val),
    )


def rows(selected: Path, part: str) -> list[Example]:
    """A selection's `train` or `val` rows as conversations."""
    return choose.examples([Row(**r) for r in read_json(selected / f"{part}_rows.json")])


def fit(config: CaiConfig, seed: int, selected: Path, folder: Path) -> None:
    """LoRA or QLoRA on the selected rows; the loss is on replies only."""
    from alignment_core.models.train import sft

    sft(
        rows(selected, "train"),
        model=config.base,
        lora=config.lora,
        train=config.train,
        seed=seed,
        folder=folder,
        validation=rows(selected, "val"),
    )
    load.free()


def revisions(folder: Path) -> list[dict[str, Any]]:
    """The rounds of a revise step, first replies as round 0."""
    return [row for _, row, reason in read_rows(folder / "revisions.jsonl") if reason is None]
