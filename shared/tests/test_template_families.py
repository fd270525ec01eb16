"""The families' chat templates: ours against reference renderings, and models that bring a template of their own.

`templates/` holds stand-ins written from the renderings, one for a family, which give the same texts. Each is tried as
a user's model would be: chosen by `auto`, asked, and trained with one token a byte beside the family's special tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignment_core.config import ModelSettings
from alignment_core.errors import UserError
from alignment_core.models import choose_template, miniature, render, template
from alignment_core.records import Message

HERE = Path(__file__).parent / "templates"
NAMES = sorted(file.stem for file in HERE.glob("*.jinja"))
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN3 = (*CHATML, "<think>", "</think>")
LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
PHI = ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
GRANITE = ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>")
SPECIAL = {
    "chatml": CHATML, "qwen2.5-instruct": CHATML, "smollm2-instruct": CHATML, "qwen3": QWEN3,
    "qwen3-instruct-2507": QWEN3, "qwen3-nonthinking": QWEN3, "phi-4": (*CHATML, "<|im_sep|>"),
    "hermes-3-llama-3.1": ("<|begin_of_text|>", *CHATML), "llama-2-chat": ("<unk>", "<s>", "</s>"),
    "llama-3-instruct": LLAMA3, "llama-3.1-instruct": LLAMA3, "llama-3.2-instruct": LLAMA3,
    "mistral-7b-instruct-v0.1": ("<s>", "</s>"), "mistral-7b-instruct-v0.1-original": ("<s>", "</s>"),
    "mistral-7b-instruct-v0.3": ("<s>", "</s>", "[INST]", "[/INST]"), "gemma-2-it": GEMMA, "gemma-3-it": GEMMA,
    "phi-3-mini-instruct": PHI, "phi-4-mini-instruct": PHI, "olmo-2-instruct": ("<|endoftext|>",),
    "granite-3.0-instruct": GRANITE, "granite-3.1-instruct": GRANITE, "openchat-3.5": ("<s>", "<|end_of_turn|>"),
    "gpt-oss": ("<|startoftext|>", "<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
    "deepseek-r1-distill-qwen": ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
}  # fmt: skip
BOS = {"<|begin_of_text|>", "<s>", "<bos>", "<｜begin▁of▁sentence｜>", "<|startoftext|>"}
EOS = {
    "gemma-2-it": "<eos>", "gemma-3-it": "<eos>", "phi-3-mini-instruct": "<|endoftext|>", "phi-4": "<|im_end|>",
    "phi-4-mini-instruct": "<|endoftext|>", "granite-3.0-instruct": "<|end_of_text|>",
    "granite-3.1-instruct": "<|end_of_text|>", "qwen3": "<|im_end|>",
    "mistral-7b-instruct-v0.3": "</s>", "qwen3-instruct-2507": "<|im_end|>",
    "qwen3-nonthinking": "<|im_end|>",
}  # fmt: skip
ENDS = {  # what ends a turn, where that is not the end-of-text token
    "gemma-2-it": "<end_of_turn>", "gemma-3-it": "<end_of_turn>", "phi-3-mini-instruct": "<|end|>",
    "phi-4-mini-instruct": "<|end|><|endoftext|>",
}  # fmt: skip
OURS = {
    "llama-2-chat": "llama2", "llama-3-instruct": "llama3", "gemma-3-it": "gemma", "qwen3-nonthinking": "own",
    "phi-3-mini-instruct": "phi",
}  # fmt: skip
"""What `auto` makes of a family; of every other one `own`."""
LEAD = {
    "llama-2-chat": " ", "mistral-7b-instruct-v0.1": " ", "mistral-7b-instruct-v0.3": " ", "openchat-3.5": " ",
    "qwen3": "<think>\n\n</think>\n\n", "gpt-oss": "<|channel|>final<|message|>",
}  # fmt: skip
"""What a trained reply begins with before its text."""
SYSTEM, USER, REPLY = Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Yo")
MORE, DONE = Message("user", "More"), Message("assistant", "Done")


def coder(name: str):
    """A tokenizer of the family, with the stand-in as its own template."""
    special = SPECIAL[name]
    bos = next((t for t in special if t in BOS), "<|endoftext|>" if name == "olmo-2-instruct" else None)
    made = miniature.tokenizer(special, bos, EOS.get(name, special[-1]))
    made.chat_template = (HERE / f"{name}.jinja").read_text("utf-8")
    return made


def chosen(name: str):
    """The tokenizer with the template that `auto` picks, and that template."""
    tokenizer = coder(name)
    picked = choose_template.template_for(ModelSettings(name="some/model", revision="0" * 40), tokenizer)
    tokenizer.chat_template = picked.text
    return tokenizer, picked


def cases(shared_data: Path, family: str):
    """A family's reference cases that a conversation of ours can be, and its special tokens."""
    found = json.loads((shared_data / "renderings" / f"{family}.json").read_text("utf-8"))
    tokens = {key: found[key] for key in ("bos_token", "eos_token") if found[key]}
    plain = [c for c in found["cases"] if not c["kwargs"] and all(set(m) == {"role", "content"} for m in c["messages"])]
    return plain, tokens


def rendered(text: str, tokens: dict[str, str], case) -> str | None:
    """What our renderer makes of a case; None where the template refuses it."""
    messages = [Message(m["role"], m["content"]) for m in case["messages"]]
    tokenizer = SimpleNamespace(chat_template=text, special_tokens_map=tokens)
    try:
        return render.render(tokenizer, messages, prompt=case["add_generation_prompt"]).text
    except UserError:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_a_stand_in_gives_every_reference_text(shared_data, name):
    text = (HERE / f"{name}.jinja").read_text("utf-8")
    plain, tokens = cases(shared_data, name)
    assert len(plain) >= 12
    assert {c["name"]: rendered(text, tokens, c) for c in plain} == {c["name"]: c.get("text") for c in plain}


@pytest.mark.parametrize(("ours", "family", "but"), [
    ("llama2", "llama-2-chat", ()),
    ("llama3", "llama-3-instruct", ()),
    ("gemma", "gemma-3-it", ()),
    ("phi", "phi-3-mini-instruct", ()),
    ("qwen3", "qwen3-nonthinking", ("think_last_nogen",)),  # ours keeps a reply as it is given, behind its prompt
])  # fmt: skip
def test_ours_give_every_reference_prompt(shared_data, ours, family, but):
    plain, tokens = cases(shared_data, family)
    for case in plain:
        found, wanted = rendered(template.source(ours), tokens, case), case.get("text")
        if not case["add_generation_prompt"] and ours == "phi":
            wanted = wanted.removesuffix("<|endoftext|>")  # behind the last turn; no prompt holds it
        assert case["name"] in but or found == wanted, case["name"]


@pytest.mark.parametrize("name", NAMES)
def test_auto_keeps_what_the_model_was_made_with(name):
    tokenizer, picked = chosen(name)
    assert picked.name == OURS.get(name, "own")
    assert bool(picked.notes) == (picked.name == "own")
    own = coder(name)
    for messages in ([USER], [SYSTEM, USER], [USER, REPLY, MORE], [SYSTEM, USER, REPLY, MORE]):
        if messages[0] is SYSTEM and name in ("gemma-2-it", "mistral-7b-instruct-v0.1-original"):
            continue
        by_own = own(render.render(own, messages, prompt=True).text, add_special_tokens=False)["input_ids"]
        assert template.encode_prompt(tokenizer, messages) == by_own


TRAINED = [name for name in NAMES if name != "deepseek-r1-distill-qwen"]


@pytest.mark.parametrize("name", TRAINED)
def test_a_reply_is_trained_with_the_end_of_its_turn(name):
    tokenizer, picked = chosen(name)
    end = ENDS.get(name, tokenizer.eos_token)
    space = " " if name == "llama-2-chat" else ""
    no_system = name in ("gemma-2-it", "mistral-7b-instruct-v0.1-original")
    for start in ([], [] if no_system else [SYSTEM]):
        for messages, text in (([*start, USER, REPLY], "Yo"), ([*start, USER, REPLY, MORE, DONE], "Done")):
            prompt = template.encode_prompt(tokenizer, messages[:-1])
            ids, mask = template.encode_example(tokenizer, messages)
            assert ids[: len(prompt)] == prompt
            assert mask == [0] * len(prompt) + [1] * sum(mask) + [0] * (len(ids) - len(prompt) - sum(mask))
            assert tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m]) == (
                f"{LEAD.get(name, '')}{text}{space}{end}"
            )
    assert picked.ends[0] in template.TOKENS.get(picked.name, ()) or end.startswith(picked.ends[0])
    assert set(template.stop_ids(tokenizer, picked)) >= {tokenizer.convert_tokens_to_ids(picked.ends[0])}
    assert not picked.obstacle


@pytest.mark.parametrize("name", TRAINED)
def test_a_reply_that_a_template_would_rewrite_is_trained(name):
    """Spaces may be trimmed; thinking that a template takes out of a reply stays, so that no reply fails."""
    tokenizer, _ = chosen(name)
    for text in (" Yo \n", "It was\n</think>\n\nYo", "<think>\nIt was\n</think>\n\nYo", ""):
        messages = [USER, Message("assistant", text)]
        prompt = template.encode_prompt(tokenizer, messages[:-1])
        ids, mask = template.encode_example(tokenizer, messages)
        trained = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
        assert ids[: len(prompt)] == prompt
        assert text.strip() in trained


def test_a_generation_prompt_that_opens_thinking_cannot_be_trained():
    tokenizer, picked = chosen("deepseek-r1-distill-qwen")
    assert "its generation prompt opens with '<｜Assistant｜><think>\\n'" in picked.notes[0]
    assert "it drops thinking in an earlier reply (<think> blocks); it drops thinking in the reply" in picked.notes[0]
    assert "it writes a system message otherwise" not in picked.notes[0]
    assert "writes a prompt differently once its reply follows" in picked.obstacle
    assert template.encode_prompt(tokenizer, [USER])
    with pytest.raises(UserError, match="writes a prompt differently once its reply follows"):
        template.encode_example(tokenizer, [USER, REPLY])


@pytest.mark.parametrize(("name", "said"), [
    ("qwen3", "a trained reply begins with '<think>\\n\\n</think>\\n\\n'; it drops thinking in an earlier reply"),
    ("qwen3-nonthinking", "its generation prompt opens with '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n'"),
    ("qwen2.5-instruct", "it writes a system message of its own where none is given"),
    ("llama-3.1-instruct", "it writes a system message of its own where none is given"),
    ("llama-3.2-instruct", "it writes today's date, which is held at 2024-07-26"),
    ("gemma-2-it", "it takes no system message"),
    ("mistral-7b-instruct-v0.3", "it writes a system message otherwise once a reply follows"),
    ("gpt-oss", "a trained reply begins with '<|channel|>final<|message|>'"),
])  # fmt: skip
def test_a_note_says_what_a_template_does(name, said):
    (note,) = chosen(name)[1].notes
    assert note.startswith("some/model: the tokenizer's own chat template is used: ")
    assert said in note


def test_a_family_by_name_that_is_not_the_models_is_allowed_and_said():
    tokenizer = coder("llama-3.1-instruct")
    settings = ModelSettings(name="some/model", revision="0" * 40, template="llama3")
    picked = choose_template.template_for(settings, tokenizer)
    assert picked.text == template.source("llama3")
    assert picked.notes == (
        "some/model: model.template=llama3 is not the tokenizer's own chat template: 14 of 14 probe conversations "
        "differ, first 'one user turn'.",
    )
    same = choose_template.template_for(settings, coder("llama-3-instruct"))
    assert same.notes == ()
