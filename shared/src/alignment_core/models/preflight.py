"""What can be said of a model and its trainings before any weights are loaded: from config.json and the tokenizer.

Adapters, scores, freezing and steering see the text decoder's linear matrices: which ones, and their share of the
layers' weights; where LoRA goes; which tokens end a reply; memory. `doctor`, `--dry-run` and the start of a run ask
here. The embedded models are known and not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alignment_core.config import LoraSettings, ModelSettings, Settings, TrainSettings
from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError
from alignment_core.models import decoder, lora, memory, shape


@dataclass(frozen=True)
class Finding:
    """One thing found out about a model; `ok` None: it could not be."""

    name: str
    ok: bool | None
    found: str


def trained(config: Settings) -> ModelSettings | None:
    """The model that a study trains or scores; None for an embedded one, and where there is none."""
    model = getattr(config, "base", getattr(config, "model", None))
    return model if isinstance(model, ModelSettings) and embedded_seed(model.name) is None else None


def trainings(config: Settings) -> list[tuple[str, TrainSettings]]:
    """Every training of the settings by its key."""
    return [(name, value) for name, value in config if isinstance(value, TrainSettings)]


def findings(config: Settings) -> Iterator[Finding]:
    """Modules, adapters and stop tokens of the model that these settings train."""
    model = trained(config)
    if model is None:
        return
    try:
        built = shape.meta_model(model)
        if built is None:
            yield Finding("modules", None, f"{model.name}: its config.json is neither in the hub's cache nor reachable")
            return
        yield from _modules(built)
        if trainings(config):
            yield _adapters(built, getattr(config, "lora", LoraSettings()))
    except UserError as error:
        yield Finding("modules", False, f"{model.name}: {error}")
        return
    yield _stops(model)


def check(config: Settings) -> None:
    """`UserError` for the first finding that a run would stumble over."""
    for finding in findings(config):
        if finding.ok is False:
            raise UserError(finding.found)


def _modules(built: Any) -> Iterator[Finding]:
    why = decoder.refusal(built)
    if why is not None:
        raise UserError(why)
    found = str(decoder.coverage(built))
    outside = decoder.apart(built)
    yield Finding("modules", True, f"{found}; left as they are: {', '.join(outside)}" if outside else found)


def _adapters(built: Any, settings: LoraSettings) -> Finding:
    names = lora.targets(built, settings)
    form = shape.of(built)
    on = sum(i * o for name, i, o in form.matrices if name in names)
    count = form.adapter_parameters(settings, names)
    return Finding(
        "adapters",
        True,
        f"LoRA r={settings.r} on {', '.join(names)}: {count / 1e6:.2f}M weights beside {on / form.linear:.0%} of the "
        "layers' matrices",
    )


def _stops(model: ModelSettings) -> Finding:
    """Which tokens end a reply, by the tokenizer and the template that the run would take."""
    from alignment_core.models.choose_template import template_for
    from alignment_core.models.template import stop_ids
    from alignment_core.models.template_check import tokenizer_of

    try:
        if (tokenizer := tokenizer_of(model)) is None:
            return Finding("stop tokens", None, f"{model.name}: its tokenizer is not on this machine")
        template = template_for(model, tokenizer)
        tokenizer.chat_template = template.text
        ends = [repr(tokenizer.decode([i])) for i in stop_ids(tokenizer, template)]
    except UserError as error:
        return Finding("stop tokens", False, str(error))
    if not ends:
        return Finding("stop tokens", False, f"{model.name}: no token ends a reply; set model.template")
    return Finding("stop tokens", True, f"{', '.join(ends)} (template {template.name})")


def memories(config: Settings, device: str | None = None) -> list[tuple[str, memory.Memory]]:
    """What each training takes on the device (None: the one that the settings resolve to), by its key; empty where
    config.json is not at hand.

    `UserError` where the model cannot be built or has no module for a target.
    """
    from alignment_core.models.device import place

    model = trained(config)
    values = None if model is None else shape.config_of(model)
    if model is None or values is None:
        return []
    if device is None:
        device, dtype = place(model)
    else:
        dtype = "bfloat16" if model.dtype == "auto" else model.dtype
    held = model.model_copy(update={"dtype": dtype})
    adapters = getattr(config, "lora", LoraSettings())
    return [(name, memory.training_memory(values, held, adapters, train, device)) for name, train in trainings(config)]
