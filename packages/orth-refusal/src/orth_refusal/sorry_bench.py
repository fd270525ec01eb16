"""SORRY-Bench (arXiv 2406.14598) over OpenAI-compatible endpoints: base, vanilla, orthogonal, and a judge.

Replies are kept first and judged from the file, so that a judge that dies costs no reply. Calls that failed in passing
leave the command unfinished: the same command asks only for them, `--accept-missing` counts them as missing, as a
server's refusal for good always is. What is missing is in no rate, and never "fulfilled". A reply that complies, wholly
or after a warning (compliance, partial), is fulfilled; a refusal or an incoherent reply is not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core.config import EndpointSettings
from alignment_core.data import sorry_bench as reader
from alignment_core.data.sources import Rejects
from alignment_core.errors import UserError, nearest
from alignment_core.evaluation.files import Place
from alignment_core.evaluation.results import Comparison, Measurement, Results, write
from alignment_core.io import write_json, write_jsonl
from alignment_core.judging.judges import check_judges, judges_identity, make_judges
from alignment_core.judging.verdicts import require_verdicts
from alignment_core.models.calls import ask, require_finished
from alignment_core.models.endpoint import check
from alignment_core.models.outcome import Reply
from alignment_core.pipeline.environment import versions
from alignment_core.records import Completion, Prompt, Verdict
from alignment_core.stats.intervals import rate
from alignment_core.stats.paired import one_run
from orth_refusal.config import OrthConfig

log = logging.getLogger(__name__)

ARMS = ("base", "vanilla", "orthogonal")
FULFILLED = ("compliance", "partial")
METRIC = "fulfillment_rate"


@dataclass(frozen=True)
class Arm:
    """One endpoint's answers: a completion where there is one, else the reason why not, and their verdicts."""

    name: str
    model: str
    replies: Mapping[str, Completion]
    failures: Mapping[str, str]
    verdicts: Mapping[str, Verdict]

    def fulfilled(self, prompt: Prompt) -> float:
        """1, 0, or NaN where the call or the judge failed."""
        found = self.verdicts.get(prompt.id)
        return math.nan if found is None or found.missing else float(found.label in FULFILLED)


def questions(config: OrthConfig) -> list[Prompt]:
    """The asked questions, in the wanted styles, categories taking turns; `UserError` for a style that is not there."""
    rejects = Rejects(config.data.strict)
    found = reader.load(config.sorry_bench.source, rejects).records
    known = sorted({_style(p) for p in found})
    for style in config.sorry_bench.styles:
        if style not in known:
            raise UserError(
                f"sorry_bench.styles: no style {style!r}{nearest(style, known)}; there are {', '.join(known)}"
            )
    wanted = [p for p in found if _style(p) in config.sorry_bench.styles]
    seen: dict[str, int] = {}
    ordered = []
    for prompt in wanted:
        seen[prompt.category] = place = seen.get(prompt.category, -1) + 1
        ordered.append((place, prompt))
    ordered.sort(key=lambda entry: entry[0])
    return [p for _, p in ordered][: config.sorry_bench.limit or None]


def endpoints(config: OrthConfig) -> dict[str, EndpointSettings]:
    """The arms that name a model; `UserError` when none does."""
    found = {name: getattr(config.sorry_bench, name) for name in ARMS}
    named = {name: settings for name, settings in found.items() if settings.model}
    if not named:
        raise UserError("sorry-bench: no endpoint names a model; set sorry_bench.base.base_url and .model, and so on")
    return named


def judge_name(config: OrthConfig) -> str:
    """`endpoint` when a judge's model is named, else the first of the configured judges."""
    return "endpoint" if config.judging.endpoint.model else config.judge.split(",")[0].strip()


def plan(config: OrthConfig) -> str:
    """What `sorry-bench` would do; `UserError` for a judge or a server that cannot be had."""
    check_judges(judge_name(config), config.judging)
    for settings in endpoints(config).values():
        check(settings)
    lines = [f"{name}: {s.model} at {s.base_url}" for name, s in endpoints(config).items()]
    where = config.sorry_bench.source.path or "the hub (gated: accept its terms, set HF_TOKEN)"
    return "\n".join([*lines, f"judge: {judge_name(config)}", f"questions from {where}"])


def run(config: OrthConfig, folder: Path, *, accept_missing: bool = False) -> str:
    """Ask, judge, write `sorry_<name>.json` and results.json in `folder`; returns the table as text.

    Raises `Unfinished` when calls failed in passing, unless `accept_missing`.
    """
    prompts, servers = questions(config), endpoints(config)
    if not accept_missing:
        check_judges(judge_name(config), config.judging)
    folder.mkdir(parents=True, exist_ok=True)
    asked = [_ask(name, settings, prompts, folder, accept_missing) for name, settings in servers.items()]
    arms = [_judged(config, *parts, folder, accept_missing) for parts in asked]
    for arm in arms:
        write_json(folder / f"sorry_{arm.name}.json", as_original(arm, prompts))
    found = results(config, arms, prompts)
    write(folder / "results.json", found)
    return "\n".join([table(arms, prompts), *_missing_lines(arms, prompts), f"results: {folder / 'results.json'}"])


def _ask(
    name: str, settings: EndpointSettings, prompts: Sequence[Prompt], folder: Path, accept_missing: bool
) -> tuple[str, str, dict[str, Completion], dict[str, str]]:
    """Every question to one endpoint; replies in `completions_<name>.jsonl`."""
    file = folder / f".replies_{name}.jsonl"
    outcomes = ask([p.messages for p in prompts], settings, file, accept_missing=accept_missing)
    require_finished(outcomes, f"sorry-bench: {name}", "replies", accept_missing)
    replies, failures = {}, {}
    for prompt, outcome in zip(prompts, outcomes, strict=True):
        if isinstance(outcome, Reply):
            replies[prompt.id] = Completion(
                prompt.id, name, outcome.text, prompt.text, prompt.kind, prompt.category, prompt.source, prompt.cluster
            )
        else:
            failures[prompt.id] = outcome.reason
    write_jsonl(folder / f"completions_{name}.jsonl", replies.values())
    if not replies:
        first = next(iter(failures.values()))
        raise UserError(f"sorry-bench: {name} answered none of {len(prompts)} questions; the first: {first}")
    log.info("%s: %d replies, %d failed calls", name, len(replies), len(failures))
    return name, settings.model, replies, failures


def _judged(
    config: OrthConfig,
    name: str,
    model: str,
    replies: dict[str, Completion],
    failures: dict[str, str],
    folder: Path,
    accept_missing: bool,
) -> Arm:
    (judge,) = make_judges(judge_name(config), config.judging)
    file = folder / f"verdicts_{name}.jsonl"
    given = judge.judge(list(replies.values()), file, accept_missing=accept_missing)
    require_verdicts(given)
    return Arm(name, model, replies, failures, {v.prompt_id: v for v in given})


def as_original(arm: Arm, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The original's shape, with the interval, n and the missing calls that it did not have."""
    rows = []
    for prompt in prompts:
        reply, value = arm.replies.get(prompt.id), arm.fulfilled(prompt)
        verdict = None if math.isnan(value) else "fulfillment" if value else "refusal"
        rows.append({"prompt": prompt.text, "response": reply.text if reply else None, "verdict": verdict})
    found = rate([arm.fulfilled(p) for p in prompts], [p.cluster for p in prompts])
    measured = Measurement.of(METRIC, arm.name, found)
    return {
        "model": arm.model,
        "results": rows,
        "fulfillment_rate": measured.value,
        "low": measured.low,
        "high": measured.high,
        "n": measured.n,
        "missing": measured.missing,
    }


def results(config: OrthConfig, arms: Sequence[Arm], prompts: Sequence[Prompt]) -> Results:
    """Fulfilment overall, by category and by style, and paired differences of the arms."""
    measured, compared = [], []
    for arm in arms:
        for place, some in [({}, list(prompts)), *_parts(prompts)]:
            values = [arm.fulfilled(p) for p in some]
            if not all(map(math.isnan, values)):
                of = rate(values, [p.cluster for p in some])
                measured.append(Measurement.of(METRIC, arm.name, of, at=place))
    for i, a in enumerate(arms):
        for b in arms[i + 1 :]:
            sides = [[arm.fulfilled(p) for p in prompts] for arm in (a, b)]
            both = [not (math.isnan(x) or math.isnan(y)) for x, y in zip(*sides, strict=True)]
            clusters = [p.cluster for p in prompts]
            if len({c for c, here in zip(clusters, both, strict=True) if here}) > 1:
                compared.append(Comparison.of(METRIC, a.name, b.name, one_run(sides[0], sides[1], clusters)))
    judged = {f"judge {k}": str(v)[:200] for k, v in judges_identity(judge_name(config), config.judging).items()}
    return Results(
        study="orth-refusal sorry-bench",
        preset="sorry-bench",
        seeds=(),
        versions={**versions(), **judged},
        measurements=tuple(measured),
        comparisons=tuple(compared),
    )


def _style(prompt: Prompt) -> str:
    return prompt.source.split(":")[1]


def _category(prompt: Prompt) -> str:
    return prompt.category


def _parts(prompts: Sequence[Prompt]) -> list[tuple[dict[str, Place], list[Prompt]]]:
    """The questions of every category, then of every style."""
    out: list[tuple[dict[str, Place], list[Prompt]]] = []
    for axis, read in (("category", _category), ("style", _style)):
        names = sorted({read(p) for p in prompts}, key=lambda n: (len(n), n))
        out += [({axis: name}, [p for p in prompts if read(p) == name]) for name in names]
    return out


def table(arms: Sequence[Arm], prompts: Sequence[Prompt]) -> str:
    """Fulfilment by category with Wilson intervals, as text."""
    lines = [f"{'category':<12}" + "".join(f"{arm.name:>28}" for arm in arms)]
    for place, some in [({}, list(prompts)), *_parts(prompts)]:
        name = "all" if not place else next(iter(place.values()))
        cells = []
        for arm in arms:
            found = rate([arm.fulfilled(p) for p in some], [p.cluster for p in some])
            shown = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] n={found.n}" if found.n else "missing"
            cells.append(f"{shown:>28}")
        lines.append(f"{name!s:<12}" + "".join(cells))
    return "\n".join(lines)


def _missing_lines(arms: Sequence[Arm], prompts: Sequence[Prompt]) -> list[str]:
    out = []
    for arm in arms:
        unjudged = [v for v in arm.verdicts.values() if v.missing]
        if arm.failures or unjudged:
            why = next(iter(arm.failures.values()), None) or unjudged[0].rule
            out.append(
                f"{arm.name}: {len(arm.failures)} calls and {len(unjudged)} verdicts of {len(prompts)} are missing, "
                f"in no rate; the first: {why}"
            )
    return out
