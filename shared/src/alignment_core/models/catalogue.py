"""Published models that the presets name: what config.json cannot tell, and their shapes for plans without a network.

`config` holds the fields of the published config.json that decide the shape; it stands in where the file is neither
in the hub's cache nor to be fetched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """A model on the hub."""

    gated: bool
    """Whether the hub asks for the licence to be accepted first."""
    download: float
    """Bytes of its safetensors."""
    config: dict[str, Any] = field(repr=False)


def _llama(layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, vocab: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
    }


_QWEN3_06B = {
    "model_type": "qwen3", "num_hidden_layers": 28, "hidden_size": 1024, "intermediate_size": 3072,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip
_GEMMA_2B = {
    "model_type": "gemma", "num_hidden_layers": 18, "hidden_size": 2048, "intermediate_size": 16384,
    "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000,
}  # fmt: skip
_PHI_2 = {
    "model_type": "phi", "num_hidden_layers": 32, "hidden_size": 2560, "intermediate_size": 10240,
    "num_attention_heads": 32, "vocab_size": 51200, "tie_word_embeddings": False,
}  # fmt: skip
_GPT_NEO_125M = {
    "model_type": "gpt_neo", "num_layers": 12, "hidden_size": 768, "num_heads": 12, "vocab_size": 50257,
    "attention_types": [[["global", "local"], 6]],
}  # fmt: skip

CATALOGUE: dict[str, Published] = {
    "meta-llama/Llama-3.1-8B-Instruct": Published(True, 16.06e9, _llama(32, 4096, 14336, 32, 8, 128256)),
    "meta-llama/Llama-3.1-70B-Instruct": Published(True, 141.1e9, _llama(80, 8192, 28672, 64, 8, 128256)),
    "meta-llama/Llama-2-7b-chat-hf": Published(True, 13.48e9, _llama(32, 4096, 11008, 32, 32, 32000)),
    "Qwen/Qwen3-0.6B": Published(False, 1.5e9, _QWEN3_06B),
    "google/gemma-2b-it": Published(True, 5.01e9, _GEMMA_2B),
    "microsoft/phi-2": Published(False, 5.56e9, _PHI_2),
    "EleutherAI/gpt-neo-125m": Published(False, 0.53e9, _GPT_NEO_125M),
}
"""By hub id."""
