"""First-token KL: by hand, and with an adapter switched on and off in one model."""

from __future__ import annotations

import math

import pytest
import torch

from alignment_core.config import GenerateSettings, ModelSettings
from alignment_core.models import miniature
from alignment_core.models.generate import generate
from alignment_core.models.load import load
from alignment_core.models.noise import quiet
from alignment_core.models.score import first_token_logprobs
from alignment_core.records import Message, Prompt
from drift_dpo.drift import first_token_kl, kl

PROMPTS = [
    Prompt(id=f"p{i}", messages=(Message("user", "ask " * (1 + i)),), kind="harmful" if i % 2 else "benign")
    for i in range(5)
]


def test_kl_by_hand():
    state = torch.log(torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]))
    base = torch.log(torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]]))
    # .5 ln 2 + .5 ln 1 + 0 = .34657; a distribution against itself is 0
    assert kl(state, base) == pytest.approx([0.5 * math.log(2), 0.0], abs=1e-7)
    # the other way round the baseline rules a token out that the state gives .25
    assert math.isinf(kl(base, state)[0])
    with pytest.raises(ValueError, match="unlike shape"):
        kl(state, base[:1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return miniature.build(tmp_path_factory.mktemp("model"))


def load_plain(folder):
    return load(ModelSettings(name=str(folder), template="own", device="cpu", dtype="float32"))


def test_a_model_without_an_adapter_has_not_drifted(folder):
    assert first_token_kl(load_plain(folder), PROMPTS).tolist() == [0.0] * 5


def test_the_adapter_is_compared_with_its_own_base(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    plain, tuned = load_plain(folder), load_plain(folder)
    baseline = first_token_logprobs(plain, PROMPTS)
    torch.manual_seed(0)
    with quiet():
        tuned.model = get_peft_model(tuned.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).eval()
    assert first_token_kl(tuned, PROMPTS) == pytest.approx([0.0] * 5, abs=1e-6)  # B starts at zero
    with torch.no_grad():
        for name, weight in tuned.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=2.0)
    got = first_token_kl(tuned, PROMPTS, batch_size=2)
    assert (got > 1e-4).all()
    assert got == pytest.approx(kl(first_token_logprobs(tuned, PROMPTS), baseline), rel=1e-4)
    # generation runs on a model with an adapter, and leaves its settings as they were
    before = tuned.model.get_base_model().generation_config
    settings = GenerateSettings(max_new_tokens=4)
    rows = generate(PROMPTS, settings, tuned, subject="a", seed=0, file=tmp_path / "c.jsonl")
    assert len(rows) == 5
    assert tuned.model.get_base_model().generation_config is before
