"""Random models of every family, examples and groups of weights, for tests and benchmarks. They know nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from alignment_core.config import LoraSettings
from alignment_core.models.lora import add_adapter
from neuron_brittleness import losses, matching
from neuron_brittleness.groups import Group
from neuron_brittleness.matrices import matrices

FAMILY = ("llama", "qwen3", "gemma2", "phi", "gpt_neo", "gpt2")
LORA = LoraSettings(r=4, alpha=8, dropout=0.0, targets="all-linear")


def model_of(family: str, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """A random model of a family (`alignment_core.testing.FAMILIES`) with 64 tokens, in eval mode."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from alignment_core.testing import FAMILIES

    shape = {**FAMILIES[family], "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape), dtype=dtype).eval()


def rows(n: int = 3, seed: int = 0) -> list[losses.Row]:
    """Examples of differing length whose first tokens are a prompt."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        ids = rng.integers(3, 64, 8 + 3 * i).tolist()
        made.append((ids, [-100] * (3 + i) + ids[3 + i :]))
    return made


def policy(family: str = "llama", dtype: torch.dtype = torch.float64, seed: int = 1) -> Any:
    """The model with a fresh adapter on every linear matrix, all in one dtype."""
    torch.manual_seed(seed)
    model = add_adapter(model_of(family, dtype), LORA)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
    return model


def frozen_group(model: Any, share: float = 0.2, seed: int = 0) -> Group:
    """A random share of every matrix."""
    group = Group("set_diff")
    for m in matrices(model):
        group.put(m.name, matching.uniform(m, share, seed))
    return group


def train(model: Any, steps: int = 4) -> None:
    """A few AdamW steps on what is trainable."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.01)
    for _ in range(steps):
        for ids, labels in rows(2):
            loss = losses.reply_loss(model, torch.tensor([ids]), torch.tensor([labels]))
            torch.autograd.backward(loss)
            optimiser.step()
            optimiser.zero_grad()
