"""What a run would do, told without a GPU or a network: steps, sizes, the memory of scoring, downloads, access."""

from __future__ import annotations

import math

from alignment_core.config import ModelSettings
from alignment_core.models.catalogue import CATALOGUE, Architecture, download_bytes, training_memory
from neuron_brittleness.config import BrittlenessConfig, ScoreSettings

ALPACA = "tatsu-lab/alpaca"
PKU = "PKU-Alignment/PKU-SafeRLHF"
LEVELLED = "  and pairs of a group and its matched group at equal topic loss: 1 of the base once, 5 for each seed"


def scoring_memory(shape: Architecture, model: ModelSettings, score: ScoreSettings) -> dict[str, float]:
    """Bytes of scoring: `sums` of one pass, `transient` (one gradient, its absolute value, a selection), `passes`.

    The sums are float32, one a weight (SNIP), plus one an input for Wanda. A selection holds a matrix's scores, a
    copy and a byte mask; deciles sort it.
    """
    sizes = [i * o for i, o in shape.projections.values()]
    inputs = sum(i for i, _ in shape.projections.values())
    needed = 4.0 * shape.layers * (sum(sizes) + inputs)
    if score.method in ("wanda", "magnitude"):
        needed = 4.0 * shape.layers * inputs
    bound = math.inf if score.memory_gb is None else 1e9 * score.memory_gb
    width = 4 if model.quantize == "nf4" or model.dtype == "float32" else 2
    transient = max(sizes) * max(2.0 * width, 4 * 4 + 8 + 1 + 8)
    largest = 4.0 * (max(sizes) + max(i for i, _ in shape.projections.values()))
    passes = 1 if needed <= bound else math.ceil(needed / max(bound - largest, largest))
    return {"sums": min(needed, bound), "needed": needed, "transient": transient, "passes": float(passes)}


def _memory_lines(config: BrittlenessConfig) -> list[str]:
    name, shape = config.model.name, CATALOGUE.get(config.model.name)
    if name == "organism":
        return ["  the embedded organism: nothing to download, under 1 GB of memory, no GPU"]
    if shape is None:
        return [f"  {name}: not in the catalogue, so no memory estimate; its config.json is read when the run starts"]
    need, train = scoring_memory(shape, config.model, config.score), training_memory(
        shape, config.model, config.lora, config.train
    )  # fmt: skip
    access = "gated: accept its licence on the hub, set HF_TOKEN" if shape.gated_access else "open"
    disk = shape.linear * (1 + 2 * 7 / 8) / 1e9
    total = (train.weights + need["sums"] + need["transient"]) / 1e9
    streamed = "" if need["passes"] == 1 else f", streamed in about {need['passes']:.0f} passes"
    return [
        f"  {name} at {config.model.revision}: {download_bytes(shape) / 1e9:.1f} GB; {access}",
        f"  scoring: weights {train.weights / 1e9:.1f} GB, sums {need['sums'] / 1e9:.1f} GB"
        f" of {need['needed'] / 1e9:.1f}"
        f"{streamed}, transient {need['transient'] / 1e9:.2f} GB: about {total:.0f} GB and the activations of one",
        f"  example; fine-tuning about {train.total / 1e9:.0f} GB; groups and deciles {disk:.1f} GB of disk"
        " (score.memory_gb bounds the sums)",
    ]


def needs(config: BrittlenessConfig) -> list[tuple[str, str, str | None]]:
    """What the run takes from the hub, and the files it is told to read."""
    from alignment_core.data.sources import SOURCES
    from alignment_core.doctor import on_hub

    out: list[tuple[str, str, str | None]] = []
    if on_hub(config.model):
        out.append(("model", config.model.name, config.model.revision))
    if config.data.sources == "public":
        wanted = [("alpaca", config.data.alpaca)]
        if config.data.harmful == "pku":
            wanted.append(("pku-saferlhf-30k", config.data.pku))
        for name, source in wanted:
            if source.path is None:
                out.append(("dataset", SOURCES[name].repo, source.revision or SOURCES[name].revision))
        if config.data.harmful == "behaviours":
            path = config.data.behaviours.path
            out.append(("file", "data.behaviours.path", None if path is None else str(path)))
    if config.data.safety_file is not None:
        out.append(("file", "data.safety_file", str(config.data.safety_file)))
    return out


def _data_lines(config: BrittlenessConfig) -> list[str]:
    data = config.data
    if data.sources == "organism":
        return ["  the organism's own world: nothing to download"]
    lines = [f"  {ALPACA}: " + (f"read from {data.alpaca.path}" if data.alpaca.path else "24 MB, open, CC BY-NC 4.0")]
    if data.harmful == "pku":
        lines.append(f"  {PKU}: " + (f"read from {data.pku.path}" if data.pku.path else "open, CC BY-NC 4.0"))
    else:
        lines.append(f"  behaviours: {data.behaviours.path or 'give data.behaviours.path, a CSV such as AdvBench'}")
    return lines


def plan(config: BrittlenessConfig) -> str:
    """The whole plan as lines of text."""
    data, score, train = config.data, config.score, config.train
    steps = train.max_steps or math.ceil(data.tune_size / (train.batch_size * train.accumulate) * train.epochs)
    states = 1 + 2 * len(config.doses) + 3
    tuned = 3 + 4 + (10 if config.controls else 0)
    prompts = data.test_harmful + data.test_benign
    unit = "weights" if score.unit == "weights" else "rows"
    return "\n".join(
        [
            "model",
            *_memory_lines(config),
            "data",
            *_data_lines(config),
            "scores",
            f"  {score.method} of {unit}, two halves of {data.samples} safety and {data.samples} utility examples,"
            " one pass each",
            f"  groups: top {score.k:g}, S(q={score.q:g}) without U(p={score.p:g}), random, matched random",
            "training, for each seed",
            f"  free, frozen ({config.freeze.kind} of {config.freeze.group}), matched frozen: {steps:,} steps of"
            f" {train.batch_size * train.accumulate} at lr {train.lr:g}; drift every {config.drift_every} steps",
            "evaluation",
            f"  {prompts} held-out prompts, greedy, up to {config.generate.max_new_tokens} tokens: {states} states of"
            f" the base once, {tuned} of the tuned models for each seed; judged by {config.judge}",
            *([LEVELLED] if config.controls else []),
        ]
    )
