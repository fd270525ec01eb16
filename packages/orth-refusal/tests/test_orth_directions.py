"""Directions read from adapter files: the change and not the start, gauge freedom, names that must match."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alignment_core.errors import UserError
from alignment_core.io import write_json
from orth_refusal import directions
from orth_refusal.directions import Directions
from orth_refusal.flat import check_names

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj")


def fresh(seed: int, out: int = 24, inside: int = 16, r: int = 4) -> Pairs:
    """As PEFT starts an adapter: A random of norm about 1, B zero."""
    noise = torch.Generator().manual_seed(seed)
    return {m: (torch.zeros(out, r), torch.randn(r, inside, generator=noise) / 4) for m in MODULES}


def learned(start: Pairs, seed: int) -> Pairs:
    """What a short training leaves: B small, A a little moved."""
    noise = torch.Generator().manual_seed(seed)
    return {
        m: (0.1 * torch.randn(b.shape, generator=noise), a + 0.05 * torch.randn(a.shape, generator=noise))
        for m, (b, a) in start.items()
    }


def write(folder: Path, pairs: Pairs, alpha: float = 8.0) -> Path:
    folder.mkdir(parents=True)
    r = next(iter(pairs.values()))[1].shape[0]
    tensors = {}
    for module, (b, a) in pairs.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.contiguous()
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": r, "lora_alpha": alpha})
    return folder


def projector(direction: Directions, module: str) -> torch.Tensor:
    u = direction.tensors[f"{module}.U"]
    return u @ u.mT


def dense(direction: Directions, module: str) -> torch.Tensor:
    return direction.tensors[f"{module}.lora_B"] @ direction.tensors[f"{module}.lora_A"]


def test_other_factors_of_the_same_adapter_change_nothing_in_delta_and_something_in_factor_space(
    tmp_path: Path,
) -> None:
    # Upstream: (BQᵀ)(QA) is the same ΔW, yet the direction of lora_A turned to cosine -.22.
    start = fresh(0)
    pairs = learned(start, 1)
    g = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)))[0] @ torch.diag(
        torch.tensor([1.0, 2.0, 0.5, 1.5])
    )
    other = {m: (b @ g, torch.linalg.solve(g, a)) for m, (b, a) in pairs.items()}
    ours = directions.read_adapter(write(tmp_path / "a", pairs))
    theirs = directions.read_adapter(write(tmp_path / "b", other))
    for module in MODULES:
        torch.testing.assert_close(
            dense(directions.delta(ours, start), module), dense(directions.delta(theirs, start), module),
            rtol=1e-5, atol=1e-6,
        )  # fmt: skip
        torch.testing.assert_close(
            projector(directions.left(ours, 2, start), module), projector(directions.left(theirs, 2, start), module),
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip
        u, w = (directions.factor(x, start).tensors[f"{module}.lora_A"] for x in (ours, theirs))
        assert abs(float((u * w).sum())) < 0.9


def test_the_value_of_lora_a_is_mostly_its_random_start_and_its_change_is_not(tmp_path: Path) -> None:
    # Upstream: "base has zero LoRA params", so the direction of lora_A was its random start.
    start = fresh(0)
    now = directions.read_adapter(write(tmp_path / "a", learned(start, 1)))
    raw, change = directions.factor(now, None), directions.factor(now, start)
    for module in MODULES:
        first = start[module][1] / start[module][1].norm()
        assert abs(float((raw.tensors[f"{module}.lora_A"] * first).sum())) > 0.9
        assert abs(float((change.tensors[f"{module}.lora_A"] * first).sum())) < 0.5
        assert float(change.tensors[f"{module}.lora_A"].norm()) == pytest.approx(1, abs=1e-5)


def test_blue_minus_red_of_two_files_is_not_zero_and_of_one_file_is_an_error(tmp_path: Path) -> None:
    # Upstream: both adapters were loaded on one base object, the second over the first, so the delta was exactly 0.
    start = fresh(0)
    blue = directions.read_adapter(write(tmp_path / "blue", learned(start, 1)))
    red = directions.read_adapter(write(tmp_path / "red", learned(start, 2)))
    found = directions.contrast(blue, red)
    for module in MODULES:
        want = blue.factors[module][0] - red.factors[module][0]
        torch.testing.assert_close(found.tensors[f"{module}.lora_B"], want / want.norm())
    with pytest.raises(UserError, match="the same weights"):
        directions.contrast(blue, blue)


def test_delta_is_the_normalised_change_and_left_holds_its_energy(tmp_path: Path) -> None:
    start = fresh(0)
    pairs = learned(start, 1)
    now = directions.read_adapter(write(tmp_path / "a", pairs))
    module = MODULES[0]
    full = 2.0 * pairs[module][0].double() @ pairs[module][1].double()  # alpha / r = 8 / 4
    torch.testing.assert_close(dense(directions.delta(now, start), module), (full / full.norm()).float())
    kept = total = 0.0
    for b, a in pairs.values():
        values = torch.linalg.svdvals(2.0 * b.double() @ a.double())
        kept, total = kept + float(values[:2].square().sum()), total + float(values.square().sum())
    found = directions.left(now, 2, start)
    assert float(found.about["energy"]) == pytest.approx(kept / total, abs=1e-4)
    assert directions.removed_share(found) == pytest.approx(2 / 24)
    with pytest.raises(UserError, match=r"direction\.rank=5"):
        directions.left(now, 5, start)


def test_a_start_that_already_changed_the_model_is_taken_off(tmp_path: Path) -> None:
    first = learned(fresh(0), 1)
    second = learned(first, 2)
    now = directions.read_adapter(write(tmp_path / "a", second))
    module = MODULES[1]
    change = second[module][0].double() @ second[module][1].double() - (
        first[module][0].double() @ first[module][1].double()
    )
    torch.testing.assert_close(dense(directions.delta(now, first), module), (change / change.norm()).float())


def test_a_file_of_directions_keeps_the_adapters_identity(tmp_path: Path) -> None:
    start = fresh(0)
    folder = write(tmp_path / "a", learned(start, 1))
    direction = directions.left(directions.read_adapter(folder), 2, start)
    direction.save(tmp_path / "left.safetensors")
    back = Directions.load(tmp_path / "left.safetensors")
    assert back.about == direction.about
    assert back.about["adapter"] == directions.read_adapter(folder).identity
    assert back.modules == sorted(MODULES)
    with pytest.raises(UserError, match="not a file of directions"):
        Directions.load(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("space", ["factor", "delta", "left"])
def test_a_random_direction_has_the_shapes_and_unit_size(tmp_path: Path, space: str) -> None:
    start = fresh(0)
    now = directions.read_adapter(write(tmp_path / "a", learned(start, 1)))
    made = {"factor": directions.factor(now, start), "delta": directions.delta(now), "left": directions.left(now, 2)}
    random, again = directions.random_like(made[space], 7), directions.random_like(made[space], 7)
    assert {k: v.shape for k, v in random.tensors.items()} == {k: v.shape for k, v in made[space].tensors.items()}
    assert all(torch.equal(random.tensors[k], again.tensors[k]) for k in random.tensors)
    for module in MODULES:
        if space == "left":
            u = random.tensors[f"{module}.U"]
            torch.testing.assert_close(u.mT @ u, torch.eye(2, dtype=u.dtype))
        elif space == "delta":
            assert float(dense(random, module).norm()) == pytest.approx(1, rel=1e-4)
        else:
            assert float(random.tensors[f"{module}.lora_B"].norm()) == pytest.approx(1, rel=1e-5)


def test_a_name_that_matches_nothing_is_an_error_on_either_side() -> None:
    # Upstream: a warning, and a projection that protected nothing.
    with pytest.raises(UserError, match=r"'model\.q_prj'.*did you mean 'model\.q_proj'"):
        check_names({"model.q_prj": 1}, {"model.q_proj"})
    with pytest.raises(UserError, match=r"says nothing of 'model\.v_proj'"):
        check_names({"model.q_proj": 1}, {"model.q_proj", "model.v_proj"})
    check_names({"a": 1}, {"a"})


def test_the_same_directions_are_the_same_bytes(tmp_path: Path) -> None:
    about = {f"key{i}": str(i) for i in range(6)}
    found = Directions("left", {"m.U": torch.eye(3)}, about)
    for i in range(8):
        found.save(tmp_path / f"{i}.safetensors")
    assert len({(tmp_path / f"{i}.safetensors").read_bytes() for i in range(8)}) == 1
    assert Directions.load(tmp_path / "0.safetensors").about == about
