"""From judged states to results: measurements, comparisons, hypotheses and agreements, the same for every study.

A study says what it measures and compares in an `Analysis`; `analyse` does the rest. Per state: the shares of every
judge's verdicts (`rates.py`) and each metric. Over training seeds: the crossed interval. Differences are paired by
prompt, of each seed and over the seeds; hypotheses are decided over the seeds where there are several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignment_core.evaluation import hypotheses, rates, state
from alignment_core.evaluation.hypotheses import Claim, Outcome, Written
from alignment_core.evaluation.metrics import Metric, named
from alignment_core.evaluation.results import Agreement, Comparison, Hypothesis, Measurement, Results
from alignment_core.evaluation.tables import Table, difference, table
from alignment_core.pipeline.environment import versions
from alignment_core.stats import intervals
from alignment_core.stats.paired import PairedResult

if TYPE_CHECKING:
    from alignment_core.evaluation.state import State, StateFiles
    from alignment_core.pipeline.step import Step

Role = Literal["primary", "control", "exploratory"]


@dataclass(frozen=True)
class SeedOutput:
    """What a study returns for one training seed."""

    states: Sequence[StateFiles]
    steps: Mapping[str, Step] = field(default_factory=dict)
    """Steps that the study's own metrics read, by a name of the study's choice."""


@dataclass(frozen=True)
class Evidence:
    """What the states and steps of all seeds hold, read back from their files."""

    states: Mapping[str, Sequence[State]]
    """The states that stand for themselves, by subject, one a training seed in the seeds' order."""
    along: Mapping[str, Sequence[Sequence[State]]]
    """The states on trajectories, by subject: of each seed those in rising order of their place."""
    steps: Mapping[str, Sequence[Step]]
    """By the study's name, one a training seed; a step that all seeds share stands there once."""
    config: Any
    """The study's settings."""

    @classmethod
    def read(cls, outputs: Sequence[SeedOutput], root: Path, config: Any) -> Evidence:
        """Read what the seeds returned; what several seeds share is read once."""
        states: dict[str, list[State]] = {}
        along: dict[str, dict[int | None, list[State]]] = {}
        for files in every_state(outputs):
            one = state.load(files, root)
            if files.at:
                along.setdefault(one.subject, {}).setdefault(one.seed, []).append(one)
            else:
                states.setdefault(one.subject, []).append(one)
        steps: dict[str, list[Step]] = {}
        for output in outputs:
            for name, step in output.steps.items():
                mine = steps.setdefault(name, [])
                if step not in mine:
                    mine.append(step)
        trajectories = {subject: list(seeds.values()) for subject, seeds in along.items()}
        return cls(states, trajectories, steps, config)

    @property
    def several(self) -> bool:
        """Whether some state was made with several training seeds."""
        return any(len(each) > 1 for each in self.states.values())


def every_state(outputs: Sequence[SeedOutput]) -> list[StateFiles]:
    """The states of all seeds, each once, in the order of their first appearance."""
    found: dict[Any, StateFiles] = {}
    for output in outputs:
        for files in output.states:
            found.setdefault((files.subject, files.seed, tuple(files.at.items())), files)
    return list(found.values())


@dataclass(frozen=True)
class Contrast:
    """The difference b - a of two subjects."""

    a: str
    b: str
    role: Role = "exploratory"


def _nothing(_: Evidence) -> Iterable[Any]:
    return ()


def _as_written(claim: Claim, _: Evidence) -> Claim | Outcome:
    return claim


def _unchanged(results: Results, _: Evidence) -> Results:
    return results


@dataclass(frozen=True)
class Analysis:
    """What a study measures, compares and claims."""

    metrics: tuple[Metric, ...]
    """Those measured of its states, the core's among them."""
    compared: tuple[str, ...]
    """Keys of the metrics of which every contrast is compared."""
    contrasts: Callable[[Evidence], Iterable[Contrast]]
    metrics_of: Callable[[Any], Iterable[Metric]] = lambda _: ()
    """Of the settings: further metrics, whose reading depends on them (a rate above a threshold)."""
    tables: Callable[[Evidence], Iterable[Table]] = _nothing
    """Values that its own science makes of states, measured and compared like the others."""
    own: Callable[[Evidence], Iterable[Measurement]] = _nothing
    """Figures of its own that are no values of prompts."""
    claim: Callable[[Claim, Evidence], Claim | Outcome] = _as_written
    """Turns a claim with a test of its own into one about a comparison, or decides it."""
    primary: tuple[str, ...] | None = None
    """Names of the hypotheses whose comparisons are primary; None: all."""
    along: tuple[str, ...] = ()
    """Keys of the metrics measured along trajectories."""
    along_each: tuple[str, ...] = ()
    """Of several seeds: those that each seed keeps along its trajectory."""
    agreements: Callable[[Evidence], Iterable[Agreement]] = _nothing
    """Further agreements, beside those of the judges."""
    not_run: str = ""
    """What runs the states that a run lacks, for example `--controls runs it`."""
    condition: Callable[[Any], str] = lambda _: ""
    """Of the settings: under which condition the figures are measured, in a phrase."""
    finish: Callable[[Results, Evidence], Results] = _unchanged
    """What is left to do to the results as a whole."""


def analyse(
    evidence: Evidence, analysis: Analysis, package: str, study: str, preset: str, seeds: Sequence[int]
) -> Results:
    """Everything the evidence says, in the shape of results.json."""
    written = hypotheses.read(package)
    metrics = named((*analysis.metrics, *analysis.metrics_of(evidence.config)))
    read = {(t.metric, t.subject): t for t in _state_tables(evidence, metrics.values())}
    derived = list(analysis.tables(evidence))
    tables = read | {(t.metric, t.subject): t for t in derived if not t.at}
    measured = [
        *_of_states(evidence, read, metrics),
        *(m for t in derived for m in _of_table(t)),
        *_along(evidence, analysis, metrics),
        *analysis.own(evidence),
    ]
    measured += _means_over_seeds(measured)
    decided = hypotheses.decide(written, [_decide(c, evidence, analysis, tables, written) for c in written.claims])
    compared = [c for contrast in analysis.contrasts(evidence) for c in _compared(contrast, analysis.compared, tables)]
    results = Results(
        study=study,
        preset=preset,
        seeds=tuple(seeds),
        condition=analysis.condition(evidence.config),
        versions=versions(),
        hypotheses_sha256=written.sha256,
        measurements=tuple(measured),
        comparisons=tuple(decided.marked(compared, evidence.several, analysis.primary)),
        agreements=(*_agreements(evidence), *analysis.agreements(evidence)),
        hypotheses=decided.hypotheses,
    )
    return analysis.finish(results, evidence)


def _state_tables(evidence: Evidence, metrics: Iterable[Metric]) -> Iterator[Table]:
    for metric in metrics:
        for states in evidence.states.values():
            found = table(metric, states)
            if found is not None and not found.empty:
                yield found


def _of_states(
    evidence: Evidence, tables: Mapping[tuple[str, str], Table], metrics: Mapping[str, Metric]
) -> Iterator[Measurement]:
    """Of each state the shares of every judge and each further metric; of each subject the figures over its seeds."""
    for subject, states in evidence.states.items():
        for one in states:
            shares = list(_shares(one))
            yield from shares
            known = {m.metric for m in shares}
            for metric in (m for m in metrics.values() if m.key not in known):
                yield from _of_state(metric, one)
        if len(states) > 1:
            for metric in metrics.values():
                if metric.conditional:
                    yield from _conditional(metric, states)
                elif (found := tables.get((metric.key, subject))) is not None:
                    yield Measurement.of(metric.key, subject, found.level())


def _shares(one: State) -> Iterator[Measurement]:
    for rank, judge in enumerate(one.judges):
        for m in rates.rates(one.verdicts(judge), by_judge=rank > 0, completions=one.completions):
            yield m.model_copy(update={"seed": one.seed})


def _of_state(metric: Metric, one: State, at: Mapping[str, Any] | None = None) -> Iterator[Measurement]:
    """The metric of one state, over its replies; the best of a prompt's replies counts once a prompt."""
    found = metric.per_reply(one)
    if metric.best:
        found = [(prompt, one.clusters[prompt], value) for prompt, value in metric.values(one).items()]
    values = [value for _, _, value in found]
    if values and not all(map(math.isnan, values)):
        of = intervals.rate if metric.rate else intervals.mean_interval
        interval = of(values, [cluster for _, cluster, _ in found])
        yield Measurement.of(
            metric.key, one.subject, interval, seed=one.seed, at=at or one.at, completions=one.completions
        )


def _conditional(metric: Metric, states: Sequence[State]) -> Iterator[Measurement]:
    """A metric of other prompts in every seed: the mean of the seeds' means."""
    each = [sum(v) / len(v) for one in states if (v := list(metric.values(one).values()))]
    if len(each) > 1:
        yield Measurement.of(metric.key, states[0].subject, intervals.mean_interval(each))


def _of_table(one: Table) -> Iterator[Measurement]:
    """A table of the study's own: each seed, and over the seeds."""
    if one.empty:
        return
    for i, seed in enumerate(one.seeds):
        single = one.one_seed(seed)
        if single is not None and not single.empty:
            files = one.completions[i] if one.completions else None
            yield Measurement.of(one.metric, one.subject, single.level(), seed=seed, at=one.at, completions=files)
    if one.several:
        yield Measurement.of(one.metric, one.subject, one.level(), at=one.at)


def _along(evidence: Evidence, analysis: Analysis, metrics: Mapping[str, Metric]) -> Iterator[Measurement]:
    """Metrics along trajectories: of the only seed, or of each seed what it keeps and all over the seeds."""
    for seeds in evidence.along.values():
        for trajectory in seeds:
            keys = analysis.along if len(seeds) == 1 else analysis.along_each
            for one in trajectory:
                for key in keys:
                    yield from _of_state(metrics[key], one)
        if len(seeds) > 1:
            for column in zip(*seeds, strict=True):
                for key in analysis.along:
                    found = table(metrics[key], column)
                    if found is not None and not found.empty:
                        yield Measurement.of(key, found.subject, found.level(), at=found.at)


def _means_over_seeds(made: Sequence[Measurement]) -> list[Measurement]:
    """The seeds' mean of every figure that has several seeds and no figure over them yet."""
    known = {(m.metric, m.subject) for m in made if m.seed is None and not m.at}
    groups: dict[tuple[str, str], list[float]] = {}
    for m in made:
        if m.seed is not None and not m.at and m.estimator == "raw" and (m.metric, m.subject) not in known:
            groups.setdefault((m.metric, m.subject), []).append(math.nan if m.value is None else m.value)
    return [
        Measurement.of(metric, subject, intervals.mean_interval(values))
        for (metric, subject), values in groups.items()
        if len(values) > 1
    ]


def _compared(contrast: Contrast, keys: Sequence[str], tables: Mapping[tuple[str, str], Table]) -> Iterator[Comparison]:
    """b - a of every metric that both sides have: of each seed, and over the seeds."""
    a, b, role = contrast.a, contrast.b, contrast.role
    for key in keys:
        left, right = tables.get((key, a)), tables.get((key, b))
        if left is None or right is None:
            continue
        seeds = right.seeds if right.several or not left.several else left.seeds
        for seed in seeds:
            sides = left.one_seed(seed), right.one_seed(seed)
            if sides[0] is not None and sides[1] is not None:
                named_seed = next((s for s in (*sides[1].seeds, *sides[0].seeds) if s is not None), None)
                result = difference(sides[0], sides[1])
                if isinstance(result, PairedResult):
                    yield Comparison.of(key, a, b, result, seed=named_seed, role=role)
        if left.several or right.several:
            result = difference(left, right)
            if isinstance(result, PairedResult):
                yield Comparison.of(key, a, b, result, role=role)


def _decide(
    written_claim: Claim,
    evidence: Evidence,
    analysis: Analysis,
    tables: Mapping[tuple[str, str], Table],
    written: Written,
) -> tuple[Claim, Outcome]:
    """A claim with what its rule says of it."""
    claim = analysis.claim(written_claim, evidence)
    if isinstance(claim, Outcome):
        return written_claim, claim
    sides = [tables.get((claim.metric, subject)) for subject in (claim.a, claim.b)]
    if sides[0] is None or sides[1] is None:
        return claim, Outcome("not tested", _absent(claim, evidence, analysis), claim.rule(written.margin))
    result = difference(sides[0], sides[1])
    if isinstance(result, str):
        return claim, Outcome("not tested", result, claim.rule(written.margin))
    return claim, hypotheses.outcome(claim, result, written.margin)


def _absent(claim: Claim, evidence: Evidence, analysis: Analysis) -> str:
    """Why a claim has nothing to compare."""
    absent = [s for s in (claim.a, claim.b) if s not in evidence.states]
    if not absent:
        return f"{claim.metric} was not measured."
    hint = f"; {analysis.not_run}" if analysis.not_run else ""
    return f"Not run: {', '.join(absent)}{hint}."


def _agreements(evidence: Evidence) -> list[Agreement]:
    """Cohen's kappa of every two judges on refusal, over all replies of the states that stand for themselves."""
    given = [
        v for each in evidence.states.values() for one in each for judge in one.judges for v in one.verdicts(judge)
    ]
    return rates.agreements(given)


def decided(found: Results) -> dict[str, Hypothesis]:
    """The run's hypotheses by name."""
    return {h.name: h for h in found.hypotheses}
