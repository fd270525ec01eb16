"""Chat templates: one for each model family the presets name, with generation markers, and the tokens they yield.

Training and generation go through the same two functions, so that the prompt a model is trained on is, token for
token, the prompt it is asked with: `encode_prompt(t, messages[:-1])` is always a prefix of
`encode_example(t, messages)`. The markers (`{% generation %}`) wrap a reply and its end-of-turn token; nothing else
is trained on. Special tokens are written by the template alone (no second BOS from the tokenizer).

The families' formats are those of their publishers' documentation: Llama 2, Llama 3.1, Gemma, Qwen3, Phi-3.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from alignment_core.errors import UserError
from alignment_core.records import Message

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings

FAMILIES = ("llama2", "llama3", "gemma", "qwen3", "phi", "plain")
END_OF_TURN = {"llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "qwen3": "<|im_end|>", "phi": "<|end|>"}
# What a template that came with a model may raise in our process: its own mistakes, in Python's words.
_TEMPLATES_OWN = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
REMEMBERED = 2048
"""Conversations whose ids are kept: the states of a study are asked the same prompts again and again."""
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Template:
    """A chat template: its name (a family, or `own`), its Jinja text, and the token that ends a turn."""

    name: str
    text: str
    end: str

    @property
    def trainable(self) -> bool:
        """True when the template marks what the model says."""
        return _MARKER.search(self.text) is not None


def source(family: str) -> str:
    """Jinja text of one of the core's own templates."""
    return resources.files("alignment_core.models").joinpath("templates", f"{family}.jinja").read_text("utf-8")


def template_identity(setting: str) -> dict[str, str]:
    """What decides the template, for step keys: the setting and a hash of every core template it may pick."""
    families = [setting] if setting in FAMILIES else sorted(FAMILIES)
    text = "\0".join(source(f) for f in families)
    return {"setting": setting, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def adds_bos(tokenizer: Any) -> bool:
    """True when the tokenizer itself opens a text with BOS, which is how its model was trained."""
    ids = tokenizer("x")["input_ids"]
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def family_of(model_type: str, vocabulary: dict[str, int], own: str | None) -> str:
    """The template that `auto` picks from a config's `model_type`, the vocabulary and the tokenizer's own template.

    A tokenizer without a chat template belongs to a base model and gets `plain`. A family that the core does not
    know keeps its own template.
    """
    if own is None:
        return "plain"
    if model_type == "llama" and "<|eot_id|>" in vocabulary and "<|start_header_id|>" in vocabulary:
        return "llama3"
    if model_type == "llama" and "[INST]" in own:
        return "llama2"
    if model_type in ("gemma", "gemma2", "gemma3", "gemma3_text") and "<end_of_turn>" in vocabulary:
        return "gemma"
    if model_type in ("qwen3", "qwen3_moe"):
        return "qwen3"
    if model_type == "phi3" and "<|end|>" in vocabulary:
        return "phi"
    return "own"


def template_for(settings: ModelSettings, tokenizer: Any, model_type: str = "") -> Template:
    """The template for a model: the family's by `auto` or by name, or the tokenizer's own.

    `model_type` is the config's. Raises `UserError` when `own` is asked of a tokenizer that has none, or a family
    of a tokenizer that lacks the family's special tokens.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    own = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
    name = settings.template
    if settings.embedded and name == "auto":
        name = "own"
    elif name == "organism":
        if not settings.embedded:
            raise UserError(f"model.template=organism belongs to the embedded models, not to {settings.name}; try auto")
        name = "own"
    elif name == "auto":
        name = family_of(model_type, vocabulary, own)  # type: ignore[assignment]
    if name == "own":
        if own is None:
            raise UserError(f"{settings.name} has no chat template of its own; set model.template=plain")
        return Template("own", own, tokenizer.eos_token)
    end = END_OF_TURN.get(name, tokenizer.eos_token)
    if end is None or end not in vocabulary:
        raise UserError(
            f"model.template={name} ends a turn with {end or 'the end-of-text token'}, which the tokenizer of "
            f"{settings.name} does not have; set model.template=plain, or own"
        )
    text = source(name)
    if name == "plain" and adds_bos(tokenizer):
        text = "{{- bos_token -}}\n" + text
    return Template(name, text, end)


def stop_ids(tokenizer: Any, template: Template) -> tuple[int, ...]:
    """Ids that end a reply: the template's end of turn and the tokenizer's end of text."""
    ids = [tokenizer.convert_tokens_to_ids(template.end), tokenizer.eos_token_id]
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def require_markers(tokenizer: Any) -> None:
    """`UserError` when the tokenizer's template does not mark replies, so that training could not mask the prompt."""
    if _MARKER.search(tokenizer.chat_template or "") is None:
        raise UserError(
            "the chat template has no {% generation %} markers, so replies cannot be told from prompts in training; "
            f"set model.template to one of {', '.join(FAMILIES)}"
        )


def render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> tuple[str, list[tuple[int, int]]]:
    """Text of a conversation and the spans (code points, end exclusive) between its generation markers.

    `prompt` adds the opening of the reply to come. Raises `UserError` with the template's own reason where it
    cannot take the conversation.
    """
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    marked = _MARKER.search(tokenizer.chat_template) is not None
    try:
        texts, spans = render_jinja_template(
            conversations=[[{"role": m.role, "content": m.content} for m in messages]],
            chat_template=tokenizer.chat_template,
            return_assistant_tokens_mask=marked,
            add_generation_prompt=prompt,
            **tokenizer.special_tokens_map,
        )
    except (TemplateError, *_TEMPLATES_OWN) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"the chat template cannot take this conversation: {why}") from error
    return texts[0], [(start, end) for start, end in spans[0]] if marked else []


def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(coded["input_ids"]), [(start, end) for start, end in coded["offset_mapping"]]


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to the opening of the reply that is asked for."""
    return list(_prompt_ids(tokenizer, tokenizer.chat_template, tuple(messages)))


@lru_cache(maxsize=REMEMBERED)
def _prompt_ids(tokenizer: Any, template: str, messages: tuple[Message, ...]) -> tuple[int, ...]:
    return tuple(_tokens(tokenizer, render(tokenizer, messages, prompt=True)[0])[0])


def encode_example(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """`(ids, loss_mask)` of a conversation that ends with a reply: mask 1 on that reply and its end-of-turn token.

    Earlier replies are context. The ids of `encode_prompt(messages[:-1])` are always their prefix: where the whole
    text would merge tokens over that boundary, the reply is tokenized by itself, as it is when a model generates it.
    Raises `UserError` when the template has no markers or renders the prompt in another way inside the whole.
    """
    ids, mask = _example_ids(tokenizer, tokenizer.chat_template, tuple(messages))
    return list(ids), list(mask)


@lru_cache(maxsize=REMEMBERED)
def _example_ids(
    tokenizer: Any, template: str, messages: tuple[Message, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    require_markers(tokenizer)
    before, _ = render(tokenizer, messages[:-1], prompt=True)
    text, spans = render(tokenizer, messages, prompt=False)
    if not text.startswith(before):
        raise UserError("the chat template writes a prompt differently once its reply follows; use another template")
    if not spans:
        raise UserError("the chat template marks no reply in this conversation")
    start, end = spans[-1]
    prompt_ids, _ = _tokens(tokenizer, before)
    ids, offsets = _tokens(tokenizer, text)
    if ids[: len(prompt_ids)] != prompt_ids:
        rest, rest_offsets = _tokens(tokenizer, text[len(before) :])
        ids = prompt_ids + rest
        offsets = [(0, 0)] * len(prompt_ids) + [(a + len(before), b + len(before)) for a, b in rest_offsets]
    first = len(prompt_ids)
    return tuple(ids), tuple(int(i >= first and b > start and a < end) for i, (a, b) in enumerate(offsets))
