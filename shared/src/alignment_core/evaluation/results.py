"""results.json: what a run found, in the same shape for every study.

A `Measurement` is one figure of one subject, a `Comparison` a paired difference b - a, an `Agreement` Cohen's kappa of
two judges, a `Hypothesis` a claim decided by a rule written before the run. `seed` None means over the seeds; `base`
names the base checkpoint, None over all of the run's; `at` places a figure on a trajectory, category, layer, group or
judge. What is undefined is null: NaN and infinities become
None on the way in, and are never written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from alignment_core import io
from alignment_core.errors import InputError, UserError, nearest
from alignment_core.evaluation.files import Place

if TYPE_CHECKING:
    from alignment_core.stats.result import PairedResult

Decision = Literal["supported", "contradicted", "inconclusive", "not tested"]
"""What a run says of a hypothesis."""


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python number it holds; NaN and infinities as None."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_plain)]
Count = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_plain)]
Seed = Annotated[int | None, BeforeValidator(_plain)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class IntervalLike(Protocol):
    """What a measurement needs of `stats.intervals.Interval`."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def n(self) -> int: ...
    @property
    def method(self) -> str: ...
    @property
    def missing(self) -> int: ...


def _same_place(at: Mapping[str, Place], other: Mapping[str, Place] | None) -> bool:
    """Whether two places are one; a null entry is the same as none."""
    return {k: v for k, v in at.items() if v is not None} == {k: v for k, v in (other or {}).items() if v is not None}


class Measurement(_Shape):
    """One figure of one subject with its interval."""

    metric: str
    subject: str
    seed: Seed = None
    base: str | None = None
    at: dict[str, Place] = {}
    value: Number
    low: Number = None
    high: Number = None
    method: str
    """How the interval was made, for example `wilson`."""
    estimator: str = "raw"
    """`raw`, or how the value was corrected for the judge's error."""
    n: Count
    """Units that entered the value; missing ones are not among them."""
    missing: Annotated[int, BeforeValidator(_plain), Field(ge=0)] = 0
    completions: str | None = None
    """Path, relative to the run folder, of the completions behind the figure."""

    @classmethod
    def of(
        cls,
        metric: str,
        subject: str,
        interval: IntervalLike,
        *,
        seed: int | None = None,
        at: Mapping[str, Place] | None = None,
        estimator: str = "raw",
        completions: Path | str | None = None,
    ) -> Self:
        """From an interval of `stats.intervals`."""
        return cls(
            metric=metric,
            subject=subject,
            seed=seed,
            at=dict(at or {}),
            value=interval.value,
            low=interval.low,
            high=interval.high,
            method=interval.method,
            estimator=estimator,
            n=interval.n,
            missing=interval.missing,
            completions=completions.as_posix() if isinstance(completions, Path) else completions,
        )

    @property
    def missing_share(self) -> float:
        """Missing units as a share of all; 0 where there are none at all."""
        total = (self.n or 0) + self.missing
        return self.missing / total if total else 0.0


class Comparison(_Shape):
    """A paired difference b - a of one metric.

    `p` is that of `test`, of no difference. Where the comparison decides a hypothesis, `decision` names the
    hypothesis, and `decision_p` is the p of `decision_test` (against the margin where the rule has one), adjusted over
    the family in `p_adjusted`.
    """

    metric: str
    a: str
    b: str
    seed: Seed = None
    base: str | None = None
    at: dict[str, Place] = {}
    role: Literal["primary", "control", "exploratory"] = "exploratory"
    difference: Number
    low: Number = None
    high: Number = None
    method: str
    """How the interval was made."""
    p: Number = None
    test: str | None = None
    """Name of the test that `p` is of; None where there is no p."""
    estimand: str
    """What the difference is about: `these checkpoints` or `over runs`."""
    n_prompts: Count = None
    n_clusters: Count = None
    n_seeds: Count = None
    df: Number = None
    effect: Number = None
    detectable: Number = None
    """Smallest difference this n could have shown."""
    decision: str | None = None
    decision_test: str | None = None
    decision_p: Number = None
    p_adjusted: Number = None
    family: str | None = None
    """The family over which `p_adjusted` is adjusted (Holm); None outside every family."""
    margin: Number = None

    @classmethod
    def of(
        cls,
        metric: str,
        a: str,
        b: str,
        result: PairedResult,
        *,
        seed: int | None = None,
        at: Mapping[str, Place] | None = None,
        role: Literal["primary", "control", "exploratory"] = "exploratory",
    ) -> Self:
        """From a paired result, whose difference must be b - a."""
        taken = ("difference", "low", "high", "method", "p", "test", "estimand", "n_prompts", "n_clusters", "n_seeds")
        values = {name: getattr(result, name) for name in (*taken, "df", "effect", "detectable")}
        return cls(metric=metric, a=a, b=b, seed=seed, at=dict(at or {}), role=role, **values)

    @property
    def significant(self) -> bool | None:
        """At .05: by the decision's adjusted p where the comparison decides a hypothesis, else by p, else by the
        interval; None if undefined."""
        p = self.p if self.decision is None else self.p_adjusted
        if p is not None:
            return p < 0.05
        if self.low is None or self.high is None or self.margin is not None or self.low == self.high:
            return None
        return self.low > 0 or self.high < 0


class Agreement(_Shape):
    """Cohen's kappa of two judges on the same completions."""

    a: str
    b: str
    kappa: Number
    low: Number = None
    high: Number = None
    n: Annotated[int, BeforeValidator(_plain), Field(ge=0)]

    @classmethod
    def of(cls, a: str, b: str, interval: IntervalLike) -> Self:
        """From `stats.intervals.kappa`."""
        return cls(a=a, b=b, kappa=interval.value, low=interval.low, high=interval.high, n=interval.n)


class Hypothesis(_Shape):
    """A claim, the rule that decides it, and what the rule said."""

    name: str
    claim: str
    rule: str
    verdict: Decision
    because: str


class StepUsed(_Shape):
    """A step behind the figures."""

    name: str
    seed: Seed = None
    key: str
    code: str
    """Digest of the code that made it."""


class Results(_Shape):
    """Everything a run found."""

    study: str
    preset: str
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know of how the steps were made, a sentence each."""
    condition: str = ""
    """Under which condition the figures were measured, in a phrase; a headline repeats it."""
    versions: dict[str, str] = {}
    hypotheses_sha256: str | None = None
    measurements: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()
    steps: tuple[StepUsed, ...] = ()
    """The steps behind the figures, by name and seed."""

    def _named(self, metric: str, subject: str) -> Sequence[Measurement]:
        """The measurements of a metric and subject, in their order."""
        made = self.__dict__.get("_index")  # as functools.cached_property does, but a changed copy makes its own
        if made is None or made[0] is not self.measurements:
            found: dict[tuple[str, str], list[Measurement]] = {}
            for m in self.measurements:
                found.setdefault((m.metric, m.subject), []).append(m)
            self.__dict__["_index"] = made = (self.measurements, found)
        named: Sequence[Measurement] = made[1].get((metric, subject), ())
        return named

    def find(
        self,
        metric: str,
        subject: str,
        seed: int | None = None,
        at: Mapping[str, Place] | None = None,
        estimator: str = "raw",
    ) -> Measurement | None:
        """The measurement at exactly this place and by this estimator, or None."""
        mine = self._named(metric, subject)
        found = (m for m in mine if (m.seed, m.estimator) == (seed, estimator))
        return next((m for m in found if _same_place(m.at, at)), None)

    def measurement(
        self,
        metric: str,
        subject: str,
        seed: int | None = None,
        at: Mapping[str, Place] | None = None,
    ) -> Measurement:
        """As `find`; `UserError` names the nearest metric or subject when there is none."""
        found = self.find(metric, subject, seed, at)
        if found is not None:
            return found
        place = "".join(f" at {k}={v}" for k, v in (at or {}).items() if v is not None)
        near = nearest(metric, self.metrics) if metric not in self.metrics else nearest(subject, self.subjects)
        raise UserError(f"{self.study}: no {metric} of {subject}, seed {seed}{place}{near}")

    def headline(self, metric: str, subject: str, at: Mapping[str, Place] | None = None) -> Measurement | None:
        """The figure over the seeds, or the only seed's; None when there is neither (or several seeds and no whole)."""
        whole = self.find(metric, subject, None, at)
        if whole is not None:
            return whole
        each = self.over_seeds(metric, subject, at)
        return each[0] if len(each) == 1 else None

    def over_seeds(self, metric: str, subject: str, at: Mapping[str, Place] | None = None) -> list[Measurement]:
        """The raw figures of the single seeds, in the seeds' order."""
        mine = self._named(metric, subject)
        each = (m for m in mine if m.estimator == "raw" and m.seed is not None and _same_place(m.at, at))
        return sorted(each, key=lambda m: m.seed or 0)

    def along(self, metric: str, subject: str, axis: str, seed: int | None = None) -> list[Measurement]:
        """The raw figures placed on `axis` alone (for example `category` or `step`): seed's, else the only seed's."""
        placed = [
            m
            for m in self._named(metric, subject)
            if m.estimator == "raw"
            and m.at.get(axis) is not None
            and [k for k, v in m.at.items() if v is not None] == [axis]
        ]
        mine = [m for m in placed if m.seed == seed]
        if mine or seed is not None or len({m.seed for m in placed}) != 1:
            return mine
        return placed

    def comparison(
        self,
        metric: str,
        a: str,
        b: str,
        seed: int | None = None,
        at: Mapping[str, Place] | None = None,
    ) -> Comparison | None:
        """The comparison at exactly this place; with `seed` None the only seed's where there is none over seeds."""
        same = [c for c in self.comparisons if (c.metric, c.a, c.b) == (metric, a, b) and _same_place(c.at, at)]
        mine = [c for c in same if c.seed == seed]
        if not mine and seed is None and len(same) == 1:
            mine = same
        return mine[0] if mine else None

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics measured, in the order of first appearance."""
        return list(dict.fromkeys(m.metric for m in self.measurements))

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects measured, in the order of first appearance."""
        return list(dict.fromkeys(m.subject for m in self.measurements))

    def to_json(self) -> dict[str, Any]:
        """The JSON form, keys in the order of the shape."""
        return self.model_dump(mode="json")


def validate(value: Any, where: str = "results") -> Results:
    """`value` (parsed JSON) as `Results`; `InputError` names the key that is wrong."""
    try:
        return Results.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(where, None, f"{key}: {first['msg'].lower()}") from error


def write(path: Path, results: Results) -> None:
    """Replace `path` by the results, atomically: one record a line, so that a change shows as the lines it touches."""
    parts = []
    for key, value in results.to_json().items():
        many = isinstance(value, list) and value and isinstance(value[0], dict)
        text = "[\n" + ",\n".join(map(_line, value)) + "\n]" if many else _line(value)
        parts.append(f"{_line(key)}: {text}")
    io.write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def read(path: Path) -> Results:
    """The results in a file; `UserError` when there is none, `InputError` when it has another shape."""
    return validate(io.read_json(path), str(path))
