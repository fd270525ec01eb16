"""Facts about the hub models the presets name, for plans made without a network: sizes, memory, access.

Shapes are those of the models' published config files. Memory is an estimate from the shapes: weights as held, the
adapter with its gradient and AdamW's two moments in float32, and the activations kept for the backward pass
(Korthikanti et al. 2022, arXiv 2205.05198, section 4, with attention that does not keep its scores).
"""

from __future__ import annotations

from dataclasses import dataclass

from alignment_core.config import LoraSettings, ModelSettings, TrainSettings


@dataclass(frozen=True)
class Architecture:
    """Shape of a decoder; sizes in elements."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    gated_mlp: bool = True
    gated_access: bool = False
    """Whether the hub asks for the licence to be accepted first."""

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Linear modules of a layer by Llama's names: (inputs, outputs)."""
        query, value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        out = {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, value),
            "v_proj": (self.hidden, value),
            "o_proj": (query, self.hidden),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }
        return out | ({"gate_proj": (self.hidden, self.intermediate)} if self.gated_mlp else {})

    @property
    def linear(self) -> int:
        """Weights in the layers' linear modules."""
        return self.layers * sum(i * o for i, o in self.projections.values())

    @property
    def embedding(self) -> int:
        """Weights of the input embedding and, where it is not tied, the output head."""
        return self.vocab * self.hidden * (1 if self.tied else 2)


CATALOGUE: dict[str, Architecture] = {
    "meta-llama/Llama-3.1-8B-Instruct": Architecture(
        32, 4096, 14336, 32, 8, 128, 128256, tied=False, gated_access=True
    ),
    "meta-llama/Llama-3.1-70B-Instruct": Architecture(
        80, 8192, 28672, 64, 8, 128, 128256, tied=False, gated_access=True
    ),
    "meta-llama/Llama-2-7b-chat-hf": Architecture(32, 4096, 11008, 32, 32, 128, 32000, tied=False, gated_access=True),
    "Qwen/Qwen3-0.6B": Architecture(28, 1024, 3072, 16, 8, 128, 151936, tied=True),
    "google/gemma-2b-it": Architecture(18, 2048, 16384, 8, 1, 256, 256000, tied=True, gated_access=True),
    "microsoft/phi-2": Architecture(32, 2560, 10240, 32, 32, 80, 51200, tied=False, gated_mlp=False),
    "EleutherAI/gpt-neo-125m": Architecture(12, 768, 3072, 12, 12, 64, 50257, tied=True, gated_mlp=False),
}
"""By hub id; the organism and folders are read from their config.json instead."""

WIDTH = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "auto": 2.0}
"""Bytes a weight by dtype."""
NF4_BYTES = 4.127 / 8
"""Bytes a weight: 4 bits and a double-quantised scale (arXiv 2305.14314, section 3)."""


@dataclass(frozen=True)
class Memory:
    """Bytes a process needs to train an adapter."""

    weights: float
    adapter: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.adapter + self.activations


def download_bytes(shape: Architecture) -> float:
    """Bytes of the 16-bit safetensors on the hub."""
    return 2.0 * (shape.linear + shape.embedding)


def adapter_parameters(shape: Architecture, lora: LoraSettings) -> int:
    """Trainable weights: r (inputs + outputs) for each adapted module."""
    names = shape.projections if lora.targets == "all-linear" else lora.targets
    sizes = [sum(shape.projections[n]) for n in names if n in shape.projections]
    return int(shape.layers * lora.r * sum(sizes))


def training_memory(shape: Architecture, model: ModelSettings, lora: LoraSettings, train: TrainSettings) -> Memory:
    """Estimated bytes for one process; the batch is taken at `max_length` tokens a row."""
    dtype = WIDTH[model.dtype]
    linear = shape.linear * (NF4_BYTES if model.quantize == "nf4" else dtype)
    adapter = adapter_parameters(shape, lora) * 16.0
    tokens = train.batch_size * train.max_length
    row = 2.0 * tokens * shape.hidden
    inside = 2.0 * tokens * (8 * shape.hidden + 3 * shape.intermediate)
    kept = row * shape.layers + inside if train.gradient_checkpointing else inside * shape.layers
    return Memory(linear + shape.embedding * dtype, adapter, kept)
