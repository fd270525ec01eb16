"""What a run cost: time and peak memory in total, by step, and by step and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment_core.report.tables import Grid, grid


@dataclass(frozen=True)
class Spent:
    """One step of one seed."""

    name: str
    seed: int | None
    seconds: float
    memory: float
    """Peak of the process that ran it, in bytes; 0 where it is not known."""
    attempts: int


@dataclass(frozen=True)
class Cost:
    """The section: the total in a sentence, then the steps."""

    summary: str
    by_step: Grid
    each: Grid | None
    """Each step and seed; None where that is the same."""


def read(timings: Mapping[str, Any]) -> list[Spent]:
    """The steps in timings.json, in the order in which they ran."""
    steps = timings.get("steps", {})
    rows = steps.items() if isinstance(steps, dict) else ()
    return [
        Spent(
            str(step.get("name", folder)),
            seed if isinstance(seed := step.get("seed"), int) else None,
            _number(step.get("seconds")),
            _number(step.get("peak_rss_bytes")),
            int(_number(step.get("attempts", 1))),
        )
        for folder, step in rows
        if isinstance(step, dict)
    ]


def _number(value: Any) -> float:
    """A figure from a file that somebody may have edited; 0 where it is none."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else 0.0


def cost(timings: Mapping[str, Any], environment: Mapping[str, Any]) -> Cost | None:
    """What timings.json and env.json say; None where no step is timed."""
    spent = read(timings)
    if not spent:
        return None
    names = list(dict.fromkeys(s.name for s in spent))
    several = any(s.seed is not None for s in spent) and len(names) < len(spent)
    return Cost(summary(spent, environment), _by_step(spent, names), _each(spent) if several else None)


def summary(spent: Sequence[Spent], environment: Mapping[str, Any]) -> str:
    """Time, memory and machine in a sentence or two."""
    highest = max(s.memory for s in spent)
    peak = f", peak memory {size(highest)}" if highest else ""
    again = sum(s.attempts > 1 for s in spent)
    resumed = f" {again} of them took more than one attempt." if again else ""
    steps = f"{len(spent)} step{'' if len(spent) == 1 else 's'}"
    return f"{steps}, {duration(sum(s.seconds for s in spent))} in total{peak}.{resumed}{_on(environment)}"


def _on(environment: Mapping[str, Any]) -> str:
    where = [str(environment[key]) for key in ("platform",) if environment.get(key)]
    where += [f"{environment['cpus']} CPUs"] if environment.get("cpus") else []
    gpus = environment.get("gpus") or environment.get("gpu")
    where += [", ".join(map(str, gpus)) if isinstance(gpus, list) else str(gpus)] if gpus else []
    return f" On {', '.join(where)}." if where else ""


def _by_step(spent: Sequence[Spent], names: Sequence[str]) -> Grid:
    grouped = ([s for s in spent if s.name == name] for name in names)
    rows = ((mine[0].name, str(len(mine)), *_figures(mine)) for mine in grouped)
    return grid("", ("step", "times", "total time", "peak memory"), rows, right=3)


def _figures(mine: Sequence[Spent]) -> tuple[str, str]:
    return duration(sum(s.seconds for s in mine)), size(max(s.memory for s in mine))


def _each(spent: Sequence[Spent]) -> Grid:
    ordered = sorted(spent, key=lambda s: (s.seed is not None, s.seed or 0))
    rows = ((s.name, "" if s.seed is None else str(s.seed), *_figures([s]), str(s.attempts)) for s in ordered)
    return grid("", ("step", "seed", "time", "peak memory", "attempts"), rows, right=4)


def size(memory: float) -> str:
    """Bytes as MiB or GiB."""
    if not memory:
        return "n/a"
    return f"{memory / 2**20:.0f} MiB" if memory < 2**31 else f"{memory / 2**30:.1f} GiB"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 0.05:
        return "<0.1 s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
