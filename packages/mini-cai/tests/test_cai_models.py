"""Any causal model, chat or base: candidates that depend on nothing but their place, adapters on every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.config import GenerateSettings, LoraSettings, ModelSettings
from alignment_core.models.generate import generate
from alignment_core.models.load import Loaded, load
from alignment_core.models.lora import add_adapter
from alignment_core.records import Message, Prompt
from mini_cai import chat, data, rows
from mini_cai.cli import app
from mini_cai.config import CaiConfig

UPSTREAM = {
    "gpt2": {"c_attn", "c_proj"},
    "gemma": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "phi": {"q_proj", "k_proj", "v_proj", "dense"},
    "gpt_neo": {"q_proj", "k_proj", "v_proj", "out_proj"},
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj"},
}
"""The modules that the original's README lists by hand for its families, and gpt-neo's and Llama's."""


@pytest.mark.parametrize("family", UPSTREAM)
def test_a_familys_modules_are_found_by_themselves(family: str, tiny_model: Any) -> None:
    loaded = load(ModelSettings(name=str(tiny_model(family)), template="plain", device="cpu", dtype="float32"))
    adapted = add_adapter(loaded.model, CaiConfig().lora)
    found = {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in adapted.named_parameters() if ".lora_A" in name}
    assert UPSTREAM[family] <= found
    assert "lm_head" not in found


def test_candidates_depend_on_neither_their_batch_nor_the_other_prompts(organism: Loaded, tmp_path: Path) -> None:
    prompts = [
        Prompt(f"p{i}", (Message("user", text),), "benign")
        for i, text in enumerate(("How can I bake a vegetable pie?", "Please tell me how to wash a wool coat.", "Hi"))
    ]

    def texts(asked: list[Prompt], batch: int, name: str) -> dict[tuple[str, int], str]:
        how = GenerateSettings(temperature=1.0, top_p=0.95, candidates=3, max_new_tokens=24, batch_size=batch)
        made = generate(asked, how, organism, subject="candidates", seed=5, file=tmp_path / name)
        return {(r.prompt_id, r.candidate): r.text for r in made}

    whole = texts(prompts, 9, "a.jsonl")
    assert texts(prompts, 2, "b.jsonl") == whole
    alone = texts(prompts[1:2], 1, "c.jsonl")
    assert alone == {key: text for key, text in whole.items() if key[0] == "p1"}
    assert len(set(whole.values())) > 5


@pytest.mark.parametrize("family", ["gpt_neo", "phi"])
def test_a_base_model_gets_headings_and_its_candidates_are_new_tokens_only(
    family: str, tiny_model: Any, tmp_path: Path
) -> None:
    # Upstream: the output was never cut from the prompt, so every candidate began with it.
    loaded = load(ModelSettings(name=str(tiny_model(family)), template="plain", device="cpu", dtype="float32"))
    how = GenerateSettings(max_new_tokens=8, batch_size=4)
    made = generate(
        data.shipped(rows.PROMPTS)[:4], how, loaded, subject="candidates", seed=1, file=tmp_path / "c.jsonl"
    )
    assert all(row.prompt not in row.text and "### Instruction" not in row.text for row in made)
    assert all(row.tokens <= 8 for row in made)


def test_an_adapter_refuses_another_base(organism: Loaded, tiny_model: Any, tmp_path: Path) -> None:
    # Upstream's example put an adapter of gemma-2b-it on gemma-2-2b.
    from alignment_core.models.load import identity
    from alignment_core.models.lora import save_adapter

    own = load(ModelSettings(device="cpu", dtype="float32"))
    save_adapter(
        add_adapter(own.model, LoraSettings(r=2, targets="all-linear")),
        tmp_path / "adapter",
        identity(ModelSettings())["weights"],
    )
    done = CliRunner().invoke(app, ["chat", str(tmp_path / "adapter"), "--model", str(tiny_model())])
    assert done.exit_code == 2
    assert "adapter" in done.output


def test_a_conversation_keeps_its_end_when_it_outgrows_the_context(organism: Loaded) -> None:
    said: list[str] = []
    how = GenerateSettings(max_new_tokens=12, temperature=0.8)
    lines = ["How can I bake a vegetable pie?"] * 3 + ["word " * 600, "Hello"]
    chat.talk(organism, iter(lines), said.append, how, 1, memory=True)
    assert len(said) == 5
    assert "longer than this model's context" in said[3]
    assert said[4]
    turns = [Message("user", "a " * 400), Message("assistant", "b"), Message("user", "c")]
    kept = chat.fitting(organism, turns, 200)
    assert kept == chat.fitting(organism, turns[2:], 200)
