"""Time and memory of a study on a given device, worked out on paper: FLOPs, bytes, and which of the two binds.

For one token and N weights in matrix products: a forward pass is 2N FLOPs, the gradient of the activations 2N, the
gradient of the weights 2N (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). Full fine-tuning is 6N; LoRA needs no
gradient of the frozen weights and is 4N, plus 6 for each weight of the adapter; checkpointing runs the layers' forward
pass again, 2N more. Attention adds 4·heads·head_dim·length/2 for each token and layer (causal), and twice that
backward. Decoding writes one token a row and step: its bytes are the weights once a step and the cache of every row.

A kernel takes the longer of its FLOPs and its bytes at the *shares* of the peaks that it is taken to reach, and a
layer no less than what it costs to launch. Nothing here was measured: peaks are the makers' figures, the shares, the
launch cost and the speed of the disk are assumptions, given by name so that measured ones can stand in their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignment_core.models.memory import NF4_BYTES, WIDTH

if TYPE_CHECKING:
    from alignment_core.config import LoraSettings, ModelSettings
    from alignment_core.models.shape import Architecture


@dataclass(frozen=True)
class Device:
    """A GPU's peaks by its maker: dense bfloat16 FLOP/s, bytes/s of its memory, bytes."""

    name: str
    flops: float
    bandwidth: float
    memory: float


DEVICES = (
    Device("RTX 4090", 165e12, 1.01e12, 24e9),
    Device("A100 80 GB", 312e12, 2.04e12, 80e9),
    Device("H100 80 GB", 989e12, 3.35e12, 80e9),
    Device("H200 141 GB", 989e12, 4.8e12, 141e9),
)


@dataclass(frozen=True)
class Assumed:
    """What a measurement would replace."""

    flops_share: float = 0.4
    """Share of the peak FLOP/s that large matrix products reach (model FLOPs utilisation)."""
    bytes_share: float = 0.6
    """Share of the peak bytes/s that reading weights and caches reaches."""
    launch: float = 8e-4
    """Least seconds of a layer's pass, adapters beside its matrices, kernels launched one by one from Python."""
    disk: float = 2e9
    """Bytes/s at which weights are read when a step loads the model."""


@dataclass(frozen=True)
class Machine:
    """A device and what is assumed of it."""

    device: Device
    assumed: Assumed = Assumed()

    def seconds(self, flops: float, moved: float, launches: float = 0.0) -> float:
        """Time of work of so many FLOPs and bytes in `launches` layer passes."""
        at_flops = flops / (self.device.flops * self.assumed.flops_share)
        at_bytes = moved / (self.device.bandwidth * self.assumed.bytes_share)
        return max(at_flops, at_bytes, launches * self.assumed.launch)


def kv_bytes(shape: Architecture) -> int:
    """Bytes of one token's keys and values in all layers, in 16 bits."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * 2


def head(shape: Architecture) -> int:
    """Weights of the output head: the embedding again where it is tied, so in every product but stored once."""
    return shape.vocab * shape.hidden


def forward_flops(shape: Architecture, tokens: float, length: float) -> float:
    """Of `tokens` tokens in rows of `length`, causal attention counted as its lower half."""
    attention = 4 * shape.layers * shape.heads * shape.head_dim * length / 2
    return tokens * (2 * (shape.linear + head(shape)) + attention)


def training_flops(
    shape: Architecture, tokens: float, length: float, lora: LoraSettings | None, checkpointing: bool
) -> float:
    """Of forward and backward over `tokens` tokens; `lora` None: every weight is trained."""
    forward = forward_flops(shape, tokens, length)
    again = forward - 2 * tokens * head(shape) if checkpointing else 0.0
    trained = shape.linear + head(shape)
    extra = 2.0 * tokens * trained
    if lora is not None:
        extra = tokens * shape.adapter_parameters(lora) * (8 if checkpointing else 6)
    return 2 * forward + again + extra


def pass_bytes(shape: Architecture, model: ModelSettings) -> float:
    """Bytes that one pass over all matrices moves. NF4 weights are read, written out in 16 bits, and read again
    before each product (no fused kernel is taken for granted)."""
    width = NF4_BYTES + 2 + 2 if model.quantize == "nf4" else WIDTH[model.dtype]
    return shape.linear * width + head(shape) * WIDTH[model.dtype]


def reply_seconds(
    machine: Machine, shape: Architecture, model: ModelSettings, rows: int, prompt: int, new: int
) -> float:
    """A batch of `rows` replies of `new` tokens to prompts of `prompt` tokens, none of which stops early."""
    weights = pass_bytes(shape, model)
    first = machine.seconds(forward_flops(shape, rows * prompt, prompt), weights, shape.layers)
    cache = rows * (prompt + new / 2) * kv_bytes(shape)
    step = machine.seconds(forward_flops(shape, rows, 2 * (prompt + new / 2)), weights + cache, shape.layers)
    return first + new * step


def train_step_seconds(
    machine: Machine,
    shape: Architecture,
    model: ModelSettings,
    lora: LoraSettings,
    rows: int,
    length: int,
    checkpointing: bool,
) -> float:
    """One forward and backward pass of a micro-batch of `rows` rows of `length` tokens."""
    over = 3 if checkpointing else 2
    flops = training_flops(shape, rows * length, length, lora, checkpointing)
    # Unpacking 4-bit weights is work of its own before each product, not hidden behind it.
    unpack = over * (pass_bytes(shape, model) if model.quantize == "nf4" else 0.0)
    return machine.seconds(flops, over * pass_bytes(shape, model), (over + 1) * shape.layers) + machine.seconds(
        0.0, unpack
    )


def snip_seconds(
    machine: Machine, shape: Architecture, model: ModelSettings, length: int, checkpointing: bool
) -> float:
    """One example's gradient of every matrix, its absolute value added to float32 sums.

    Bytes of a weight beside the product: the gradient written and read, its absolute value written and read (16 bits
    each), the sum read and written (float32): 16.
    """
    flops = training_flops(shape, length, length, None, checkpointing)
    over = 3 if checkpointing else 2
    moved = over * pass_bytes(shape, model) + 16.0 * shape.linear
    return machine.seconds(flops, moved, (over + 1) * shape.layers)


def load_seconds(machine: Machine, shape: Architecture) -> float:
    """Reading the 16-bit weights from disk."""
    return 2.0 * shape.weights / machine.assumed.disk
