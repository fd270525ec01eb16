"""What one seed of each study's paper preset is made of, and what it takes: the arithmetic behind docs/scale.md.

Sizes, batches and lengths are read from the presets; what no preset says (tokens of an example, pairs) stands in
`TOKENS` and `PAIRS`, what no machine told us in `alignment_core.models.scale.Assumed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from alignment_core import doctor
from alignment_core.config import GenerateSettings, LoraSettings, ModelSettings, Settings, TrainSettings, resolve
from alignment_core.errors import UserError
from alignment_core.models import scale
from alignment_core.models.catalogue import CATALOGUE
from alignment_core.models.memory import held_bytes, training_memory
from alignment_core.models.shape import Architecture, build, of
from alignment_core.models.sharding import Sharding
from drift_dpo import data as drift_data
from drift_dpo.config import DriftConfig
from mini_cai import data as cai_data
from mini_cai.config import CaiConfig
from neuron_brittleness import data as neuron_data
from neuron_brittleness import scoring_memory as neuron_scoring
from neuron_brittleness.config import BrittlenessConfig
from orth_refusal import data as orth_data
from orth_refusal.arms import chosen
from orth_refusal.config import OrthConfig

MODELS = {"8B": "meta-llama/Llama-3.1-8B-Instruct", "70B": "meta-llama/Llama-3.1-70B-Instruct"}
USABLE = 0.94
"""Share of a GPU's memory left for us."""
TOKENS = {
    "a Dolly, PKU or WildJailbreak example": 250,
    "one side of a pair": 220,
    "an Alpaca example": 130,
    "a HarmfulQA turn": 300,
    "a scored example": 200,
    "a prompt": 80,
    "a critic's question": 500,
}
"""Mean tokens, taken."""
PAIRS = 12_000
"""Preference pairs of PKU-SafeRLHF-30K that reach DPO, taken."""
SUMS_GB = 24.0
"""score.memory_gb where a GPU does not hold all of SNIP's sums at once."""
H100 = next(d for d in scale.DEVICES if d.name.startswith("H100"))


@dataclass(frozen=True)
class Training:
    """`times` trainings of `rows` rows of `length` tokens; `forwards` further forward passes of each row (DPO's
    reference), `sides` sequences a row."""

    train: TrainSettings
    times: int
    rows: int
    length: int
    sides: int = 1
    forwards: int = 0


@dataclass(frozen=True)
class Answers:
    """`times` states that answer `prompts` prompts."""

    generate: GenerateSettings
    times: int
    prompts: int
    prompt: int


@cache
def shape_of(name: str) -> Architecture:
    """The shape of a model of the catalogue."""
    return of(build(CATALOGUE[name].config))


def _dealt(train: TrainSettings, processes: int) -> Sharding | None:
    try:
        return Sharding.of(train, processes)
    except UserError:
        return None


@dataclass(frozen=True)
class Work:
    """One seed of one study with one model."""

    study: str
    shape: Architecture
    model: ModelSettings
    lora: LoraSettings
    trainings: tuple[Training, ...]
    answers: tuple[Answers, ...]
    loads: int
    scored: int = 0
    scored_length: int = 0
    passes: int = 1
    sums: float = 0.0
    """Bytes of SNIP's sums and one selection."""
    groups: float = 0.0
    """Bytes of the groups and deciles on disk."""

    def processes(self, gpus: int) -> int:
        """As many as every training's batches can be dealt to."""
        return max(p for p in range(1, gpus + 1) if all(_dealt(t.train, p) for t in self.trainings))

    @cached_property
    def memory(self) -> dict[str, float]:
        """Bytes of one process, by part."""
        each = [
            training_memory(CATALOGUE[self.model.name].config, self.model, self.lora, t.train) for t in self.trainings
        ]
        cache = [a.generate.batch_size * (a.prompt + a.generate.max_new_tokens) for a in self.answers]
        return {
            "weights": each[0].weights,
            "adapter": max(memory.adapter for memory in each),
            "activations": max(memory.activations for memory in each),
            "sums": self.sums,
            "cache": max(cache) * scale.kv_bytes(self.shape),
        }

    def peak(self) -> float:
        """Training, scoring and generating happen one after another: the largest of the three."""
        part = self.memory
        beside = max(part["adapter"] + part["activations"], part["sums"], part["cache"] + part["adapter"] / 4)
        return part["weights"] + beside


def _model(name: str | None, config: ModelSettings, nf4: bool) -> ModelSettings:
    """The preset's model, or another one of that name held as the preset's is (or in NF4)."""
    if name is None:
        return config
    nf4 = nf4 or config.quantize == "nf4"
    held = {"name": name, "quantize": "nf4" if nf4 else "none", "dtype": "bfloat16"}
    return config.model_copy(update=held)


def _packed(examples: int, train: TrainSettings, tokens: int) -> int:
    """Rows of max_length that examples of `tokens` tokens fill, 19 in 20 tokens used."""
    return math.ceil(examples * train.epochs * tokens / (0.95 * train.max_length))


def drift_dpo(name: str | None = None, nf4: bool = False, preset: str = "paper") -> Work:
    config = resolve(DriftConfig, "drift_dpo", preset)
    data, share = config.data, drift_data.TRAIN_SHARE
    example = TOKENS["a Dolly, PKU or WildJailbreak example"]
    a, b = (
        Training(train, 1, _packed(round(size * share), train, example), train.max_length)
        for train, size in ((config.stage_a, data.stage_a_size), (config.stage_b, data.stage_b_size))
    )
    pairs = round(data.dpo_limit * (1 - data.eval_ratio)) or PAIRS
    dpo = Training(config.dpo, 1, pairs, TOKENS["one side of a pair"], sides=2, forwards=1)
    prompts = data.test_harmful + data.test_benign + data.test_borderline
    answers = Answers(config.generate, 4, prompts, TOKENS["a prompt"])
    model = _model(name, config.model, nf4)
    return Work("drift-dpo", shape_of(model.name), model, config.lora, (a, b, dpo), (answers,), loads=7)


def orth_refusal(name: str | None = None, nf4: bool = False, preset: str = "paper") -> Work:
    config = resolve(OrthConfig, "orth_refusal", preset)
    refusal, attack = (orth_data.size(config.data, part) for part in ("refusal", "attack"))
    arms, turn = len(chosen(config.controls)), TOKENS["a HarmfulQA turn"]
    trainings = (Training(config.refusal, 1, refusal, turn), Training(config.attack, arms, attack, turn))
    prompts = config.data.test_harmful + config.data.test_benign + config.data.test_borderline
    answers = Answers(config.generate, 2 + arms * config.points, prompts, TOKENS["a prompt"])
    model = _model(name, config.model, nf4)
    return Work("orth-refusal", shape_of(model.name), model, config.lora, trainings, (answers,), loads=1 + 2 * arms + 2)


def mini_cai(name: str | None = None, nf4: bool = False, preset: str = "paper") -> Work:
    config = resolve(CaiConfig, "mini_cai", preset)
    prompts, held = 12 * 3, 8 * 3
    made, asked, compared = config.candidates.candidates * prompts, TOKENS["a prompt"], config.compare.generate
    rows = round(prompts * config.train.epochs)
    trainings = (Training(config.train, len(config.arms), rows, asked + config.candidates.max_new_tokens),)
    written = GenerateSettings(max_new_tokens=config.critic.max_new_tokens, batch_size=config.critic.batch_size)
    answers = (
        Answers(config.candidates, 1, made, asked),
        Answers(written, 1, made,
                TOKENS["a critic's question"]),
        Answers(compared, 1 + len(config.arms), held * compared.candidates, asked),
    )  # fmt: skip
    model = _model(name, config.base, nf4)
    return Work(
        "mini-cai", shape_of(model.name), model, config.lora, trainings, answers, loads=4 + 2 * len(config.arms)
    )


def neuron_brittleness(name: str | None = None, nf4: bool = False, preset: str = "paper") -> Work:
    config = resolve(BrittlenessConfig, "neuron_brittleness", preset)
    model, score = _model(name, config.model, nf4), config.score
    shape = shape_of(model.name)
    need = neuron_scoring.memory(shape, model, score)
    if held_bytes(shape, model) + need["sums"] + need["transient"] > USABLE * H100.memory:
        score = score.model_copy(update={"memory_gb": SUMS_GB})
        need = neuron_scoring.memory(shape, model, score)
    arms, halves = 3, 2
    examples = (halves + arms) * 2 * config.data.samples  # safety and utility; every arm's second half again
    tune = round(config.data.tune_size * config.train.epochs)
    prompts = config.data.test_harmful + config.data.test_benign
    answers = Answers(config.generate, 10 + 17, prompts, TOKENS["a prompt"])
    trainings = (Training(config.train, arms, tune, TOKENS["an Alpaca example"]),)
    return Work(
        "neuron-brittleness",
        shape,
        model,
        config.lora,
        trainings,
        (answers,),
        loads=2 + 2 * arms + 1,
        scored=examples,
        scored_length=TOKENS["a scored example"],
        passes=int(need["passes"]),
        sums=need["sums"] + need["transient"],
        groups=shape.linear * (1 + 2 * 7 / 8),
    )


STUDIES: tuple[Callable[..., Work], ...] = (drift_dpo, orth_refusal, mini_cai, neuron_brittleness)


_CONFIGS: dict[str, tuple[type[Settings], Callable[[Any], list[tuple[str, str, str | None]]]]] = {
    "drift_dpo": (DriftConfig, drift_data.needs),
    "orth_refusal": (OrthConfig, orth_data.needs),
    "mini_cai": (CaiConfig, cai_data.needs),
    "neuron_brittleness": (BrittlenessConfig, neuron_data.needs),
}


def needs(study: Callable[..., Work], preset: str) -> list[tuple[str, str, str | None]]:
    """What a preset takes from the hub."""
    model, asked = _CONFIGS[study.__name__]
    config = resolve(model, study.__name__, preset)
    return doctor.needs_of(config, asked(config))


def beside(study: Callable[..., Work], preset: str) -> list[ModelSettings]:
    """Models that are loaded by themselves in a run: critic and judge."""
    if study is not mini_cai:
        return []
    config = resolve(CaiConfig, "mini_cai", preset)
    return [config.critic.model, config.judging.critic.model]


def parts(work: Work, machine: scale.Machine, gpus: int) -> dict[str, float]:
    """Seconds of one seed by part, on the processes that can share the batch."""
    share = work.processes(gpus)
    train = 0.0
    for t in work.trainings:
        batch = t.train.batch_size * t.train.accumulate
        sharding = Sharding.of(t.train, share)
        passes = math.ceil(t.rows / batch) * sharding.rounds
        checkpointing = t.train.gradient_checkpointing
        rows = sharding.size * t.sides
        one = scale.train_step_seconds(machine, work.shape, work.model, work.lora, rows, t.length, checkpointing)
        again = t.forwards * scale.reply_seconds(machine, work.shape, work.model, rows, t.length, 0)
        train += t.times * passes * (one + again)
    answer = 0.0
    for a in work.answers:
        batches = math.ceil(a.prompts / a.generate.batch_size)
        rows, new = a.generate.batch_size, a.generate.max_new_tokens
        one = scale.reply_seconds(machine, work.shape, work.model, rows, a.prompt, new)
        answer += a.times * math.ceil(batches / share) * one
    one = scale.snip_seconds(machine, work.shape, work.model, max(work.scored_length, 1), True)
    return {
        "training": train,
        "replies": answer,
        "scores": work.passes * math.ceil(work.scored / share) * one,
        "loading": work.loads * scale.load_seconds(machine, work.shape),
    }


def works() -> Iterator[tuple[str, Work]]:
    """Every study at both sizes; 70B in NF4, 8B as its preset holds the model."""
    for size, name in MODELS.items():
        for study in STUDIES:
            yield size, study(name, size == "70B")


def fitted(work: Work) -> Work:
    """The same with activations recomputed where an H100 does not hold them."""
    if work.peak() <= USABLE * H100.memory:
        return work
    less = [replace(t, train=t.train.model_copy(update={"gradient_checkpointing": True})) for t in work.trainings]
    return replace(work, trainings=tuple(less))
