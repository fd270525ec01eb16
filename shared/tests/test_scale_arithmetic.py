"""Times on paper: the FLOPs against torch's own count of a real model, bytes and times worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from alignment_core.config import LoraSettings, ModelSettings
from alignment_core.models import scale
from alignment_core.models.catalogue import CATALOGUE
from alignment_core.models.memory import held_bytes
from alignment_core.models.shape import Architecture, build, of

LLAMA_8B, LLAMA_70B = (of(build(CATALOGUE[f"meta-llama/Llama-3.1-{size}-Instruct"].config)) for size in ("8B", "70B"))
BF16 = ModelSettings(name="x/y", dtype="bfloat16")
NF4 = BF16.model_copy(update={"quantize": "nf4"})
INSIDE = 160
_LAYER = (("q_proj", 64, 64), ("k_proj", 64, 32), ("v_proj", 64, 32), ("o_proj", 64, 64))
_LAYER += (("gate_proj", 64, INSIDE), ("up_proj", 64, INSIDE), ("down_proj", INSIDE, 64))
TOY = Architecture(3, 64, 4, 2, 16, 128, tied=False, matrices=3 * _LAYER)
LORA = LoraSettings(r=4, dropout=0.0)


def test_weights_are_those_of_the_published_models() -> None:
    # 32 x (2 x 4096^2 + 2 x 4096 x 1024 + 3 x 4096 x 14336) = 6,979,321,856; and 2 x 128256 x 4096 of embeddings
    assert LLAMA_8B.linear == 6_979_321_856
    assert LLAMA_8B.weights == 8_030_261_248
    assert LLAMA_70B.weights == pytest.approx(70.55e9, rel=1e-3)


def test_the_cache_of_a_token() -> None:
    assert scale.kv_bytes(LLAMA_8B) == 2 * 32 * 8 * 128 * 2 == 131_072
    assert scale.kv_bytes(LLAMA_70B) == 2 * 80 * 8 * 128 * 2 == 327_680


def _counted(lora: bool, checkpointing: bool, tokens: int) -> int:
    """FLOPs of a forward and backward pass by torch's counter, attention left out (it counts the whole square)."""
    torch = pytest.importorskip("torch")
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=TOY.vocab,
        hidden_size=TOY.hidden,
        intermediate_size=INSIDE,
        num_hidden_layers=TOY.layers,
        num_attention_heads=TOY.heads,
        num_key_value_heads=TOY.kv_heads,
        head_dim=TOY.head_dim,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    model: Any = LlamaForCausalLM(config)
    if lora:
        model = get_peft_model(model, LoraConfig(r=LORA.r, lora_alpha=8, target_modules=list(LORA.targets)))
        model.enable_input_require_grads()
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(0, TOY.vocab, (1, tokens))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    by_kernel = counter.get_flop_counts()["Global"]
    return sum(int(v) for kernel, v in by_kernel.items() if "attention" not in str(kernel))


@pytest.mark.parametrize(
    ("lora", "checkpointing", "weight_passes"),
    [(False, False, 6), (False, True, 8), (True, False, 4), (True, True, 6)],
)
@pytest.mark.filterwarnings("ignore")
def test_flops_are_those_that_torch_counts(lora: bool, checkpointing: bool, weight_passes: int) -> None:
    tokens = 24
    counted = _counted(lora, checkpointing, tokens)
    said = scale.training_flops(TOY, tokens, 0, LORA if lora else None, checkpointing)
    if checkpointing and not lora:
        # torch stops recomputing a layer before its last product, whose result nothing needs.
        said -= 2 * tokens * TOY.layers * TOY.hidden * INSIDE
    assert counted == pytest.approx(said, rel=0.02)
    # And in the words of the docs: 6N, 8N with recomputing, 4N and 6N for frozen weights, the adapter beside it.
    assert counted / tokens / (TOY.linear + scale.head(TOY)) == pytest.approx(weight_passes, rel=0.35)


def test_attention_of_a_causal_row_is_half_the_square() -> None:
    # 4 heads x 16, 3 layers, 10 tokens of a row of 10: 4 x 3 x 64 x 10 / 2 for each token
    base = scale.forward_flops(TOY, 10, 0)
    assert scale.forward_flops(TOY, 10, 10) - base == 10 * 4 * 3 * 64 * 5


def test_nf4_moves_more_and_holds_less() -> None:
    rest = LLAMA_8B.embedding + LLAMA_8B.others
    assert held_bytes(LLAMA_8B, BF16) == 2 * LLAMA_8B.weights
    assert held_bytes(LLAMA_8B, NF4) == pytest.approx(LLAMA_8B.linear * 0.515875 + 2 * rest)
    # A training makes what NF4 leaves float32: embedding and head are 1.05e9 weights, 2.1 GB more.
    assert held_bytes(LLAMA_8B, NF4, trained=True) - held_bytes(LLAMA_8B, NF4) == pytest.approx(2.1e9, rel=0.01)
    assert scale.pass_bytes(LLAMA_8B, BF16) == 2 * (LLAMA_8B.linear + 128256 * 4096)
    assert scale.pass_bytes(LLAMA_8B, NF4) == pytest.approx(LLAMA_8B.linear * 4.515875 + 2 * 128256 * 4096)


def test_the_longest_of_three_limits_binds() -> None:
    device = scale.Device("d", flops=100.0, bandwidth=10.0, memory=1.0)
    machine = scale.Machine(device, scale.Assumed(flops_share=0.5, bytes_share=0.5, launch=1.0))
    assert machine.seconds(flops=500, moved=5) == 10
    assert machine.seconds(flops=50, moved=20) == 4
    assert machine.seconds(flops=50, moved=5, launches=7) == 7


def test_a_reply_reads_the_weights_once_a_token() -> None:
    device = scale.Device("d", flops=1e30, bandwidth=1e9, memory=1.0)
    machine = scale.Machine(device, scale.Assumed(1.0, 1.0, 0.0))
    weights, cache = scale.pass_bytes(TOY, BF16), scale.kv_bytes(TOY)
    # one pass over the prompts, then 6 steps: the weights and two rows of 10 + 3 tokens on the mean
    expected = (weights + 6 * (weights + 2 * 13 * cache)) / 1e9
    assert scale.reply_seconds(machine, TOY, BF16, 2, 10, 6) == pytest.approx(expected)


def test_snip_adds_sixteen_bytes_a_weight_to_the_passes() -> None:
    device = scale.Device("d", flops=1e30, bandwidth=1e9, memory=1.0)
    machine = scale.Machine(device, scale.Assumed(1.0, 1.0, 0.0))
    expected = (2 * scale.pass_bytes(TOY, BF16) + 16 * TOY.linear) / 1e9
    assert scale.snip_seconds(machine, TOY, BF16, 8, False) == pytest.approx(expected)


def test_loading_reads_the_sixteen_bit_file() -> None:
    machine = scale.Machine(scale.DEVICES[0], scale.Assumed(disk=1e9))
    assert scale.load_seconds(machine, LLAMA_8B) == pytest.approx(16.06, rel=1e-3)
