"""What a run cost: time and peak memory, all together, by step, and by step and seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment_core.report import markup
from alignment_core.report.tables import Cell, Grid
from alignment_core.text import for_html

FEW = 12
"""So many steps are shown at once; more are folded."""


@dataclass(frozen=True)
class Spent:
    """One step of one seed."""

    name: str
    seed: int | None
    seconds: float
    memory: float
    """Peak of the process that ran it, in bytes; 0 where it is not known."""
    attempts: int


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


def html(timings: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """The section: the sum in a sentence, then the steps."""
    spent = read(timings)
    if not spent:
        return ""
    names = list(dict.fromkeys(s.name for s in spent))
    by_step = markup.grid(_by_step(spent, names))
    out = [f"<p>{for_html(summary(spent, environment))}</p>"]
    out.append(by_step if len(names) <= FEW else markup.folded(f"Each of the {len(names)} steps", by_step))
    if any(s.seed is not None for s in spent) and len(names) < len(spent):
        out.append(markup.folded("Each step and seed", markup.grid(_each(spent))))
    return "\n".join(out)


def summary(spent: Sequence[Spent], environment: Mapping[str, Any]) -> str:
    """Time, memory and machine in a sentence or two."""
    highest = max(s.memory for s in spent)
    peak = f", peak memory {size(highest)}" if highest else ""
    again = sum(s.attempts > 1 for s in spent)
    resumed = f" {again} of them took more than one attempt." if again else ""
    return f"{len(spent)} steps, {duration(sum(s.seconds for s in spent))} together{peak}.{resumed}{_on(environment)}"


def _on(environment: Mapping[str, Any]) -> str:
    where = [str(environment[key]) for key in ("platform",) if environment.get(key)]
    where += [f"{environment['cpus']} CPUs"] if environment.get("cpus") else []
    gpus = environment.get("gpus") or environment.get("gpu")
    where += [", ".join(map(str, gpus)) if isinstance(gpus, list) else str(gpus)] if gpus else []
    return f" On {', '.join(where)}." if where else ""


def _by_step(spent: Sequence[Spent], names: Sequence[str]) -> Grid:
    rows = []
    for name in names:
        mine = [s for s in spent if s.name == name]
        rows.append((Cell(name), Cell(str(len(mine))), *_figures(mine)))
    return Grid("", ("step", "times", "time together", "peak memory"), tuple(rows), "", (False, True, True, True))


def _figures(mine: Sequence[Spent]) -> Iterator[Cell]:
    yield Cell(duration(sum(s.seconds for s in mine)))
    yield Cell(size(max(s.memory for s in mine)))


def _each(spent: Sequence[Spent]) -> Grid:
    rows = tuple(
        (Cell(s.name), Cell("" if s.seed is None else str(s.seed)), *_figures([s]), Cell(str(s.attempts)))
        for s in sorted(spent, key=lambda s: (s.seed is not None, s.seed or 0))
    )
    columns = ("step", "seed", "time", "peak memory", "attempts")
    return Grid("", columns, rows, "", (False, True, True, True, True))


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
