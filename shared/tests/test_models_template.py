"""Chat templates: each family's text written by hand, the prefix property, the loss mask, no second BOS."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, processors

from alignment_core.config import ModelSettings
from alignment_core.errors import UserError
from alignment_core.models import miniature, template
from alignment_core.records import Message

FAMILIES = {
    "llama2": ("llama", ("<unk>", "<s>", "</s>"), "<s>", "</s>"),
    "llama3": (
        "llama",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "gemma": ("gemma2", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>"),
    "qwen3": ("qwen3", ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"), None, "<|im_end|>"),
    "phi": ("phi3", ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), "<s>", "<|end|>"),
    "plain": ("phi", ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>"),
}
OWN = {"llama2": "[INST]"}  # what the family's published tokenizer carries; auto only looks at whether there is one

SYSTEM, USER, REPLY = Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Yo")
# Prompt with a system message, and the reply with the token that ends its turn: from each family's documentation.
WRITTEN = {
    "llama2": ("<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST]", " Yo </s>"),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "Yo<|eot_id|>",
    ),
    "gemma": ("<bos><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\n", "Yo<end_of_turn>"),
    "qwen3": (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "Yo<|im_end|>",
    ),
    "phi": ("<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n", "Yo<|end|>"),
    "plain": ("Be kind.\n\n### Instruction:\nHi\n\n### Response:\n", "Yo<|endoftext|>"),
}


def coder(family: str):
    _, special, bos, eos = FAMILIES[family]
    tokenizer = miniature.tokenizer(special, bos, eos)
    tokenizer.chat_template = template.source(family)
    return tokenizer


def by_hand(tokenizer, text: str) -> list[int]:
    """Ids of `text`, one token a byte except the special tokens, found by a scan of our own."""
    specials = sorted(tokenizer.all_special_tokens + list(tokenizer.get_added_vocab()), key=len, reverse=True)
    out: list[int] = []
    while text:
        special = next((s for s in specials if text.startswith(s)), None)
        if special is not None:
            out.append(tokenizer.convert_tokens_to_ids(special))
            text = text[len(special) :]
        else:
            letter = {"\n": "Ċ", " ": "Ġ"}.get(text[0], text[0])
            out.append(tokenizer.convert_tokens_to_ids(letter))
            text = text[1:]
    return out


@pytest.mark.parametrize("family", WRITTEN)
def test_tokens_are_those_written_by_hand(family):
    tokenizer = coder(family)
    prompt, reply = WRITTEN[family]
    assert template.encode_prompt(tokenizer, [SYSTEM, USER]) == by_hand(tokenizer, prompt)
    ids, mask = template.encode_example(tokenizer, [SYSTEM, USER, REPLY])
    trained = [i for i, m in zip(ids, mask, strict=True) if m]
    assert trained == by_hand(tokenizer, reply)
    assert ids[: len(by_hand(tokenizer, prompt))] == by_hand(tokenizer, prompt)
    assert trained[-1] == tokenizer.convert_tokens_to_ids(template.END_OF_TURN.get(family, tokenizer.eos_token))


def test_second_turns_of_a_conversation():
    turns = [USER, REPLY, Message("user", "More"), Message("assistant", "Done")]
    written = {
        "llama2": "<s>[INST] Hi [/INST] Yo </s><s>[INST] More [/INST] Done </s>",
        "gemma": "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n"
        "<start_of_turn>user\nMore<end_of_turn>\n<start_of_turn>model\nDone<end_of_turn>\n",
        "qwen3": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
        "<|im_start|>user\nMore<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\nDone<|im_end|>\n",
        "plain": "### Instruction:\nHi\n\n### Response:\nYo<|endoftext|>\n\n"
        "### Instruction:\nMore\n\n### Response:\nDone<|endoftext|>",
    }
    for family, text in written.items():
        tokenizer = coder(family)
        ids, mask = template.encode_example(tokenizer, turns)
        assert ids == by_hand(tokenizer, text)
        # the first reply is context: only the last one is trained on
        assert tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m]).strip().startswith("Done")


words = st.text(st.characters(codec="utf-8", exclude_characters="<|>[]"), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(user=words, reply=words, family=st.sampled_from(sorted(FAMILIES)))
def test_the_prompt_is_always_a_prefix_of_the_example(user, reply, family):
    tokenizer = coder(family)
    messages = [Message("user", user), Message("assistant", reply)]
    prompt = template.encode_prompt(tokenizer, messages[:-1])
    ids, mask = template.encode_example(tokenizer, messages)
    assert ids[: len(prompt)] == prompt
    assert not any(mask[: len(prompt)])
    assert any(mask)


def test_prefix_holds_where_tokens_merge_over_the_boundary():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate([*alphabet, "ĊĊ"])}
    base = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    base.decoder = decoders.ByteLevel()
    base.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<|endoftext|>")
    tokenizer.chat_template = template.source("plain")
    messages = [USER, Message("assistant", "\nYo")]  # "Response:\n" + "\nYo": the two line ends would be one token
    prompt = template.encode_prompt(tokenizer, messages[:-1])
    ids, mask = template.encode_example(tokenizer, messages)
    assert ids[: len(prompt)] == prompt
    assert tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m]) == "\nYo<|endoftext|>"


@pytest.mark.parametrize("family", ["llama2", "llama3", "gemma"])
def test_no_second_bos_from_a_tokenizer_that_adds_its_own(family):
    tokenizer = coder(family)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    ids = template.encode_prompt(tokenizer, [USER])
    assert ids.count(tokenizer.bos_token_id) == 1


def test_plain_opens_with_bos_only_where_the_base_model_was_trained_so():
    without, with_bos = (
        miniature.tokenizer(("<s>", "</s>"), "<s>", "</s>"),
        miniature.tokenizer(("<s>", "</s>"), "<s>", "</s>"),
    )
    with_bos.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", with_bos.bos_token_id)]
    )
    for tokenizer, count in ((without, 0), (with_bos, 1)):
        tokenizer.chat_template = template.template_for(ModelSettings(name="base"), tokenizer, "llama").text
        ids = template.encode_prompt(tokenizer, [USER])
        assert ids.count(tokenizer.bos_token_id) == count
        assert ids[:1] == [tokenizer.bos_token_id] or not count


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_picks_the_family(family):
    model_type, special, bos, eos = FAMILIES[family]
    tokenizer = miniature.tokenizer(special, bos, eos)
    tokenizer.chat_template = None if family == "plain" else OWN.get(family, "{{ messages }}")
    picked = template.template_for(ModelSettings(name="some/model", revision="0" * 40), tokenizer, model_type)
    assert picked.name == family
    assert picked.trainable
    tokenizer.chat_template = None  # a base model of the same family
    base = template.template_for(ModelSettings(name="some/model", revision="0" * 40), tokenizer, model_type)
    assert base.name == "plain"


def test_stop_ids_hold_the_end_of_turn_and_the_end_of_text():
    tokenizer = coder("gemma")
    picked = template.template_for(ModelSettings(name="x", template="gemma"), tokenizer, "gemma2")
    assert template.stop_ids(tokenizer, picked) == (
        tokenizer.convert_tokens_to_ids("<end_of_turn>"),
        tokenizer.convert_tokens_to_ids("<eos>"),
    )


def test_a_family_whose_tokens_are_missing_is_refused():
    tokenizer = coder("plain")
    with pytest.raises(UserError, match=r"template=llama3 ends a turn with <\|eot_id\|>"):
        template.template_for(ModelSettings(name="x", template="llama3"), tokenizer, "llama")


def test_own_without_markers_cannot_train():
    tokenizer = coder("phi")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match=r"no .% generation %. markers"):
        template.encode_example(tokenizer, [USER, REPLY])


def test_a_template_that_rewrites_the_prompt_is_refused():
    tokenizer = coder("phi")
    turn = "{% generation %}{{ m['content'] }}{% endgeneration %}"
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}" + turn + "{% endfor %}"
    with pytest.raises(UserError, match="writes a prompt differently"):
        template.encode_example(tokenizer, [USER, REPLY])


def test_turns_out_of_order_are_one_clear_line():
    with pytest.raises(UserError, match="turns must alternate"):
        template.encode_prompt(coder("gemma"), [USER, USER])


def test_the_identity_moves_with_the_templates(monkeypatch):
    before = template.template_identity("auto")
    assert template.template_identity("gemma") != template.template_identity("phi")
    monkeypatch.setattr(template, "source", lambda family: family + "!")
    assert template.template_identity("auto") != before


@pytest.mark.parametrize(
    "text", ["{{ 1 / 0 }}", "{{ range(10 ** 9) | list }}", "{{ messages + 1 }}", "{{ raise_exception('a\nb') }}",
             "{% include 'x' %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages.x.y }}"]
)  # fmt: skip
def test_a_template_with_a_mistake_of_its_own_is_one_line(text):
    class Tokenizer:
        chat_template = text
        special_tokens_map: ClassVar = {}

    with pytest.raises(UserError, match=r"^the chat template cannot take this conversation: [^\n]+$"):
        template.render(Tokenizer(), (Message("user", "hi"),), prompt=True)
