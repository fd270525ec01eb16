"""Tiny random models of the families that users bring, with the embedded model's tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2},
    "qwen3": {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8},
    "gemma": {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 8},
    "gemma2": {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8},
    "phi": {**_SMALL, "intermediate_size": 64},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64,
                "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 512},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 512},
}  # fmt: skip
"""Shapes of the random models, by transformers' name of the family."""


def build_tiny_model(folder: Path, family: str, seed: int = 0, **changes: Any) -> None:
    """Save a random model of `family` (a key of `FAMILIES`) as safetensors, with the embedded model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from alignment_core.organism import weights

    tokenizer = AutoTokenizer.from_pretrained(weights.path())
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {**FAMILIES[family], "vocab_size": len(tokenizer), **ids, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape), dtype=torch.float32)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(weights.path() / name, folder / name)
