"""The methods paragraph: the study's own words, then what the resolved settings and the results say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alignment_core.embedded import embedded_seed
from alignment_core.evaluation.results import Results
from alignment_core.report.spec import ReportSpec


def paragraph(results: Results, spec: ReportSpec, config: Mapping[str, Any]) -> str:
    """A methods section's text, unescaped."""
    sentences = [spec.method.strip()] if spec.method.strip() else []
    sentences += [s for s in (_model(config), *_training(config), _generation(config), _judges(config)) if s]
    seeds = ", ".join(map(str, results.seeds))
    sentences.append(f"Training seed{'s' if len(results.seeds) > 1 else ''}: {seeds}.")
    methods_used = sorted({m.method for m in results.measurements if m.low is not None or m.high is not None})
    tests = sorted({f"{c.method} ({c.estimand})" for c in results.comparisons})
    if methods_used:
        sentences.append(f"Intervals are 95%: {', '.join(methods_used)}.")
    if tests:
        sentences.append(f"Differences are paired by prompt: {'; '.join(tests)}.")
    families = sorted({c.family for c in results.comparisons if c.family and c.p_adjusted is not None})
    if families:
        sentences.append(f"Primary tests are adjusted by Holm within the family {', '.join(families)}.")
    return " ".join(sentences)


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _model(config: Mapping[str, Any]) -> str:
    model = _section(config, "model")
    if "name" not in model:
        return ""
    revision = f" at revision {model['revision']}" if model.get("revision") else ""
    loaded = ", loaded in 4-bit NormalFloat" if model.get("quantize") == "nf4" else ""
    lora = _section(config, "lora")
    adapter = f"; LoRA of rank {lora['r']}, alpha {lora.get('alpha'):g}" if "r" in lora else ""
    return f"The model is {model_name(model['name'])}{revision}{loaded}{adapter}."


def model_name(name: str) -> str:
    """A model's name in a sentence."""
    seed = embedded_seed(name)
    return name if seed is None else "the embedded model" if seed == 1 else f"embedded model {seed}"


def _training(config: Mapping[str, Any]) -> Iterator[str]:
    for name, stage in config.items():
        if isinstance(stage, Mapping) and "lr" in stage and "batch_size" in stage:
            steps, epochs = stage.get("max_steps"), stage.get("epochs")
            length = f"{steps} steps" if steps else f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
            batch = stage["batch_size"] * stage.get("accumulate", 1)
            beta = f", beta {stage['beta']:g}" if "beta" in stage else ""
            yield (
                f"Stage {name.removeprefix('stage_')}: {length}, batches of {batch}, "
                f"peak learning rate {stage['lr']:g} ({stage.get('scheduler', 'constant')}){beta}."
            )


def _generation(config: Mapping[str, Any]) -> str:
    settings = _section(config, "generate")
    if "max_new_tokens" not in settings:
        return ""
    temperature = settings.get("temperature", 0)
    how = "greedy" if not temperature else f"sampled at temperature {temperature:g}, top-p {settings.get('top_p', 1):g}"
    return f"Replies are {how}, at most {settings['max_new_tokens']} tokens."


def _judges(config: Mapping[str, Any]) -> str:
    judge = config.get("judge")
    return f"Verdicts are by {judge}." if isinstance(judge, str) and judge else ""
