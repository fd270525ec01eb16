"""The memory of a training, worked out before it: one pass through the model's own modules without their weights.

Weights, adapter, optimiser and loss are arithmetic. What the forward pass keeps for the backward pass is not put into
a formula, since families differ in it: two and four of the model's layers are run with adapter, dropout, precision and
checkpointing as the training has them, on tensors that have shapes and no data (torch's FakeTensorMode), and the bytes
alive at once are counted. A layer more takes what two layers more took, halved.

The loss is TRL's fused output head, which never holds the logits of a batch: its tiles have at most `TILE` tokens and
`WIDE` entries of the vocabulary. In torch it holds 7 copies of a tile in float32 beside the tile and a mask of bytes;
with Triton, on CUDA, the tile alone.
"""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from alignment_core import io
from alignment_core.models import decoder, shape
from alignment_core.models.lora import targets, to_peft
from alignment_core.models.noise import quiet

if TYPE_CHECKING:
    from alignment_core.config import LoraSettings, ModelSettings, TrainSettings

WIDTH = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "auto": 2.0}
"""Bytes a weight by dtype."""
NF4_BYTES = 4.127 / 8
"""Bytes a weight: 4 bits and a double-quantised scale (arXiv 2305.14314, section 3)."""
TILE, WIDE = 4096, 32768
"""Most tokens, and entries of the vocabulary, of a tile of TRL's output head."""
_TORCH_TILE = 4 * 7 + 1
"""Bytes an entry that the head's backward pass in torch holds beside the tile."""
_MOMENTS = {"adamw_torch": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2}
"""Bytes of AdamW's two moments for each trained weight."""


@dataclass(frozen=True)
class Memory:
    """Bytes a process needs to train an adapter."""

    weights: float
    adapter: float
    """Adapter, its frozen copy where the loss has a reference, gradient and moments."""
    activations: float
    """What the forward pass keeps, and what the backward pass holds beside it at its peak, the loss among it."""

    @property
    def total(self) -> float:
        return self.weights + self.adapter + self.activations


def held_bytes(form: shape.Architecture, model: ModelSettings, *, trained: bool = False) -> float:
    """Bytes of the weights as held in memory; for a training, what NF4 leaves is made float32."""
    width = WIDTH[model.dtype]
    if model.quantize == "none":
        return width * form.weights
    return NF4_BYTES * form.linear + (4.0 if trained else width) * (form.embedding + form.others)


def training_memory(
    values: dict[str, Any], model: ModelSettings, lora: LoraSettings, train: TrainSettings, device: str = "cuda"
) -> Memory:
    """Bytes for one process at batches of `max_length` tokens a row; `values` is what config.json says.

    `UserError` where the model cannot be built or has no module for a target.
    """
    return _worked_out(io.canonical(values), model, lora, train, device)


@lru_cache(maxsize=64)
def _worked_out(canonical: str, model: ModelSettings, lora: LoraSettings, train: TrainSettings, device: str) -> Memory:
    values = json.loads(canonical)
    whole = shape.built(canonical)
    form = shape.of(whole)
    names = targets(whole, lora)
    adapter = form.adapter_parameters(lora, names)
    copies = 4 * (train.sequences - 1)  # a pair's reference is the adapter's frozen copy
    rows = train.batch_size * train.sequences
    kept = _layers_peak(values, form.layers, model, lora, train, rows, device)
    return Memory(
        held_bytes(form, model, trained=True), adapter * (4.0 + 4.0 + _MOMENTS[train.optimizer] + copies), kept
    )


def loss_bytes(form: shape.Architecture, tokens: int, width: float, head: float, device: str) -> float:
    """Bytes at the peak of the loss's backward pass; `width` is the activations', `head` the output head's."""
    tile = min(tokens, TILE) * min(form.vocab, WIDE)
    beside = 0.0 if device == "cuda" else tile * _TORCH_TILE
    cast = min(form.vocab, WIDE) * form.hidden * width if head != width else 0.0
    return tile * width + beside + cast + tokens * form.hidden * 4.0


def _layers_peak(
    values: dict[str, Any],
    layers: int,
    model: ModelSettings,
    lora: LoraSettings,
    train: TrainSettings,
    rows: int,
    device: str,
) -> float:
    few = [n for n in (2, 4) if n <= layers] or [layers]
    peaks = [_peak(_short(values, model, n), n, model, lora, train, rows, device) for n in few]
    if len(peaks) == 1:
        return peaks[0] * layers / few[0]
    return peaks[0] + (layers - few[0]) * (peaks[1] - peaks[0]) / (few[1] - few[0])


def _short(values: dict[str, Any], model: ModelSettings, count: int) -> Any:
    """The model of config.json with its first layers alone."""
    short = shape.build(values, model.attention)
    del decoder.layers(short)[1][count:]
    return short


def _peak(
    short: Any, layers: int, model: ModelSettings, lora: LoraSettings, train: TrainSettings, rows: int, device: str
) -> float:
    """Most bytes alive beside the weights, adapter and gradients in a forward and backward pass."""
    import torch
    from peft import get_peft_model
    from torch._subclasses.fake_tensor import FakeTensorMode

    form = shape.of(short)
    dtype = torch.float32 if model.dtype == "float32" else torch.bfloat16
    _cast(short, dtype, model.quantize == "nf4")
    if train.sequences > 1:
        lora = lora.model_copy(update={"dropout": 0.0})  # a preference training goes without
    with quiet(), torch.device("meta"):
        adapted = get_peft_model(short, to_peft(lora, short))
    adapted.train()
    if train.gradient_checkpointing:
        with quiet():
            short.gradient_checkpointing_enable({"use_reentrant": False})
    text, length = short.get_decoder(), train.max_length
    head = short.get_output_embeddings()
    width = float(torch.empty(0, dtype=dtype).element_size())
    head_width = width if head is None else float(head.weight.element_size())
    with FakeTensorMode():
        _to_fake(adapted)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)  # counted with the adapter
        live = _live(adapted)
        with live:
            ids = torch.zeros(rows, length, dtype=torch.long)
            mask = torch.ones(rows, 1, length, length, dtype=torch.bool)
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                hidden = text(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            loss = live.now + loss_bytes(form, rows * length, width, head_width, device)
            hidden.backward(torch.empty_like(hidden))
    unpacked = max(i * o for _, i, o in form.matrices) * 2.0 if model.quantize == "nf4" else 0.0
    return float(max(live.peak, loss)) + unpacked


def _cast(model: Any, dtype: Any, nf4: bool) -> None:
    """The dtypes a training has: of an NF4 model all but the linear matrices is float32."""
    import torch

    matrices = {id(module.weight) for module in decoder.linear(model).values()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(torch.float32 if nf4 and id(parameter) not in matrices else dtype)


def _to_fake(model: Any) -> None:
    """Put tensors of the CPU without data in the place of those of the meta device, shared ones once."""
    import torch

    made: dict[int, Any] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                empty = made.get(id(old))
                if empty is None:
                    data = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                    empty = made[id(old)] = torch.nn.Parameter(data, requires_grad=old.requires_grad)
                module._parameters[name] = empty
        for name, old in module._buffers.items():
            if old is not None:
                module._buffers[name] = torch.empty(old.shape, dtype=old.dtype, device="cpu")


def _live(model: Any) -> Any:
    """A mode that counts the bytes of the tensors alive, the model's own left out: `now`, and the most, `peak`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.now = self.peak = 0
            self.seen: dict[int, Any] = {}
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            self.own = [t.untyped_storage() for t in (*model.parameters(), *model.buffers(), *gradients)]
            self.known = {storage._cdata for storage in self.own}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            tree_map_only(torch.Tensor, self._count, out)
            return out

        def _count(self, tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.known and key not in self.seen:
                self.now += size
                self.peak = max(self.peak, self.now)
                self.seen[key] = weakref.ref(storage, lambda _: self._free(key, size))
            return tensor

        def _free(self, key: int, size: int) -> None:
            self.seen.pop(key, None)
            self.now -= size

    return Live()
