"""Chat templates: the model's own, or one of ours, and the tokens that a conversation becomes by it.

Training and generation go through the same two functions, so that the prompt a model is trained on is, token for
token, the prompt it is asked with: `encode_prompt(t, messages[:-1])` is always a prefix of
`encode_example(t, messages)`. Trained is the reply with the end of its turn, and nothing else. Ours mark that with
`{% generation %}`; of another template it is what the rendering has more with the reply than without it. Special tokens
are written by the template alone (no second BOS from the tokenizer). Which template a model gets: `choose_template.py`.

Our families' formats are those of their publishers' documentation: Llama 2, Llama 3, Gemma, Qwen3, Phi-3.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from alignment_core.errors import UserError
from alignment_core.models.render import render
from alignment_core.records import Message

TOKENS = {
    "llama2": (),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "qwen3": ("<|im_start|>", "<think>", "</think>", "<|im_end|>"),
    "phi": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "plain": (),
}
"""The special tokens that our template of each family writes, beside the tokenizer's BOS and EOS. The last one ends a
turn; where there is none, EOS does."""
FAMILIES = tuple(TOKENS)
REMEMBERED = 2048
"""Conversations whose ids are kept: the states of a study are asked the same prompts again and again."""
_BOS = "{{- bos_token -}}\n"
_ANY_REPLY = "A reply."
_OTHER = (
    "the chat template writes a prompt differently once its reply follows, so replies cannot be told from prompts in "
    "training; use another template"
)


@dataclass(frozen=True)
class Template:
    """A chat template: its name (a family, or `own`), its Jinja text, and the tokens that end a turn, in their order.

    `notes` say in sentences what a reader of the results must know of it; `obstacle` says why no reply can be trained
    by it, where that is so.
    """

    name: str
    text: str
    ends: tuple[str, ...]
    notes: tuple[str, ...] = ()
    obstacle: str = ""


def source(family: str) -> str:
    """Jinja text of one of the core's own templates."""
    return resources.files("alignment_core.models").joinpath("templates", f"{family}.jinja").read_text("utf-8")


def with_bos(text: str) -> str:
    """The template with BOS before all it writes."""
    return _BOS + text


@lru_cache(maxsize=1)
def _ours() -> frozenset[str]:
    """The core's templates, and that of the embedded models."""
    embedded = resources.files("alignment_core.organism").joinpath("weights", "1", "chat_template.jinja")
    shipped = [embedded.read_text("utf-8")] if embedded.is_file() else []
    return frozenset([*map(source, FAMILIES), with_bos(source("plain")), *shipped])


def is_ours(text: str) -> bool:
    """Whether a template came with this package, and so needs no guard."""
    return text in _ours()


def template_identity(setting: str) -> dict[str, str]:
    """What decides the template, for step keys: the setting and a hash of every core template it may pick.

    A template of the model's own is part of the model: a folder's hash covers it, a hub model's commit fixes it.
    """
    families = [setting] if setting in FAMILIES else sorted(FAMILIES) if setting == "auto" else []
    text = "\0".join(source(f) for f in families)
    return {"setting": setting, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def stop_ids(tokenizer: Any, template: Template) -> tuple[int, ...]:
    """Ids that end a reply: the template's end of turn and the tokenizer's end of text."""
    ids = [*map(tokenizer.convert_tokens_to_ids, template.ends), tokenizer.eos_token_id]
    return tuple(dict.fromkeys(i for i in ids if i is not None))


def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(coded["input_ids"]), [(start, end) for start, end in coded["offset_mapping"]]


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to the opening of the reply that is asked for."""
    return list(_prompt_ids(tokenizer, tokenizer.chat_template, tuple(messages)))


@lru_cache(maxsize=REMEMBERED)
def _prompt_ids(tokenizer: Any, template: str, messages: tuple[Message, ...]) -> tuple[int, ...]:
    return tuple(_tokens(tokenizer, render(tokenizer, messages, prompt=True).text)[0])


def encode_example(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """`(ids, loss_mask)` of a conversation that ends with a reply: mask 1 on that reply and its end-of-turn tokens.

    Earlier replies are context. The ids of `encode_prompt(messages[:-1])` are always their prefix: where the whole
    text would merge tokens over that boundary, the reply is tokenized by itself, as it is when a model generates it.
    Raises `UserError` where the template gives no such text, or ends a reply with no token.
    """
    ids, mask = _example_ids(tokenizer, tokenizer.chat_template, tuple(messages))
    return list(ids), list(mask)


@lru_cache(maxsize=REMEMBERED)
def _example_ids(
    tokenizer: Any, template: str, messages: tuple[Message, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before = render(tokenizer, messages[:-1], prompt=True).text
    text, start, end = _marked_span(tokenizer, messages, before) or _found_span(tokenizer, messages, before)
    prompt_ids, _ = _tokens(tokenizer, before)
    ids, offsets = _tokens(tokenizer, text)
    if ids[: len(prompt_ids)] != prompt_ids:
        rest, rest_offsets = _tokens(tokenizer, text[len(before) :])
        ids = prompt_ids + rest
        offsets = [(0, 0)] * len(prompt_ids) + [(a + len(before), b + len(before)) for a, b in rest_offsets]
    first = len(prompt_ids)
    return tuple(ids), tuple(int(i >= first and b > start and a < end) for i, (a, b) in enumerate(offsets))


Span = tuple[str, int, int]
"""A conversation's text, and where in it the last reply begins and ends."""


def _marked_span(tokenizer: Any, messages: Sequence[Message], before: str) -> Span | None:
    """The span between the last generation markers; None where there is none behind the prompt."""
    text, spans = render(tokenizer, messages, prompt=False)
    return (text, *spans[-1]) if spans and text.startswith(before) else None


def _found_span(tokenizer: Any, messages: Sequence[Message], before: str) -> Span:
    """The span by what the reply adds to the prompt: some text of the template's, the reply, and the end of the turn.

    What stands before and behind a reply is learned from one that no template changes (`around`). Where a template
    writes the prompt otherwise once this reply follows (Qwen3's takes `</think>` in it for thinking of its own), the
    reply stands there as it was given, behind the prompt as it is asked with.
    """
    lead, tail, ends = around(tokenizer, messages)
    if not ends:
        raise UserError(
            "the chat template ends a reply with none of the tokenizer's special tokens, so a model trained by it "
            "would not stop; use another template"
        )
    if lead is None:
        raise UserError(_OTHER)
    text = render(tokenizer, messages, prompt=False).text
    if not (text.startswith(before + lead) and text.endswith(tail) and len(text) >= len(before + lead + tail)):
        text = before + lead + messages[-1].content + tail
    return text, len(before), len(text) - len(tail) + tail.index("".join(ends)) + len("".join(ends))


def around(tokenizer: Any, messages: Sequence[Message]) -> tuple[str | None, str, tuple[str, ...]]:
    """What the template writes between a prompt and the reply's text, what it writes behind that, and the special
    tokens in it that end the turn: the first one and those right after it (Command R ends a reply, and then the turn).

    The first is None where no text with a reply begins with its prompt: neither that of the whole conversation nor that
    of its last two messages (Mistral's template moves the system message once a reply follows).
    """
    lead, tail = None, ""
    for asked in (messages[:-1], messages[-2:-1]):
        prompt = render(tokenizer, asked, prompt=True).text
        whole = render(tokenizer, (*asked, Message("assistant", _ANY_REPLY)), prompt=False).text
        shown, found, after = whole.rpartition(_ANY_REPLY)
        tail = tail or (after if found else "")
        if found and shown.startswith(prompt):
            lead = shown[len(prompt) :]
            break
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()} - {""}
    token = "|".join(map(re.escape, sorted(special, key=len, reverse=True)))
    run = re.search(f"(?:{token})+", tail) if token else None
    return lead, tail, tuple(re.findall(token, run[0])) if run else ()
