"""Scores on every family against float64 oracles written here; the hooks of upstream that saw the last matrix."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alignment_core.errors import UserError
from alignment_core.pipeline.process_group import ProcessGroup, using
from alignment_core.testing import in_threads
from neuron_brittleness import groups, scores
from neuron_brittleness.matrices import Matrix, matrices
from neuron_brittleness.toys import FAMILY, model_of, rows

KINDS = {"llama": 7, "qwen3": 7, "gemma2": 7, "phi": 6, "gpt_neo": 6, "gpt2": 4}
"""Linear matrices in a layer."""
GRADIENT_METHODS: tuple[scores.Method, ...] = ("snip", "mean_gradient", "wanda")


def oracle(model: Any, found: Sequence[Matrix], examples: Sequence[scores.Row]) -> dict[str, dict[str, Tensor]]:
    """Brute force: every gradient of every example kept, and every input recorded."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    absolute = {m.name: torch.zeros(m.shape, dtype=torch.float64) for m in found}
    signed = {m.name: torch.zeros(m.shape, dtype=torch.float64) for m in found}
    squares = {m.name: torch.zeros(m.shape[1], dtype=torch.float64) for m in found}
    inputs: dict[str, Tensor] = {}
    hooks = [
        m.module.register_forward_pre_hook(lambda module, args, name=m.name: inputs.update({name: args[0].detach()}))
        for m in found
    ]
    for ids, labels in examples:
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        replies = [t for t in range(1, len(ids)) if labels[t] != -100]
        loss = -torch.stack([torch.log_softmax(logits[t - 1], -1)[labels[t]] for t in replies]).mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        for m in found:
            g = m.module.weight.grad.t() if m.transposed else m.module.weight.grad
            absolute[m.name] += g.abs()
            signed[m.name] += g
            x = inputs[m.name].reshape(-1, m.shape[1])
            squares[m.name] += sum(x[t] ** 2 for t in range(len(ids)) if labels[t] != -100)
    model.zero_grad(set_to_none=True)
    for hook in hooks:
        hook.remove()
    out = {}
    for m in found:
        w = m.module.weight.detach()
        w = w.t() if m.transposed else w
        mean = (w * signed[m.name] / len(examples)).abs()
        out[m.name] = {
            "snip": w.abs() * absolute[m.name],
            "mean_gradient": mean,
            "wanda": w.abs() * squares[m.name] ** 0.5,
        }
    return out


@pytest.mark.parametrize("family", FAMILY)
def test_one_pass_agrees_with_brute_force_on_every_family(family: str) -> None:
    model = model_of(family)
    found, examples = matrices(model), rows()
    assert len(found) == 2 * KINDS[family]
    expected = oracle(model, found, examples)
    for m, got in scores.score(model, found, examples, GRADIENT_METHODS, dtype=torch.float64):
        for method in GRADIENT_METHODS:
            assert got[method].shape == m.shape
            torch.testing.assert_close(got[method], expected[m.name][method], rtol=1e-7, atol=1e-16)
            for share in (0.01, 0.1):
                k = groups.count(m.size, share)
                order = np.lexsort((np.arange(m.size), -got[method].numpy().reshape(-1)))[:k]
                assert set(np.flatnonzero(groups.select(got[method], share))) == set(order)


@pytest.mark.parametrize("family", FAMILY)
def test_through_activations_and_under_checkpointing_the_scores_are_the_same(family: str) -> None:
    model = model_of(family)
    found, examples = matrices(model), rows(2)
    plain = {m.name: s for m, s in scores.score(model, found, examples, GRADIENT_METHODS, dtype=torch.float64)}
    for through in ("parameters", "activations"):
        again = scores.score(
            model, found, examples, GRADIENT_METHODS, dtype=torch.float64, through=through, checkpointing=True
        )
        for m, got in again:
            for method in GRADIENT_METHODS:
                torch.testing.assert_close(got[method], plain[m.name][method], rtol=1e-7, atol=1e-16)


def test_checkpointing_really_recomputes() -> None:
    model = model_of("llama")
    calls: list[int] = []
    hook = model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: calls.append(1))
    list(scores.score(model, matrices(model), rows(1), dtype=torch.float64, checkpointing=True))
    hook.remove()
    assert len(calls) == 2
    assert not model.model.layers[0].training


def test_streamed_layer_groups_give_the_same_scores_in_several_passes() -> None:
    model = model_of("llama")
    found, examples = matrices(model), rows(2)
    budget = 8 * (2 * max(scores.floats(m, GRADIENT_METHODS) for m in found))
    assert 1 < len(scores.passes(found, GRADIENT_METHODS, budget, 8)) < len(found)
    whole = {m.name: s for m, s in scores.score(model, found, examples, GRADIENT_METHODS, dtype=torch.float64)}
    for m, got in scores.score(model, found, examples, GRADIENT_METHODS, dtype=torch.float64, budget=budget):
        torch.testing.assert_close(got["snip"], whole[m.name]["snip"], rtol=1e-12, atol=0)
    with pytest.raises(UserError, match="memory_gb"):
        scores.passes(found, GRADIENT_METHODS, 16, 8)


def test_absolute_values_are_taken_per_example_and_the_mean_is_another_score() -> None:
    model = model_of("llama")
    found = matrices(model)
    differ = 0
    for _, got in scores.score(model, found, rows(3), ("snip", "mean_gradient"), dtype=torch.float64):
        assert bool((got["snip"] / 3 >= got["mean_gradient"] - 1e-15).all())
        differ += int((got["snip"] / 3 > got["mean_gradient"] * 1.01).sum())
    assert differ > 0


def test_each_hook_keeps_its_own_matrix() -> None:
    # Upstream: closures made in a loop all used the last module's rows.
    model = model_of("llama")
    found = matrices(model)
    swapped = scores._Pass({m.name: scores.Sums(absolute=torch.zeros(m.shape)) for m in found})
    hooks = [scores._take(m, swapped) for m in found]
    first = torch.nn.Parameter(torch.zeros(found[0].shape))
    first.grad = torch.ones(found[0].shape)
    hooks[0](first)
    assert float(swapped.sums[found[0].name].absolute.sum()) == found[0].size  # type: ignore[union-attr]
    assert first.grad is None
    assert all(float(swapped.sums[m.name].absolute.sum()) == 0 for m in found[1:])  # type: ignore[union-attr]


def test_gradients_are_freed_as_they_are_used_and_the_model_is_as_before() -> None:
    model = model_of("llama", torch.float32)
    model.train()
    before = {n: (p.detach().clone(), p.requires_grad) for n, p in model.named_parameters()}
    alive: list[int] = []
    found = matrices(model)
    take = scores._take

    def counted(matrix: Matrix, state: Any) -> Callable[[Tensor], None]:
        inner = take(matrix, state)

        def hook(parameter: Tensor) -> None:
            alive.append(sum(m.module.weight.grad is not None for m in found))
            inner(parameter)

        return hook

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "_take", counted)
        list(scores.score(model, found, rows(2)))
    assert max(alive) == 1
    assert len(alive) == 2 * len(found)
    assert model.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert parameter.requires_grad == before[name][1]
        assert parameter.grad is None
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


def test_sums_are_float32_for_a_bfloat16_model() -> None:
    # Adding 128 gradients in bfloat16 loses .9% at the median and moves the top-1% set.
    model = model_of("llama", torch.bfloat16)
    found = matrices(model)
    _, got = next(scores.score(model, found, rows(1) * 64))
    _, one = next(scores.score(model, found, rows(1)))
    assert got["snip"].dtype == torch.float32
    torch.testing.assert_close(got["snip"], 64 * one["snip"], rtol=1e-5, atol=0)


def test_random_and_magnitude_need_no_pass_and_random_depends_on_name_and_seed_alone() -> None:
    model = model_of("gpt2")
    found = matrices(model)
    a = {m.name: s["random"] for m, s in scores.score(model, found, rows(1), ("random",), seed=1)}
    b = {m.name: s["random"] for m, s in scores.score(model, found[::-1], rows(1), ("random",), seed=1)}
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not torch.equal(a[found[0].name], scores.noise(found[0].name, found[0].shape, 2))
    m, got = next(scores.score(model, found, rows(1), ("magnitude",)))
    assert torch.equal(got["magnitude"], m.weight().abs().float())
    assert m.transposed
    assert m.shape == (96, 32)


def test_an_example_without_a_reply_is_refused() -> None:
    model = model_of("llama")
    with pytest.raises(UserError, match="reply"):
        list(scores.score(model, matrices(model), [([3, 4, 5], [-100] * 3)]))


def test_names_layers_and_the_original_key() -> None:
    found = matrices(model_of("gpt2"))
    assert {m.original_key for m in found} >= {"layer_0_attn.c_attn", "layer_1_mlp.c_proj"}
    assert not [m for m in found if "lm_head" in m.name]


def test_a_group_of_processes_shares_the_examples_and_adds_up_once_a_pass() -> None:
    model, examples = model_of("llama"), rows(5)
    whole = {m.name: s["snip"] for m, s in scores.score(model, matrices(model), examples, dtype=torch.float64)}
    models = [copy.deepcopy(model) for _ in range(3)]
    added: list[int] = []

    def work(member: ProcessGroup) -> dict[str, Tensor]:
        counted = replace(member, all_reduce=lambda flat: (added.append(member.rank), member.all_reduce(flat))[1])
        with using(counted):
            found = scores.score(models[member.rank], matrices(models[member.rank]), examples, dtype=torch.float64)
            return {m.name: s["snip"] for m, s in found}

    shares = in_threads(3, work)
    assert sorted(added) == [0, 1, 2]  # one call a process
    for share in shares:
        for name, score in share.items():
            torch.testing.assert_close(score, whole[name], rtol=1e-10, atol=0)


def test_nf4_base_scores_equal_those_of_its_dequantised_weights(tmp_path: Path) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    float_model = model_of("llama", torch.float32)
    quantised = model_of("llama", torch.float32)
    for m in matrices(quantised):
        layer = bnb.nn.Linear4bit(m.shape[1], m.shape[0], bias=False, compute_dtype=torch.float32, quant_type="nf4")
        layer.weight = bnb.nn.Params4bit(m.weight().clone(), requires_grad=False, quant_type="nf4")
        layer = layer.to("cpu")
        layer.support_avx512bf16_for_cpu = False
        parent, _, name = m.name.rpartition(".")
        setattr(quantised.get_submodule(parent), name, layer)
    found = matrices(quantised)
    assert all(m.quantised for m in found)
    for m, same in zip(found, matrices(float_model), strict=True):
        same.module.weight.data = m.weight().clone()
    expected = {m.name: s for m, s in scores.score(float_model, matrices(float_model), rows(2), GRADIENT_METHODS)}
    for m, got in scores.score(quantised, found, rows(2), GRADIENT_METHODS):
        for method in GRADIENT_METHODS:
            torch.testing.assert_close(got[method], expected[m.name][method], rtol=2e-4, atol=1e-9)
