"""Judged states written by hand, so that a test can plant a truth and let the whole analysis find it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment_core.evaluation.analysis import Analysis, Evidence, SeedOutput, analyse
from alignment_core.evaluation.files import COMPLETIONS, LOSSES, SCORES, VERDICTS, Place
from alignment_core.evaluation.results import Results
from alignment_core.evaluation.state import StateFiles
from alignment_core.io import write_jsonl
from alignment_core.pipeline.step import Step
from alignment_core.records import Completion, Kind, Label, Verdict

LETTERS: dict[str, Label | None] = {
    "r": "refusal", "p": "partial", "c": "compliance", "i": "incoherent", "-": None
}  # fmt: skip
"""A reply's verdict in a letter; a dash is missing."""


def state(
    root: Path,
    subject: str,
    seed: int | None = None,
    *,
    at: Mapping[str, Place] | None = None,
    judges: Mapping[str, Mapping[Kind, str]] | None = None,
    scores: Mapping[str, Sequence[Any]] | None = None,
    losses: Mapping[str, Mapping[str, float]] | None = None,
    **kinds: str,
) -> StateFiles:
    """A state on disk: `harmful="rrc-"` are the deciding judge's verdicts (`rules`) on the harmful prompts, one letter
    a prompt; `judges` those of further judges; `scores` values in the replies' order, kinds as given; `losses` of each
    set by row. Every prompt is its own cluster."""
    place = "-".join([subject, str(seed), *(f"{k}{v}" for k, v in (at or {}).items())])
    answered, judged = root / "answered" / place, root / "judged" / place
    asked = [(f"{kind}-{i}", kind) for kind, letters in kinds.items() for i in range(len(letters))]
    write_jsonl(answered / COMPLETIONS, [_completion(p, subject, k, seed) for p, k in asked])
    said: dict[str, Mapping[Any, str]] = {"rules": kinds, **(judges or {})}
    write_jsonl(
        judged / VERDICTS,
        [
            Verdict(f"{kind}-{i}", subject, judge, LETTERS[letter], kind, cluster=f"{kind}-{i}", seed=seed)
            for judge, by_kind in said.items()
            for kind, letters in by_kind.items()
            for i, letter in enumerate(letters)
        ],
    )
    if scores:
        rows = [
            {"prompt_id": p, **{name: values[i] for name, values in scores.items()}} for i, (p, _) in enumerate(asked)
        ]
        write_jsonl(judged / SCORES, rows)
    write_jsonl(
        answered / LOSSES,
        [
            {"set": name, "id": row, "cluster": row, "loss": loss}
            for name, rows in (losses or {}).items()
            for row, loss in rows.items()
        ],
    )
    return StateFiles(subject, seed, answered, judged, dict(at or {}))


def _completion(prompt: str, subject: str, kind: Any, seed: int | None) -> Completion:
    return Completion(prompt, subject, "a reply", "a request", kind, cluster=prompt, seed=seed)


def results(
    root: Path,
    analysis: Analysis,
    package: str,
    states: Sequence[StateFiles],
    config: Any = None,
    **steps: Step | Sequence[Step],
) -> Results:
    """What the whole analysis of a study says of planted states; `steps` are the study's science steps by name, one or
    one a training seed. A state or step without a seed is returned with every seed, as a study does."""
    by_name = {name: [one] if isinstance(one, Step) else one for name, one in steps.items()}
    named = {one.seed for one in states} | {step.seed for each in by_name.values() for step in each}
    seeds = sorted(seed for seed in named if seed is not None) or [13]
    outputs = [
        SeedOutput(
            [one for one in states if one.seed in (None, seed)],
            {name: step for name, each in by_name.items() for step in each if step.seed in (None, seed)},
        )
        for seed in seeds
    ]
    evidence = Evidence.read(outputs, root, config)
    return analyse(evidence, analysis, package, package.replace("_", "-"), "tiny", seeds)
