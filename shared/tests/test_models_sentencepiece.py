"""A tokenizer that comes as a sentencepiece model alone (Llama 2, Mistral, Gemma in their first copies)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from alignment_core import io
from alignment_core.config import ModelSettings
from alignment_core.errors import UserError
from alignment_core.models import load, miniature, pretrained

WORDS = (
    "bread", "garden", "river", "how", "can", "I", "bake", "grow", "the", "a", "pie", "stone", "light", "hello", "you",
)  # fmt: skip
SETTINGS = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model of 300 tokens whose tokenizer's fast files are gone."""
    from transformers import LlamaForCausalLM

    miniature.build(tmp_path / "model", hidden=16, layers=1)
    wider = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    wider.resize_token_embeddings(300)
    wider.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "chat_template.jinja", "special_tokens_map.json"):
        (tmp_path / "model" / name).unlink(missing_ok=True)
    io.write_json(tmp_path / "model" / "tokenizer_config.json", SETTINGS)
    return tmp_path / "model"


def settings(folder: Path) -> ModelSettings:
    return ModelSettings(name=str(folder), device="cpu", template="plain")


def test_it_loads_and_writes_sentencepieces_own_tokens(folder: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    rng = random.Random(0)
    lines = [" ".join(rng.choices(WORDS, k=9)) for _ in range(500)]
    (folder.parent / "text").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder.parent / "text"), model_prefix=str(folder / "tokenizer"), vocab_size=290, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False,  # as Llama's own
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ours = load.load(settings(folder)).tokenizer
    for text in ("how can I bake a pie", "Überraschung 7\n x", "a  b"):
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs.encode(text)


def test_without_the_package_the_error_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tokenizer.model").write_bytes(b"whatever")
    monkeypatch.setattr(pretrained, "distributions", lambda: [])
    with pytest.raises(UserError, match=r"sentencepiece model needs sentencepiece and protobuf; install") as caught:
        load.load(settings(folder))
    assert "tiktoken" not in str(caught.value)
