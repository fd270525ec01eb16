"""Settings: frozen pydantic models, and how a run's settings are put together.

`preset < --config FILE < key.sub=value`. Presets are TOML files in a package's `presets/` folder. An unknown key is
an error that names the nearest known one. The docstring under a field is its help text on the command line and in
the reference page. The sections that several studies share stand here; a study's own `config.py` puts them together.
"""

from __future__ import annotations

import math
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_serializer,
)

from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError, nearest

FOR_KEY = {"for": "key"}
"""Serialisation context of what goes into a step's key (`model_dump(context=FOR_KEY)`)."""


class Settings(BaseModel):
    """Base of every section: frozen, unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class HiddenError(ValueError):
    """Why a value cannot be; the value itself may hold a secret and is not shown."""


def http_address(value: str) -> str:
    """`value` where it is a server's plain address; `HiddenError` for user info, a query, a fragment, a port that
    cannot be, and characters that no address has."""
    example = "write an address such as http://127.0.0.1:8000/v1"
    if not value.isascii() or not value.isprintable() or " " in value or "\\" in value:
        raise HiddenError(f"{example}: no spaces, control characters or letters outside ASCII")
    try:
        address = urlsplit(value)
        port = address.port
    except ValueError:
        raise HiddenError(f"{example}: its host or port cannot be") from None
    if address.scheme not in ("http", "https") or not address.hostname or port == 0:
        raise HiddenError(example)
    if "@" in address.netloc or "?" in value or "#" in value:
        raise HiddenError(f"{example}, without user, key, query or fragment: the key goes into an environment variable")
    return value


def variable_name(value: str | None) -> str | None:
    """`value` where it can be the name of an environment variable; `HiddenError` where a key was written instead."""
    if value and not (value.isascii() and value.isidentifier()):
        raise HiddenError("write the name of the environment variable that holds the key, not the key itself")
    return value or None


class ModelSettings(Settings):
    """Which model, and how it is held in memory."""

    name: str = "organism"
    """`organism` (the embedded model of seed 1), `organism:3` (of seed 3; there are 8), a hub id such as
    `Qwen/Qwen3-0.6B`, or a folder with safetensors."""
    revision: str | None = None
    """Commit of the hub repository, 40 hex digits; None only for the organism and for folders."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "auto"
    """`auto`: bfloat16 on a CUDA device that has it, float32 elsewhere."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto`: CUDA, else Apple's MPS, else the CPU."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4`: 4-bit NormalFloat with double quantisation (QLoRA, arXiv 2305.14314)."""
    template: Literal["auto", "own", "organism", "llama2", "llama3", "gemma", "qwen3", "phi", "plain"] = "auto"
    """Chat template: `auto` and `own` keep the tokenizer's own (`auto` takes one of ours where it writes the same), a
    family's name takes ours, `plain` is Instruction/Response for base models. A preset's is for the preset's model."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention implementation; `auto` lets transformers choose. flash_attention_2 is never required."""

    @field_validator("name")
    @classmethod
    def _one_name(cls, value: str) -> str:
        return "organism" if embedded_seed(value) == 1 else value


class LoraSettings(Settings):
    """Low-rank adapters (arXiv 2106.09685)."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: float = 32
    """Scale is alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapter's input."""
    targets: tuple[str, ...] | Literal["all-linear"] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the linear modules that get an adapter."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained."""


class TrainSettings(Settings):
    """One fine-tuning stage."""

    sequences: ClassVar[int] = 1
    """Texts of an example that pass through the model together: a pair has two."""

    epochs: float = Field(1.0, gt=0)
    """Passes over the data."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many optimiser steps instead of `epochs`."""
    lr: float = Field(2e-4, gt=0)
    """Peak learning rate."""
    batch_size: int = Field(2, ge=1)
    """Examples a device in one forward pass."""
    accumulate: int = Field(16, ge=1)
    """Forward passes to an optimiser step."""
    max_length: int = Field(2048, ge=8)
    """Longest example in tokens; longer ones are cut at the end, counted, and dropped where no reply is left."""
    packing: bool = False
    """Pack several examples into one row (best-fit decreasing, no attention across examples)."""
    group_by_length: bool = False
    """Batches of similar length (less padding)."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning-rate schedule."""
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the rate rises to its peak."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Clip of the gradient's norm."""
    optimizer: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = "adamw_torch"
    """Optimiser."""
    eval_steps: int | None = Field(None, ge=1)
    """Validation loss every so many steps; None: at the end only."""
    save_steps: int | None = Field(None, ge=1)
    """Sealed checkpoint every so many steps; None: none (a short run starts over)."""
    save_total_limit: int = Field(2, ge=1)
    """How many sealed checkpoints are kept."""
    logging_steps: int = Field(10, ge=1)
    """Log every so many steps."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about 1.4 times the time."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers that get the logs: tensorboard, wandb, trackio. Never chosen by accident."""

    def steps_for(self, rows: int) -> int:
        """Optimiser steps over so many rows without packing; packing makes fewer."""
        if self.max_steps is not None:
            return self.max_steps
        return math.ceil(math.ceil(rows / (self.batch_size * self.accumulate)) * self.epochs)

    def describe(self, rows: int, unit: str = "examples") -> str:
        """The training in a phrase; 0 rows: as many as the data yield."""
        count = f"{rows:,} {unit}" if rows else f"every one of the {unit}"
        most = "at most " if self.packing else ""
        steps = f"{most}{self.steps_for(rows):,} steps" if rows or self.max_steps else f"{self.epochs:g} epochs"
        batch = self.batch_size * self.accumulate
        return f"{count}, {steps} of {batch} at lr {self.lr:g}, up to {self.max_length} tokens"

    @field_serializer("report_to")
    def _decides_nothing(self, names: tuple[str, ...], info: SerializationInfo) -> tuple[str, ...]:
        """A tracker watches: it is in no step's key."""
        return () if info.context == FOR_KEY else names


class GenerateSettings(Settings):
    """How replies are made."""

    max_new_tokens: int = Field(128, ge=1)
    """Longest reply in tokens."""
    batch_size: int = Field(16, ge=1)
    """Prompts in one forward pass; batches are fixed slices of the full plan."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling (arXiv 1904.09751)."""
    candidates: int = Field(1, ge=1)
    """Replies to a prompt."""
    endpoint: str | None = None
    """Address of a vLLM or other OpenAI-compatible server that makes the replies, for example
    `http://127.0.0.1:8000/v1`; `batch_size` is then how many calls are under way at once. None: made here."""
    endpoint_model: str | None = None
    """Name of the base model on that server; None: the only one it serves."""
    endpoint_key_env: str | None = None
    """Name of the environment variable that holds that server's API key (never the key itself)."""

    @field_validator("endpoint")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        return http_address(value) if value else None

    @field_validator("endpoint_key_env")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        return variable_name(value)

    def describe(self, prompts: int) -> str:
        """Replies to so many prompts in a phrase."""
        how = f"at temperature {self.temperature:g}" if self.temperature else "greedy"
        each = "" if self.candidates == 1 else f" x {self.candidates} candidates"
        return f"up to {prompts:,} prompts{each}, {how}, up to {self.max_new_tokens} tokens"

    def here(self) -> GenerateSettings:
        """The same replies, made by the model in memory whatever `endpoint` says."""
        return self.model_copy(update={"endpoint": None, "endpoint_model": None, "endpoint_key_env": None})

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Settings of replies made here look as if there were no servers. In a step's key stands that a server made
        the replies, but not where it is."""
        out: dict[str, Any] = handler(self)
        if self.endpoint is None:
            return {key: value for key, value in out.items() if not key.startswith("endpoint")}
        return out | ({"endpoint": "a server", "endpoint_key_env": None} if info.context == FOR_KEY else {})


class EndpointSettings(Settings):
    """An OpenAI-compatible chat endpoint."""

    base_url: str = "http://127.0.0.1:8000/v1"
    """Address up to and including the version, for example `http://127.0.0.1:8000/v1`; a key has no place in it."""
    model: str = ""
    """Name of the model as the server knows it."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the API key (never the key itself)."""
    deadline: float = Field(60.0, gt=0)
    """Seconds for one call, all attempts and waits together."""
    max_bytes: int = Field(1_000_000, ge=1)
    """Largest response body in bytes."""
    concurrency: int = Field(8, ge=1)
    """Calls under way at once."""
    attempts: int = Field(4, ge=1)
    """Attempts to a call within its deadline."""
    backoff: float = Field(0.5, ge=0)
    """Seconds before the second attempt, doubled each time; a Retry-After header goes before it."""
    max_tokens: int = Field(64, ge=1)
    """Longest reply in tokens."""
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls that limit."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature asked of the server."""
    give_up_after: int = Field(50, ge=0)
    """Stop asking after this many calls in a row that failed and may succeed later; 0: never."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        return http_address(value)

    @field_validator("api_key_env")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        return variable_name(value)


class SourceSettings(Settings):
    """One data source."""

    path: Path | None = None
    """A local file or folder in the data set's own format; None: the hub, at the pinned revision."""
    revision: str | None = None
    """Another commit of the hub's data set than the pinned one, 40 hex digits."""


def models_of(section: Settings, path: str = "") -> Iterator[tuple[str, ModelSettings]]:
    """Every model of the settings by its dotted key; a judge's only where that judge is asked, a critic's only where it
    is not behind a URL."""
    judges = getattr(section, "judge", None)
    asked = None if judges is None else judges.replace(" ", "").split(",")
    for name in type(section).model_fields:
        value, key = getattr(section, name), f"{path}{name}"
        if isinstance(value, ModelSettings):
            if getattr(section, "via", "model") == "model":
                yield key, value
        elif isinstance(value, Settings):
            for inner, model in models_of(value, f"{key}."):
                if asked is None or not inner.startswith("judging.") or inner.split(".")[1] in asked:
                    yield inner, model


def named_files(section: Settings, path: str = "") -> Iterator[tuple[str, Path]]:
    """Every file or folder that the settings name, by its dotted key."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Settings):
            yield from named_files(value, f"{path}{name}.")
        elif isinstance(value, Path):
            yield f"{path}{name}", value


S = TypeVar("S", bound=Settings)


def presets(package: str) -> list[str]:
    """Names of the presets a package ships, `tiny` first."""
    names = [f.name[:-5] for f in resources.files(package).joinpath("presets").iterdir() if f.name.endswith(".toml")]
    return sorted(names, key=lambda n: (n != "tiny", n != "small", n))


def preset_text(package: str, name: str) -> str:
    """TOML of a shipped preset; `UserError` with the nearest name when there is none."""
    known = presets(package)
    if name not in known:
        raise UserError(f"no preset {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return resources.files(package).joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """TOML to a dict; `UserError` with file and line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else "a number of thousands of digits"
        raise UserError(f"{where}: not TOML: {why}") from error


def _value(text: str) -> Any:
    """A command-line value: TOML where it parses as one (numbers, booleans, lists, quoted strings), else the text."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        return None if text in ("none", "None", "null") else text


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, tables merged key by key; a model that gets another name loses the other's template and
    revision."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            another = "name" in old and value.get("name", old["name"]) != old["name"]
            lost = ("template", "revision") if another else ()
            out[key] = merge({k: v for k, v in old.items() if k not in lost}, value)
        else:
            out[key] = value
    return out


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["train.lr=1e-4"]` to `{"train": {"lr": 1e-4}}`."""
    out: dict[str, Any] = {}
    for item in overrides:
        key, separator, text = item.partition("=")
        if not separator or not key.strip():
            raise UserError(f"cannot read the setting {item!r}: write key.sub=value, for example train.lr=1e-4")
        value: Any = _value(text.strip())
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        out = merge(out, value)
    return out


def _fields(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Field names of the section at `path` under `model`, or an empty list."""
    for part in path:
        info = model.model_fields.get(str(part))
        if info is None:
            return []
        options = [info.annotation, *typing.get_args(info.annotation)]
        section = next((a for a in options if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if section is None:
            return []
        model = section
    return list(model.model_fields)


def validate(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """`values` as a `model`; `UserError` names the first bad key, what was found, and the nearest known key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = first["loc"]
        key = ".".join(map(str, path))
        if first["type"] == "extra_forbidden":
            siblings = _fields(model, path[:-1])
            hint = nearest(str(path[-1]), siblings) or (f"; known here: {', '.join(siblings)}" if siblings else "")
            raise UserError(f"{where}: unknown key {key!r}{hint}") from error
        if isinstance(hidden := first.get("ctx", {}).get("error"), HiddenError):
            raise UserError(f"{where}: {key}: {hidden}") from None
        raise UserError(f"{where}: {key}: {first['msg'].lower()}, found {first.get('input')!r}") from error


def resolve(
    model: type[S],
    package: str,
    preset: str = "tiny",
    file: Path | None = None,
    overrides: Sequence[str] = (),
) -> S:
    """Preset, then file, then overrides, validated in that order so that an error names where the mistake stands."""
    values = parse_toml(preset_text(package, preset), f"preset {preset}")
    config = validate(model, values, f"preset {preset}")
    if file is not None:
        if not file.is_file():
            raise UserError(f"{file}: no such settings file; `show {preset} > {file.name}` writes one to start from")
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read as text: {error}") from error
        values = merge(values, parse_toml(text, str(file)))
        config = validate(model, values, str(file))
    if overrides:
        values = merge(values, parse_overrides(overrides))
        config = validate(model, values, "command line")
    return config
