"""What results say of how their steps were made: by which code and versions, and what was kept although it changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alignment_core.evaluation.results import StepUsed
from alignment_core.pipeline.run import Used
from alignment_core.progress import named


def of(used: Iterable[Used]) -> dict[str, Any]:
    """The fields `steps` and `notes` of the results."""
    steps = sorted(used, key=lambda one: (one.step.name, one.step.seed is not None, one.step.seed or 0))
    named_steps = [
        StepUsed(name=one.step.name, seed=one.step.seed, key=one.step.key, code=one.facts["code"]["digest"])
        for one in steps
    ]
    return {"steps": tuple(named_steps), "notes": tuple(notes(steps))}


def notes(used: Iterable[Used]) -> list[str]:
    """Sentences that steps noted while they were made, about steps that were kept or continued although their code
    changed, and about several versions."""
    steps = list(used)
    noted = dict.fromkeys(sentence for one in steps for sentence in one.facts.get("notes", ()))
    return [*noted, *_kept(steps), *_continued(steps), *_versions(steps)]


def _kept(steps: Iterable[Used]) -> Iterator[str]:
    for one in steps:
        if one.other_code:
            yield (
                f"{named(one.step.name, one.step.seed)} was made by other code than today's and kept: {one.other_code}."
            )


def _continued(steps: Iterable[Used]) -> Iterator[str]:
    for one in steps:
        if "continued_by" in one.facts and not one.other_code:
            yield f"{named(one.step.name, one.step.seed)} was begun by other code than the code that finished it."


def _versions(steps: Iterable[Used]) -> Iterator[str]:
    """Packages of which the steps were made with several versions."""
    found: dict[str, set[str]] = {}
    for one in steps:
        versions: Mapping[str, Any] = one.facts.get("versions") or {}
        for package, version in versions.items():
            found.setdefault(package, set()).add(str(version))
    several = [f"{package} {' and '.join(sorted(all_))}" for package, all_ in sorted(found.items()) if len(all_) > 1]
    if several:
        yield f"The steps were made with several versions: {', '.join(several)}."
