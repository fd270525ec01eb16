"""Prompts of three kinds: adversarial, borderline, cooperating; from the organism's world, a file, or the shipped set.

A file is JSON Lines of {id, prompt, kind} as the original's (whose rows have no kind: they count as cooperating). No
prompt is both trained on and evaluated on: an overlap is an error, not a fallback.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.errors import UserError
from alignment_core.io import read_jsonl, sha256_file, write_jsonl
from alignment_core.organism import world
from alignment_core.records import KINDS, Kind, Message, Prompt, fingerprint, normalise
from mini_cai.rows import EVAL_PROMPTS, NAMES, PROMPTS

if TYPE_CHECKING:
    from mini_cai.config import CaiConfig, PromptSettings

log = logging.getLogger(__name__)

SHIPPED = {PROMPTS: 12, EVAL_PROMPTS: 8}
"""Prompts of each kind in the shipped files."""


def read_prompt(row: object) -> Prompt:
    """A prompt from a row of a file; `ValueError` with the reason."""
    if not isinstance(row, Mapping):
        raise ValueError(f"prompt: expected an object, found {type(row).__name__}")
    text, name = row.get("prompt"), row.get("kind", "cooperating")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("prompt: 'prompt' must be a text that is not empty")
    if name not in NAMES:
        raise ValueError(f"prompt: 'kind' must be adversarial, borderline or cooperating, found {name!r}")
    ident = row.get("id")
    return Prompt(
        id=fingerprint(text) if ident is None else str(ident),
        messages=(Message("user", text),),
        kind=NAMES[name],
        category=str(row.get("category", "")),
        source=str(row.get("source", "file")),
        cluster=str(row.get("cluster", "")),
    )


def read_file(path: Path) -> list[Prompt]:
    """Every prompt of a file; malformed rows and repeated ids are errors."""
    found = list(read_jsonl(path, read_prompt))
    if not found:
        raise UserError(f"{path}: no prompt in it; write one JSON object a line with id, prompt and kind")
    _unique(found, str(path))
    return found


def _unique(prompts: Sequence[Prompt], where: str) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise UserError(f"{where}: the id {prompt.id!r} stands twice")
        seen.add(prompt.id)


def shipped(name: str) -> list[Prompt]:
    """One of the package's own prompt files."""
    with resources.as_file(resources.files("mini_cai").joinpath(name)) as path:
        return read_file(path)


def _first(prompts: Sequence[Prompt], counts: Mapping[Kind, int]) -> list[Prompt]:
    return [p for kind in KINDS for p in [q for q in prompts if q.kind == kind][: counts[kind]]]


def training(settings: PromptSettings) -> list[Prompt]:
    """The prompts that candidates are generated for."""
    counts: dict[Kind, int] = {
        "harmful": settings.harmful,
        "benign": settings.benign,
        "borderline": settings.borderline,
    }
    if settings.file is not None:
        return _first(read_file(settings.file), counts)
    if settings.source == "default":
        return _first(shipped(PROMPTS), counts)
    return [p for kind in KINDS for p in world.requests(kind, counts[kind], settings.seed)]


def evaluation(settings: PromptSettings) -> list[Prompt]:
    """The prompts that baseline and tuned models are compared on."""
    counts: dict[Kind, int] = {
        "harmful": settings.test_harmful,
        "benign": settings.test_benign,
        "borderline": settings.test_borderline,
    }
    if settings.eval_file is not None:
        return _first(read_file(settings.eval_file), counts)
    if settings.file is not None and settings.source == "organism":
        raise UserError(
            "prompts.file has no evaluation prompts beside it: give prompts.eval_file, or prompts.source=default for "
            "the shipped ones; training prompts are never evaluated on"
        )
    if settings.source == "default":
        return _first(shipped(EVAL_PROMPTS), counts)
    return _first([p for kind in KINDS for p in world.prompts(settings.eval_split, kind)], counts)


def build(settings: PromptSettings, folder: Path) -> None:
    """Write both prompt files; `UserError` when a prompt stands in both, or a set is empty."""
    train, held_out = training(settings), evaluation(settings)
    for what, prompts in (("training", train), ("evaluation", held_out)):
        if not prompts:
            raise UserError(
                f"there are no {what} prompts; raise prompts.{'' if what == 'training' else 'test_'}harmful"
            )
        count = ", ".join(f"{sum(p.kind == kind for p in prompts)} {kind}" for kind in KINDS)
        log.info("%s prompts: %s", what, count)
    known = {normalise(p.text) for p in train}
    both = [p for p in held_out if normalise(p.text) in known]
    if both:
        raise UserError(
            f"{len(both)} of {len(held_out)} evaluation prompts are training prompts too, the first {both[0].id!r}; "
            "give an evaluation file of other prompts"
        )
    write_jsonl(folder / PROMPTS, train)
    write_jsonl(folder / EVAL_PROMPTS, held_out)


def identity(settings: PromptSettings) -> dict[str, Any]:
    """Contents of the files that are read, for the step's key."""
    named = {"file": settings.file, "eval_file": settings.eval_file}
    for key, path in named.items():
        if path is not None and not path.is_file():
            raise UserError(f"prompts.{key}={path}: no such file")
    return {key: sha256_file(path) for key, path in named.items() if path is not None}


# What a plan needs to know


def sizes(settings: PromptSettings) -> tuple[int, int]:
    """Training and evaluation prompts, at most."""
    train = [settings.harmful, settings.benign, settings.borderline]
    held_out = [settings.test_harmful, settings.test_benign, settings.test_borderline]
    if settings.source == "default":
        train = train if settings.file else [min(n, SHIPPED[PROMPTS]) for n in train]
        held_out = held_out if settings.eval_file else [min(n, SHIPPED[EVAL_PROMPTS]) for n in held_out]
    return sum(train), sum(held_out)


def needs(config: CaiConfig) -> list[tuple[str, str, str | None]]:
    """Evaluation prompts, where own training prompts come without any: training prompts are never evaluated on."""
    own = config.prompts
    lacking = own.file is not None and own.eval_file is None and own.source == "organism"
    return [("file", "prompts.eval_file", None)] if lacking else []
