"""What a report says in sentences: the headline, what it is based on, the hypotheses, and the warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from alignment_core.evaluation.results import Decision, Hypothesis, Results
from alignment_core.records import KINDS, Kind
from alignment_core.report.methods import model_name
from alignment_core.report.spec import ReportSpec
from alignment_core.text import number

MISSING_WARNING = 0.05
"""Share of missing verdicts above which a warning is printed."""


@dataclass(frozen=True)
class Asked:
    """How many replies each state gave to one kind of prompt, and to how many prompts."""

    replies: int
    prompts: int | None
    """None where the results do not say."""
    n: int
    """What the figures count as n, those missing among them; 0 where there is no figure."""


def headline(results: Results, spec: ReportSpec) -> str:
    """The verdict in one sentence."""
    if spec.headline is not None:
        return spec.headline(results)
    if not results.hypotheses:
        return "This run decides no hypothesis: its figures are descriptive."
    named = {v: ", ".join(h.name for h in results.hypotheses if h.verdict == v) for v in get_args(Decision)}
    parts = "; ".join(f"{names} {verdict}" for verdict, names in named.items() if names)
    return f"Of {len(results.hypotheses)} hypotheses written before the run: {parts}."


def verdict_line(h: Hypothesis) -> str:
    """`H1 supported: the claim. Because ...`."""
    return f"{h.name} {h.verdict}: {h.claim.rstrip('.')}. {h.because}".rstrip()


def asked(results: Results, spec: ReportSpec, shown: Mapping[Kind, tuple[int, int]] | None = None) -> dict[Kind, Asked]:
    """Of each kind what each state was asked. `shown`: prompts and replies, where the replies themselves are known.

    From the results alone the prompts are known where a comparison is over as many prompts as the figures' n: then
    every prompt has one reply.
    """
    kind_of = {m.key: m.kind for m in spec.metrics if m.kind is not None and m.rate}
    counted: dict[Kind, int] = {}
    for key, kind in kind_of.items():
        for m in filter(None, (results.headline(key, subject) for subject in results.subjects)):
            counted[kind] = max(counted.get(kind, 0), (m.n or 0) + m.missing)
    single = any(c.n_prompts == counted.get(kind_of[c.metric]) for c in results.comparisons if c.metric in kind_of)
    if not shown:
        return {k: Asked(counted[k], counted[k] if single else None, counted[k]) for k in KINDS if counted.get(k)}
    return {k: Asked(shown[k][1], shown[k][0], counted.get(k, 0)) for k in KINDS if k in shown}


def basis(results: Results, config: Mapping[str, Any], found: Mapping[Kind, Asked]) -> str:
    """What the verdict is based on: seeds, model, prompts and replies, and how its figures are to be read."""
    model = config.get("model")
    name = str(model["name"]) if isinstance(model, Mapping) and model.get("name") else ""
    by = f" of {model_name(name)}" if name else ""
    seeds = f"{len(results.seeds)} training seed{'' if len(results.seeds) == 1 else 's'}"
    counted = _counted(found)
    adjusted = any(c.decision is not None and c.p_adjusted is not None for c in results.comparisons)
    decided = "; the p-values that decide are Holm-adjusted" if adjusted else ""
    return f"Based on {seeds}{by}{f' and {counted}' if counted else ''}. Brackets are 95% intervals{decided}."


def _counted(found: Mapping[Kind, Asked]) -> str:
    """`20 harmful and 10 benign prompts`; of several replies a prompt, or of an unknown number, `40 replies to ...`."""
    if all(a.prompts == a.replies for a in found.values()):
        parts = [f"{a.prompts} {kind}" for kind, a in found.items()]
    else:
        prompts = {kind: "" if a.prompts is None else f"{a.prompts} " for kind, a in found.items()}
        parts = [f"{a.replies} to {prompts[kind]}{kind}" for kind, a in found.items()]
        parts[0] = parts[0].replace(" to ", " replies to ", 1)
    return f"{_series(parts)} prompts" if parts else ""


def _series(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def unit(found: Mapping[Kind, Asked]) -> str:
    """What n counts in the tables: `prompts`, or `replies` where it is not known to be prompts."""
    return "prompts" if all(a.n in (0, a.prompts) for a in found.values()) else "replies"


def warnings(results: Results, spec: ReportSpec) -> list[str]:
    """What a reader must know before believing a figure, one line each."""
    few = ["One training seed: the differences are about these checkpoints, not about the recipe."]
    return [
        *results.notes,
        *_missing(results, spec),
        *_uneven(results, spec),
        *(few if len(results.seeds) == 1 else []),
    ]


def _missing(results: Results, spec: ReportSpec) -> Iterator[str]:
    """One line for each state and seed: the metrics of one kind share their verdicts, so the first one counts."""
    seen = set()
    for metric in spec.metrics:
        for m in (m for m in results.measurements if m.metric == metric.key and m.estimator == "raw"):
            what = (metric.kind or metric.key, m.subject, m.seed)
            if any(v is not None for v in m.at.values()) or m.missing_share <= MISSING_WARNING or what in seen:
                continue
            seen.add(what)
            total = (m.n or 0) + m.missing
            seed = "" if m.seed is None else f", seed {m.seed}"
            line = f"{m.missing_share:.0%} missing in {metric.label} of {spec.subject(m.subject).label}{seed}"
            if metric.rate and m.value is not None and m.n:
                k = m.value * m.n
                line += f": between {number(k / total)} and {number((k + m.missing) / total)}, whatever they would be"
            yield line


def _uneven(results: Results, spec: ReportSpec) -> Iterator[str]:
    seen = set()
    for metric in spec.metrics:
        found = [m for s in spec.subjects if (m := results.headline(metric.key, s.key)) is not None]
        counts = {spec.subject(m.subject).label: m.missing for m in found}
        if len(set(counts.values())) < 2 or (metric.kind or metric.key) in seen:
            continue
        seen.add(metric.kind or metric.key)
        low, high = min(counts.items(), key=lambda kv: kv[1]), max(counts.items(), key=lambda kv: kv[1])
        yield f"{metric.label}: missing verdicts differ between states, {low[1]} of {low[0]} and {high[1]} of {high[0]}"
