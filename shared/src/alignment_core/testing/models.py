"""Tiny random models of the families that users bring, with the embedded model's tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
_GROUPED = {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
_EXPERTS = {**_GROUPED, "head_dim": 8, "num_experts_per_tok": 2}
_GEMMA3 = {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64}
_VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
           "image_size": 28, "patch_size": 14}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "head_dim": 8, "sliding_window": None},
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "gemma": {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 8},
    "gemma2": {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": _GEMMA3,
    "gemma3": {"text_config": _GEMMA3, "vision_config": _VISION, "mm_tokens_per_image": 4},
    "phi": {**_SMALL, "intermediate_size": 64},
    "phi3": _GROUPED,
    "gpt_neox": {**_SMALL, "intermediate_size": 64},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64,
                "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 512},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 512},
    "mixtral": {**_EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 32},
    "gpt_oss": {**_EXPERTS, "num_local_experts": 4, "sliding_window": 64},
}  # fmt: skip
"""Shapes of the random models, by transformers' name of the family; `gemma3` has a vision tower, the last three are
mixtures of experts."""


def build_tiny_model(folder: Path, family: str, seed: int = 0, **changes: Any) -> None:
    """Save a random model of `family` (a key of `FAMILIES`) as safetensors, with the embedded model's tokenizer.

    `changes` are fields of its config; of a model with a vision tower of its text config.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from alignment_core.organism import weights

    tokenizer = AutoTokenizer.from_pretrained(weights.path())
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {**FAMILIES[family], **ids}
    text = {"vocab_size": len(tokenizer), **ids, **changes}
    if "text_config" in shape:
        shape["text_config"] = {**shape["text_config"], **text}
    else:
        shape |= text
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape), dtype=torch.float32)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(weights.path() / name, folder / name)
