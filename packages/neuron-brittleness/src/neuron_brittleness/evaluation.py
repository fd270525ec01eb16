"""Model states and interventions put to the held-out prompts: replies saved, judged from the file, topic loss beside.

A condition is a model (the base, or an arm's at its end or at a measured step) with an intervention on a group of
weights. The topic loss is the mean loss of the reference replies to benign prompts: what an intervention costs the
model's usefulness, so that refusal can be compared at equal cost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignment_core.io import read_jsonl, write_json, write_jsonl
from alignment_core.judging.judges import judge_all, judges_identity
from alignment_core.models.generate import generate
from alignment_core.models.score import reply_loss
from alignment_core.organism import world
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Completion
from neuron_brittleness import ablation, data, scoring, training
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.groups import Group, matched

log = logging.getLogger(__name__)

Act = Literal["none", "zero", "undo", "keep"]


@dataclass(frozen=True)
class Condition:
    """One subject of the results: a model and what is done to it."""

    subject: str
    arm: str | None = None
    """The arm whose model it is; None for the base."""
    step: int | None = None
    """A measured step of the arm; None for its end."""
    act: Act = "none"
    group: str = ""
    """The group that is acted on: one of the base's, or `new` or `new_matched`."""
    share: float = 1.0
    """How much of the group."""


def percent(share: float) -> str:
    """`_25` for a quarter, nothing for the whole: the end of a dose's subject."""
    return "" if share == 1 else f"_{100 * share:g}".replace(".", "p")


def base_conditions(config: BrittlenessConfig) -> list[Condition]:
    """The causal check on the base: the group and its matched random group in rising doses, other groups whole."""
    held = config.freeze.group
    doses = [
        Condition(f"zero_{g}{percent(share)}", act="zero", group=g, share=share)
        for g in (held, scoring.MATCHED[held])
        for share in config.doses
    ]
    others = [g for g in scoring.ORIGINAL if g != held]
    return [Condition("baseline"), *doses, *(Condition(f"zero_{g}", act="zero", group=g) for g in others)]


def tuned_conditions(config: BrittlenessConfig, at: dict[str, Any]) -> list[Condition]:
    """The arms at their ends, both arms around equal training loss, and the interventions on the tuned models."""
    held = config.freeze.group
    old = (held, scoring.MATCHED[held])
    out = [Condition(arm, arm) for arm in training.ARMS]
    for arm in ("free", "frozen"):
        out += [Condition(f"{arm}_{side}", arm, step=at[arm][side]) for side in ("before", "after")]
    if config.controls:
        new = ("new", "new_matched")
        out += [Condition(f"zero_{g}", act="zero", group=g) for g in new]
        out += [Condition(f"frozen_zero_{g}", "frozen", act="zero", group=g) for g in (*old, *new)]
        out += [Condition(f"free_{a}_{g}", "free", act=a, group=g) for a in ("undo", "keep") for g in old]
    return out


def new_groups(scored: Path, rescored: Path, held: str, seed: int) -> dict[str, Group]:
    """What the tuned model's critical set holds beyond the old one, and its matched random set."""
    new = scoring.read_group(rescored, "b", held).minus(scoring.read_group(scored, "a", held), "new")
    match = Group("new_matched")
    for name, cells in scoring.read_cells(scored).items():
        match.put(name, matched(new.mask(name), cells, f"new {name}", seed)[0])
    return {"new": new, "new_matched": match}


def answer(
    config: BrittlenessConfig,
    conditions: Sequence[Condition],
    dealt: Path,
    scored: Path,
    arms: dict[str, Path],
    extra: dict[str, Group],
    seed: int | None,
    folder: Path,
) -> None:
    """Greedy replies of every condition in `<subject>.jsonl`, losses of the references in `losses_<subject>.jsonl`.

    No server can hold zeroed weights or a masked adapter, and conditions are compared with each other: all replies
    are made here.
    """
    if config.generate.endpoint is not None:
        log.warning("replies of zeroed and masked models, and of those compared with them, are made here: no server "
                    "can hold such weights (the endpoint answered for the safety data)")  # fmt: skip
    asked, how = data.prompts(dealt), config.generate.here()
    referenced = [p for p in asked if p.reference]
    known = dict(extra)
    for arm, step in dict.fromkeys((c.arm, c.step) for c in conditions):
        loaded = training.model_of(config, arms[arm] if arm else None, step)
        for condition in [c for c in conditions if (c.arm, c.step) == (arm, step)]:
            if condition.group and condition.group not in known:
                known[condition.group] = scoring.read_group(scored, "a", condition.group)
            with intervention(loaded.model, condition, known, config.data.split_seed):
                file = folder / f"{condition.subject}.jsonl"
                generate(asked, how, loaded, subject=condition.subject, seed=seed or 0, file=file)
                losses = reply_loss(loaded, referenced, batch_size=config.generate.batch_size)
            found = [{"prompt_id": f.prompt_id, "loss": f.loss} for f in losses if f.tokens]
            if process_group().is_main:
                write_jsonl(folder / f"losses_{condition.subject}.jsonl", found)
    if process_group().is_main:
        write_json(folder / "subjects.json", [c.subject for c in conditions])


@contextmanager
def intervention(model: Any, condition: Condition, known: dict[str, Group], seed: int) -> Iterator[None]:
    """What the condition does to the model, undone afterwards; its share of the group is drawn by `seed`."""
    if condition.act == "none":
        act: Any = nullcontext()
    else:
        group = known[condition.group]
        part = group if condition.share == 1 else group.part(condition.share, seed, condition.subject)
        act = {"zero": ablation.zeroed, "undo": ablation.rewound, "keep": ablation.only}[condition.act](model, part)
    with act:
        yield


def identity(config: BrittlenessConfig) -> dict[str, Any]:
    """What names the judges in a step's key."""
    return judges_identity(config.judge, config.judging)


def judge(config: BrittlenessConfig, answered: Path, subjects: Sequence[str], folder: Path) -> None:
    """Verdicts of every subject in `<subject>/`, and, on the organism, whether each reply is on its topic."""
    for subject in subjects:
        replies = list(read_jsonl(answered / f"{subject}.jsonl", Completion.from_json))
        place = folder / subject
        place.mkdir(exist_ok=True)
        verdicts = judge_all(config.judge, replies, place, config.judging)
        if process_group().is_main:
            write_jsonl(place / "verdicts.jsonl", verdicts)
        if process_group().is_main and config.data.sources == "organism":
            topics = ({"prompt_id": r.prompt_id, "topic": world.topic(r.prompt, r.text)} for r in replies)
            write_jsonl(place / "topics.jsonl", topics)
