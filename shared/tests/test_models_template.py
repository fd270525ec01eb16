"""Chat templates: each family's text written by hand, the prefix property, the loss mask, no second BOS."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, processors

from alignment_core.config import ModelSettings
from alignment_core.errors import UserError
from alignment_core.models import choose_template, miniature, render, template
from alignment_core.records import Message

FAMILIES = {
    "llama2": (("<unk>", "<s>", "</s>"), "<s>", "</s>"),
    "llama3": (
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "gemma": (("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>"),
    "qwen3": (("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"), None, "<|im_end|>"),
    "phi": (("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), "<s>", "<|end|>"),
    "plain": (("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>"),
}
REQUIRED = {family: tokens[-1:] for family, tokens in template.TOKENS.items()}

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
    special, bos, eos = FAMILIES[family]
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
    assert trained[-1] == tokenizer.convert_tokens_to_ids((REQUIRED[family] or (tokenizer.eos_token,))[0])


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
        base = ModelSettings(name="base", template="plain")
        tokenizer.chat_template = choose_template.template_for(base, tokenizer).text
        ids = template.encode_prompt(tokenizer, [USER])
        assert ids.count(tokenizer.bos_token_id) == count
        assert ids[:1] == [tokenizer.bos_token_id] or not count


SOME = ModelSettings(name="some/model", revision="0" * 40)


def test_a_tokenizer_without_a_template_is_told_of_the_choices():
    tokenizer = coder("phi")
    tokenizer.chat_template = None
    for setting in ("auto", "own"):
        with pytest.raises(UserError, match=r"has no chat template; set model\.template=plain for a base model"):
            choose_template.template_for(SOME.model_copy(update={"template": setting}), tokenizer)
    plain = choose_template.template_for(SOME.model_copy(update={"template": "plain"}), tokenizer)
    assert (plain.name, plain.notes) == ("plain", ())


def test_stop_ids_hold_the_end_of_turn_and_the_end_of_text():
    tokenizer = coder("gemma")
    picked = choose_template.template_for(ModelSettings(name="x", template="gemma"), tokenizer)
    assert template.stop_ids(tokenizer, picked) == (
        tokenizer.convert_tokens_to_ids("<end_of_turn>"),
        tokenizer.convert_tokens_to_ids("<eos>"),
    )


@pytest.mark.parametrize(("family", "special", "lacks"), [
    ("llama3", ("<|im_end|>",), r"<\|start_header_id\|>"),
    ("qwen3", ("<|im_start|>", "<|im_end|>"), "<think>"),  # Qwen2.5: its tokenizer would cut <think> into pieces
])  # fmt: skip
def test_a_family_whose_tokens_are_missing_is_refused(family, special, lacks):
    tokenizer = miniature.tokenizer(special, None, "<|im_end|>")
    with pytest.raises(UserError, match=f"template={family} writes {lacks}, which the tokenizer of x does not have"):
        choose_template.template_for(ModelSettings(name="x", template=family), tokenizer)


def test_a_template_that_rewrites_the_prompt_is_refused():
    tokenizer = coder("phi")
    turn = "{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}"
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}" + turn + "{% endfor %}"
    with pytest.raises(UserError, match="writes a prompt differently"):
        template.encode_example(tokenizer, [USER, REPLY])


def test_a_template_that_ends_a_reply_with_no_token_is_refused():
    tokenizer = coder("phi")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}assistant: {% endif %}"
    with pytest.raises(UserError, match="would not stop; use another template"):
        template.encode_example(tokenizer, [USER, REPLY])


def test_turns_out_of_order_are_one_clear_line():
    with pytest.raises(UserError, match="turns must alternate"):
        template.encode_prompt(coder("gemma"), [USER, USER])


def test_the_identity_moves_with_the_templates(monkeypatch):
    before = template.template_identity("auto")
    assert template.template_identity("own") != before
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
        render.render(Tokenizer(), (Message("user", "hi"),), prompt=True)


ENDLESS = "{{ 10 ** (10 ** 9) }}"


LATER = "{% if messages | length > 2 %}" + ENDLESS + "{% endif %}x"


@pytest.mark.parametrize("text", [ENDLESS, pytest.param(LATER, marks=pytest.mark.slow)])
def test_a_template_that_computes_forever_ends(text):
    tokenizer = coder("phi")
    tokenizer.chat_template = text
    with pytest.raises(render.Endless, match="takes more than 5 s of processor time"):
        choose_template.template_for(SOME, tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"  # the next template is rendered again
    assert render.render(tokenizer, [USER], prompt=True).text == "Hi"


def test_a_template_that_fills_the_memory_ends():
    tokenizer = coder("phi")
    tokenizer.chat_template = "{{ 'x' * (10 ** 10) }}"
    with pytest.raises(UserError, match="cannot take this conversation: MemoryError"):
        choose_template.template_for(SOME, tokenizer)
    tokenizer.chat_template = "{{ 'x' * (10 ** 7) }}"
    with pytest.raises(UserError, match="it makes 10,000,000 characters of it"):
        choose_template.template_for(SOME, tokenizer)


def test_today_is_held():
    tokenizer = coder("phi")
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}<|end|>"
    assert render.render(tokenizer, [USER], prompt=True).text == "26 Jul 2024Hi<|end|>"
