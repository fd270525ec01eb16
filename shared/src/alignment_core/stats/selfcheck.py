"""Does every default test keep its word? Size and power on simulated verdicts whose truth is known.

`python -m alignment_core.stats.selfcheck` prints the table and exits with 1 when a check fails: a planted effect must
be found, a planted null must not be, and a comparison of a recipe with itself across training seeds (A/A) must raise
at most 6.5% false alarms at .05. The obvious wrong ways stand in the table as counter-examples.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from alignment_core.stats.intervals import wilson_coverage
from alignment_core.stats.layout import Floats, crossed_variance
from alignment_core.stats.paired import holm
from alignment_core.stats.rules import SIMILAR
from alignment_core.stats.simulate import (
    crossed_p,
    in_blocks,
    mcnemar_p,
    scores_of,
    t_bounds,
    tango_bounds,
    unit_t_p,
    unpaired_p,
    verdict_tables,
)
from alignment_core.stats.trajectories import flip_p

ALPHA = 0.05
MOST = 0.065
"""False alarms allowed at .05: the crossed test's own error, and of 10,000 runs four standard errors are .009."""
SEEDS_AA = (3, 5)

Kind = Literal["default", "beside", "wrong"]


@dataclass(frozen=True)
class Row:
    """Size (share of false alarms when there is nothing) and power of one test at one design; None: not simulated."""

    test: str
    speaks_of: str
    kind: Kind
    design: str
    size: float | None
    power: float | None
    planted: str


@dataclass(frozen=True)
class Check:
    """One promise: `value` against `bound`."""

    name: str
    value: float
    relation: Literal["at most", "at least"]
    bound: float

    @property
    def ok(self) -> bool:
        return self.value <= self.bound if self.relation == "at most" else self.value >= self.bound


@dataclass(frozen=True)
class SelfCheck:
    """All rows and checks of one self-check, with what reproduces it."""

    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    runs: int
    rng_seed: int

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def _share(p: Floats) -> float:
    return float((p <= ALPHA).mean())


def _p_table(
    rng: np.random.Generator, runs: int, prompts: int, seeds: int, difference: float, seed_sd: float = 0.024
) -> dict[str, float]:
    """Rejection shares of all tests that look at the same tables over training seeds."""

    def block(r: np.random.Generator, size: int) -> Floats:
        a, b = verdict_tables(r, size, prompts, seeds, difference=difference, seed_sd=seed_sd)
        d = b - a
        tests = (
            crossed_p(d),
            unpaired_p(a, b),
            unit_t_p(d.mean(axis=1)),
            mcnemar_p(d),
            unit_t_p(d.mean(axis=2)),
            mcnemar_p(d[..., 0]),
        )
        return np.stack(tests, axis=1)

    p = in_blocks(block, runs, rng)
    names = ("crossed", "unpaired", "seed t", "pooled", "prompts", "one seed")
    return {name: _share(p[:, i]) for i, name in enumerate(names)}


def over_seeds_rows(rng: np.random.Generator, runs: int, prompts: int, seeds: int, difference: float) -> list[Row]:
    """A/A and a planted difference over training seeds: the defaults and the obvious wrong ways."""
    null = _p_table(rng, runs, prompts, seeds, 0.0)
    planted = _p_table(rng, runs, prompts, seeds, difference)
    design = f"{prompts} prompts, {seeds} v {seeds} seeds"
    table: tuple[tuple[str, str, Kind], ...] = (
        ("crossed", "crossed", "default"),
        ("unpaired", "crossed, seeds unpaired", "default"),
        ("seed t", "t over the seeds", "beside"),
        ("pooled", "McNemar, seeds pooled", "wrong"),
        ("prompts", "t over prompts, seeds averaged", "wrong"),
        ("one seed", "McNemar on one seed, read as the recipe", "wrong"),
    )
    return [
        Row(label, "over runs", kind, design, null[key], planted[key], f"{difference:+g}") for key, label, kind in table
    ]


def one_run_rows(rng: np.random.Generator, runs: int, prompts: int, difference: float) -> list[Row]:
    """Two checkpoints: no seeds in it. Prompts alone, then prompts in clusters that move together."""

    def alone(delta: float) -> Floats:
        def block(r: np.random.Generator, size: int) -> Floats:
            a, b = verdict_tables(r, size, prompts, 1, difference=delta, seed_sd=0.0)
            return mcnemar_p(b - a)

        return in_blocks(block, runs, rng)

    def clustered(delta: float) -> Floats:
        def block(r: np.random.Generator, size: int) -> Floats:
            a, b = verdict_tables(r, size, prompts, 1, difference=delta, seed_sd=0.0, cluster_size=4, cluster_sd=1.0)
            d = (b - a)[..., 0]
            return np.stack([unit_t_p(d.reshape(size, -1, 4).mean(axis=2)), mcnemar_p(d)], axis=1)

        return in_blocks(block, runs, rng)

    null, planted = clustered(0.0), clustered(difference)
    here, plant = "these checkpoints", f"{difference:+g}"
    grouped = f"{prompts} prompts in clusters of 4"
    return [
        Row("McNemar", here, "default", f"{prompts} prompts", _share(alone(0.0)), _share(alone(difference)), plant),
        Row("t over clusters", here, "default", grouped, _share(null[:, 0]), _share(planted[:, 0]), plant),
        Row("McNemar, clusters ignored", here, "wrong", grouped, _share(null[:, 1]), _share(planted[:, 1]), plant),
    ]


def margin_rows(rng: np.random.Generator, runs: int, prompts: int, seeds: int, margin: float) -> list[Row]:
    """Equivalence and non-inferiority: size at a true difference of the margin itself, power at none."""

    def over(delta: float) -> Floats:
        def block(r: np.random.Generator, size: int) -> Floats:
            a, b = verdict_tables(r, size, prompts, seeds, difference=delta, seed_sd=0.01)
            return np.stack(t_bounds(crossed_variance(b - a), 0.90), axis=1)

        return in_blocks(block, runs, rng)

    def single(delta: float) -> Floats:
        def block(r: np.random.Generator, size: int) -> Floats:
            a, b = verdict_tables(r, size, 3 * prompts, 1, difference=delta, seed_sd=0.0)
            return np.stack(tango_bounds((b - a)[..., 0], 0.90), axis=1)

        return in_blocks(block, runs, rng)

    rows = []
    for label, speaks, design, simulate in (
        ("crossed", "over runs", f"{prompts} prompts, {seeds} v {seeds} seeds, seed spread .01", over),
        ("Tango", "these checkpoints", f"{3 * prompts} prompts", single),
    ):
        edge, none = simulate(-margin), simulate(0.0)
        within = [float(((x[:, 0] > -margin) & (x[:, 1] < margin)).mean()) for x in (edge, none)]
        above = [float((x[:, 0] > -margin).mean()) for x in (edge, none)]
        said = f"0 (null: -{margin:g})"
        rows += [
            Row(f"equivalence ({label})", speaks, "default", design, within[0], within[1], said),
            Row(f"non-inferiority ({label})", speaks, "default", design, above[0], above[1], said),
        ]
    return rows


def other_rows(rng: np.random.Generator, runs: int, prompts: int, seeds: int) -> list[Row]:
    """Scores, several arms, several primaries, and the rule for drift of weight groups."""

    def scores(delta: float) -> Floats:
        def block(r: np.random.Generator, size: int) -> Floats:
            a, b = scores_of(r, size, prompts, seeds, delta, seed_sd=0.05)
            one, other = scores_of(r, size, prompts, 1, delta, seed_sd=0.0)
            return np.stack([crossed_p(b - a), unit_t_p((other - one)[..., 0])], axis=1)

        return in_blocks(block, runs, rng)

    null, planted = scores(0.0), scores(0.2)
    arms = [np.array([flip_p(x)[1] for x in _arms(rng, max(200, runs // 5), shift)]) for shift in (0.0, 1.5)]
    families = np.array([holm(p).min() for p in _family(rng, runs // 4, prompts, seeds)])
    drift = {ratio: _drift(rng, runs, ratio) for ratio in (1.0, SIMILAR[1], 1.5)}
    layers = "8 layers of 7 matrices"
    design = f"{prompts} prompts, {seeds} v {seeds} seeds"
    return [
        Row("scores 1-5, crossed", "over runs", "default", design, _share(null[:, 0]), _share(planted[:, 0]), "+0.2"),
        Row(
            "scores 1-5, t over clusters",
            "these checkpoints",
            "default",
            f"{prompts} prompts",
            _share(null[:, 1]),
            _share(planted[:, 1]),
            "+0.2",
        ),
        Row(
            "max-T, any of 3 arms",
            "over runs",
            "default",
            "8 seeds, exact flips",
            _share(arms[0].min(axis=1)),
            _share(arms[1][:, 0]),
            "1.5 sd in one arm",
        ),
        Row("Holm, any of 4 primaries", "over runs", "default", design, _share(families), None, "none"),
        Row("log ratio: H1 or H3", "these matrices", "default", layers, drift[1.0][0], drift[1.5][0], "ratio 1.5"),
        Row("log ratio: H2", "these matrices", "default", layers, drift[1.25][1], drift[1.0][1], "1 (null: 1.25)"),
    ]


def _arms(rng: np.random.Generator, runs: int, shift: float) -> Floats:
    """Areas per seed of three arms [runs, 3, 8] with seeds in common; the first arm is shifted."""
    x = rng.standard_normal((runs, 3, 8)) + 0.5 * rng.standard_normal((runs, 1, 8))
    x[:, 0] += shift
    return np.asarray(x)


def _family(rng: np.random.Generator, families: int, prompts: int, seeds: int) -> Floats:
    def block(r: np.random.Generator, size: int) -> Floats:
        a, b = verdict_tables(r, 4 * size, prompts, seeds)
        return crossed_p(b - a).reshape(size, 4)

    return in_blocks(block, families, rng, block=60)


def _drift(rng: np.random.Generator, runs: int, ratio: float) -> tuple[float, float]:
    """Shares of (H1 or H3, H2) by the rule of `rules.log_ratio_rule` for a true ratio, 8 layers of 7 matrices."""
    logs = np.log(ratio) + 0.15 * rng.standard_normal((runs, 8, 1)) + 0.2 * rng.standard_normal((runs, 8, 7))
    layer = logs.mean(axis=2)
    mean, se = layer.mean(axis=1), layer.std(axis=1, ddof=1) / np.sqrt(8)
    half95, half90 = float(stats.t.ppf(0.975, 7)) * se, float(stats.t.ppf(0.95, 7)) * se
    low, high = np.log(SIMILAR[0]), np.log(SIMILAR[1])
    similar = (mean - half90 >= low) & (mean + half90 <= high)
    more, less = (mean - half95 > 0) & (mean >= high), (mean + half95 < 0) & (mean <= low)
    return float(((more | less) & ~similar).mean()), float(similar.mean())


def selfcheck(runs: int = 10_000, rng_seed: int = 20_260) -> SelfCheck:
    """Simulate every default test; every figure follows from `runs` and `rng_seed` alone."""
    rng = np.random.default_rng(rng_seed)
    rows: list[Row] = []
    for seeds in SEEDS_AA:
        rows += over_seeds_rows(rng, runs, 200, seeds, 0.15 if seeds == 3 else 0.10)
    rows += one_run_rows(rng, runs, 200, 0.10)
    rows += margin_rows(rng, runs, 200, 5, 0.05)
    rows += other_rows(rng, runs, 200, 5)
    return SelfCheck(tuple(rows), tuple(checks_of(rows, runs)), runs, rng_seed)


def checks_of(rows: Sequence[Row], runs: int) -> list[Check]:
    """The promises. With fewer runs than 10,000 the bound on false alarms widens by the larger Monte Carlo error."""
    slack = 4 * (ALPHA * (1 - ALPHA)) ** 0.5 * max(0.0, runs**-0.5 - 0.01)
    found: list[Check] = []
    for row in rows:
        if row.kind != "default":
            continue
        name = f"{row.test}; {row.design}"
        if row.size is not None:
            found.append(Check(f"planted null not found: {name}", row.size, "at most", MOST + slack))
        if row.power is not None:
            found.append(Check(f"planted effect found: {name}", row.power, "at least", 0.5))
    pooled = [row.size for row in rows if row.test == "McNemar, seeds pooled" and row.size is not None]
    found.append(Check("the simulation shows why seeds are not pooled", min(pooled), "at least", 0.15))
    for p, known in ((0.02, 0.949), (0.5, 0.943), (0.97, 0.969)):
        gap = abs(wilson_coverage(p, 100) - known)
        found.append(Check(f"Wilson's exact coverage at p = {p}, n = 100 is {known}", gap, "at most", 0.0006))
    return found


def table(result: SelfCheck) -> str:
    """The rows as a Markdown table."""
    lines = ["| test | speaks of | design | false alarms at .05 | planted | found |", "|---|---|---|---|---|---|"]
    for row in result.rows:
        name = {"default": row.test, "beside": f"{row.test} (beside)", "wrong": f"*{row.test}* (wrong)"}[row.kind]
        size, power = ("–" if x is None else f"{x:.3f}" for x in (row.size, row.power))
        lines.append(f"| {name} | {row.speaks_of} | {row.design} | {size} | {row.planted} | {power} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, write: Callable[[str], object] = print) -> int:
    """Print the table and the failed checks; 0 when every check holds, else 3 (measured and failed)."""
    parser = argparse.ArgumentParser(prog="selfcheck", description="Size and power of every default test, simulated.")
    parser.add_argument("--runs", type=int, default=10_000, help="simulated data sets per figure")
    parser.add_argument("--rng-seed", type=int, default=20_260, help="seed of the simulation")
    given = parser.parse_args(arguments)
    if given.runs < 200:
        parser.error("--runs must be at least 200")
    result = selfcheck(given.runs, given.rng_seed)
    write(table(result))
    failed = [check for check in result.checks if not check.ok]
    for check in failed:
        write(f"FAILED {check.name}: {check.value:.4f}, must be {check.relation} {check.bound:.4f}")
    passed = len(result.checks) - len(failed)
    write(f"{passed} of {len(result.checks)} checks hold ({result.runs} runs each, seed {result.rng_seed})")
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
