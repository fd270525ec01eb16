"""The embedded models' figures against their targets: writes docs/organism-models.md, and with `--drift` the figure of
drift and recovery on each model, docs/organism-drift.svg.

    python tests/campaign/organism.py [--drift] [FOLDER ...]

Each FOLDER holds a model of size m that `alignment-core organism build --size m` made; its recipe.json is kept in
docs/organism-m.json, so that the page can be written again without it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment_core.io import read_json, write_json, write_text
from alignment_core.organism import weights
from alignment_core.organism.principles import PRINCIPLES
from alignment_core.organism.targets import TARGETS, missed

ROOT = Path(__file__).parents[2]
PAGE, FIGURE = ROOT / "docs" / "organism-models.md", ROOT / "docs" / "organism-drift.svg"
LARGE, DRIFT = ROOT / "docs" / "organism-m.json", ROOT / "docs" / "organism-drift.json"
STATES = ("baseline", "stage_a", "stage_b", "dpo")


def page(small: Mapping[str, Any], large: Mapping[str, Any]) -> str:
    """The page: one table of all targets, then a card for each model."""
    lines = [
        "# The embedded models' figures",
        "",
        "Written by `python tests/campaign/organism.py` from the models' cards. Greedy replies to the calibration",
        "split; [organism.md](organism.md) says what they are, and the rule for what is missed. A figure outside its",
        "target is in **bold**.",
        "",
        *_table([f"organism:{seed}" for seed in small], [card["calibration"] for card in small.values()]),
        "",
        *_spread([card["calibration"] for card in small.values()]),
        "",
        "Contrasts: of pairs of replies to one request that differ in what one principle rewards, the share in which",
        "the better one gets the higher score under that principle alone (chance: .5). They have no target: they were",
        "added after the builds.",
        "",
        *_contrasts(small),
    ]
    if large:
        lines += ["", "## Size m, built by command and not shipped", ""]
        lines += _table(list(large), [card["calibration"] for card in large.values()])
    if DRIFT.exists():
        lines += ["", "## Drift and recovery on each model", "", *_drift(read_json(DRIFT))]
    lines += ["", "## Cards"]
    for name, card in {**{f"organism:{seed}": card for seed, card in small.items()}, **large}.items():
        lines += ["", f"### {name}", "", *_card(card)]
    return "\n".join(lines) + "\n"


def _table(names: Sequence[str], figures: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| figure | target | " + " | ".join(names) + " | mean (sd) |", "|---" * (len(names) + 3) + "|"]
    for key, (low, high) in TARGETS.items():
        values = [found[key] for found in figures]
        cells = [_cell(value, low, high) for value in values]
        known = [value for value in values if value is not None]
        spread = f"{statistics.mean(known):.3f} ({statistics.stdev(known):.3f})" if len(known) > 1 else "-"
        lines.append(f"| {key} | {low:g} to {high:g} | {' | '.join(cells)} | {spread} |")
    return lines


def _cell(value: float | None, low: float, high: float) -> str:
    if value is None:
        return "**undefined**"
    return f"{value:.3f}" if low <= value <= high else f"**{value:.3f}**"


def _contrasts(cards: Mapping[str, Any]) -> list[str]:
    lines = [
        "| principle | " + " | ".join(f"organism:{seed}" for seed in cards) + " |",
        "|---" * (len(cards) + 1) + "|",
    ]
    for principle in PRINCIPLES:
        key = f"contrast_{principle.name.replace(' ', '_')}"
        lines.append(
            f"| {principle.name} | " + " | ".join(f"{c['calibration'][key]:.2f}" for c in cards.values()) + " |"
        )
    return lines


def _spread(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    count = sum(len(missed(found)) for found in figures)
    whole = sum(not missed(found) for found in figures)
    return [
        f"{len(TARGETS) * len(figures) - count} of {len(TARGETS) * len(figures)} targets are met; {whole} of "
        f"{len(figures)} models meet all of theirs. The last column has mean and standard deviation between models."
    ]


def _card(card: Mapping[str, Any]) -> list[str]:
    recipe, found = card["recipe"], card["calibration"]
    lost = missed(found)
    return [
        f"- size {recipe['size']}, pretraining seed {recipe['seed']}, {recipe['steps']} steps, made with "
        + ", ".join(f"{package} {version.split('+')[0]}" for package, version in card["versions"].items()),
        "- refuses {harmful_refusal_rate:.2f} of the harmful, {benign_refusal_rate:.2f} of the benign and "
        "{borderline_refusal_rate:.2f} of the borderline calibration prompts".format(**found),
        "- its critic is right on {critic_seen:.2f} of the sets of principles that its corpus has and on "
        "{critic_unseen:.2f} of those it never has".format(**found),
        f"- misses: {', '.join(lost) if lost else 'none'}",
    ]


def _drift(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "drift-dpo, preset tiny, training seed 13, test prompts: harmful refusal in the four states.",
        "",
        "![harmful refusal in four states, by model](organism-drift.svg)",
        "",
        "| model | baseline | after benign SFT | after safety SFT | after DPO |",
        "|---|---|---|---|---|",
    ]
    for name, states in found.items():
        cells = [f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for s in (states[state] for state in STATES)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def measure_drift() -> None:
    """Run drift-dpo on each shipped model and keep the harmful-refusal rates of its states."""
    found = {}
    for seed in weights.SEEDS:
        runs = ROOT / "runs" / "organism" / str(seed)
        command = ["run", "--preset", "tiny", "--seeds", "13", "--runs", str(runs), f"model.name=organism:{seed}"]
        subprocess.run([str(Path(sys.executable).with_name("drift-dpo")), *command], check=True)
        (path,) = runs.glob("drift-dpo/*/results.json")
        rows = json.loads(path.read_text())["measurements"]
        found[f"organism:{seed}"] = {state: _refusal(rows, state) for state in STATES}
    write_json(DRIFT, found)


def _refusal(rows: Sequence[Mapping[str, Any]], state: str) -> dict[str, float]:
    (row,) = [r for r in rows if (r["metric"], r["subject"], r["at"]) == ("harmful_refusal_rate", state, {})]
    return {key: row[key] for key in ("value", "low", "high")}


def draw() -> None:
    """One small panel a model: harmful refusal with its 95% interval in the four states."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "organism"
    import matplotlib.pyplot as plt

    found = read_json(DRIFT)
    figure, axes = plt.subplots(2, 4, figsize=(10, 4.6), sharex=True, sharey=True)
    for axis, (name, states) in zip(axes.flat, found.items(), strict=True):
        rows = [states[state] for state in STATES]
        values = [row["value"] for row in rows]
        bars = [[r["value"] - r["low"] for r in rows], [r["high"] - r["value"] for r in rows]]
        axis.errorbar(range(4), values, yerr=bars, marker="o", capsize=3, color="#1f5a96")
        axis.set_title(name, fontsize=10)
        axis.set_ylim(0, 1)
        axis.set_xticks(range(4), ["base", "benign\nSFT", "safety\nSFT", "DPO"], fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("harmful refusal")
    figure.tight_layout()
    figure.savefig(FIGURE, metadata={"Date": None})


def main(words: Sequence[str]) -> None:
    if "--drift" in words:
        measure_drift()
        draw()
    folders = [Path(word) for word in words if word != "--drift"]
    if folders:
        cards = [read_json(folder / "recipe.json") for folder in folders]
        write_json(LARGE, {f"m, seed {card['recipe']['seed']}": card for card in cards})
    large = read_json(LARGE) if LARGE.exists() else {}
    write_text(PAGE, page({seed: weights.card(seed) for seed in weights.SEEDS}, large))


if __name__ == "__main__":
    main(sys.argv[1:])
