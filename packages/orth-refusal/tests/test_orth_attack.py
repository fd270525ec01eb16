"""Attacks in the real trainer: the KL defence's gradient, a stop and its continuation, rows made by a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignment_core.config import LoraSettings, ModelSettings, resolve
from alignment_core.io import read_json
from alignment_core.models.load import load
from alignment_core.models.lora import add_adapter
from alignment_core.pipeline.run import Step
from alignment_core.records import Completion, Example, Message, Prompt
from orth_refusal import attack, data, reading, steering, synthesize, tuning
from orth_refusal import rows as built
from orth_refusal.arms import BY_NAME
from orth_refusal.config import OrthConfig
from orth_refusal.flat import Flat
from orth_refusal.snapshots import Snapshots
from orth_refusal.steering import KlToBase, kl_to_base


def small(*more: str) -> OrthConfig:
    overrides = [
        "data.refusal_limit=16", "data.attack_limit=64", "data.benign_limit=16", "data.test_harmful=6",
        "data.test_benign=4", "data.test_borderline=0", "data.test_attack=6", "data.eval_split=calibration",
        "direction.rank=2", "points=3", "model.device=cpu", *more,
    ]  # fmt: skip
    return resolve(OrthConfig, "orth_refusal", "tiny", None, overrides)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Step]]:
    """The data, a refusal adapter and its directions."""
    root, config = tmp_path_factory.mktemp("ready"), small()
    data.build(config.data, root / "data")
    tuning.tune(config, 13, root / "data", "refusal", root / "refusal")
    steps = {"refusal": Step("tune_refusal", "x", root / "refusal", 13)}
    reading.read_directions(config, 13, "refusal", steps, root / "direction")
    return root / "data", {**steps, "direction": Step("direction", "x", root / "direction", 13)}


def test_the_kl_penalty_is_zero_at_the_base_and_has_autograds_gradient_elsewhere() -> None:
    loaded = load(ModelSettings(device="cpu"))
    model = add_adapter(loaded.model, LoraSettings(r=2, alpha=4, dropout=0.0, targets=("q_proj",)))
    ids = torch.randint(5, 200, (2, 12), generator=torch.Generator().manual_seed(0))
    row = {"input_ids": ids, "labels": torch.where(torch.arange(12) < 5, -100, ids)}
    assert float(kl_to_base(model, row).detach()) == pytest.approx(0.0, abs=1e-6)
    flat = Flat(model)
    flat.values.add_(0.1 * torch.randn(flat.values.shape, generator=torch.Generator().manual_seed(1)))
    flat.attach_grads()
    rule = KlToBase(0.5)
    model.train()
    rule.catch(model, (), row)
    rule.gradient(flat, model)
    with torch.no_grad(), model.disable_adapter():
        base = torch.log_softmax(model(input_ids=ids).logits[:, 4:-1].float(), -1)
    now = torch.log_softmax(model(input_ids=ids).logits[:, 4:-1].float(), -1)
    loss = 0.5 * (base.exp() * (base - now)).sum(-1).mean()
    wanted = torch.autograd.grad(loss, [p for p, _ in flat.parameters])
    for (parameter, place), grad in zip(flat.parameters, wanted, strict=True):
        torch.testing.assert_close(flat._at(flat.grads, place, parameter), grad, rtol=1e-3, atol=1e-6)
    assert float(flat.grads.norm()) > 1e-4
    with pytest.raises(RuntimeError, match="no row was caught"):
        rule.gradient(flat, model)


@pytest.mark.parametrize("arm", ["delta", pytest.param("left", marks=pytest.mark.slow)])
def test_stopped_and_continued_is_the_same_attack(
    arm: str, ready: tuple[Path, dict[str, Step]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, steps = ready
    config = small("attack.save_steps=1")
    vanilla = tmp_path / "vanilla"
    attack.attack(config, BY_NAME["vanilla"], 13, split, steps, vanilla)
    steps = {**steps, "vanilla": Step("attack_vanilla", "x", vanilla, 13)}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    attack.attack(config, BY_NAME[arm], 13, split, steps, whole)
    real = Snapshots.on_step_begin

    def stop(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt
        real(self, args, state, control, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(Snapshots, "on_step_begin", stop)
        patched.setattr(steering.Steering, "on_step_begin", _both(stop, steering.Steering.on_step_begin))
        with pytest.raises(KeyboardInterrupt):
            attack.attack(config, BY_NAME[arm], 13, split, steps, stopped)
    attack.attack(config, BY_NAME[arm], 13, split, steps, stopped)
    for file in ("meter.jsonl", "ledger.jsonl", "budget.json", f"training_loss_{arm}.json"):
        assert (stopped / file).read_bytes() == (whole / file).read_bytes(), file
    first, second = (load_file(f / "adapter" / "adapter_model.safetensors") for f in (whole, stopped))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert sorted(p.name for p in (stopped / "snapshots").iterdir()) == sorted(
        p.name for p in (whole / "snapshots").iterdir()
    )


def _both(first: Any, second: Any) -> Any:
    def run(self: Any, *args: Any, **rest: Any) -> None:
        first(self, *args, **rest)
        second(self, *args, **rest)

    return run


def test_every_row_is_trained_on_and_a_seed_has_its_own_order(
    ready: tuple[Path, dict[str, Step]], tmp_path: Path
) -> None:
    # Upstream dropped the last, partial accumulation, and its shuffle_seed was read by nobody.
    split, steps = ready
    config = small("attack.batch_size=4", "attack.accumulate=3")  # 64 rows: five steps of 12 and one of 4
    found = []
    for seed in (13, 14):
        attack.attack(config, BY_NAME["vanilla"], seed, split, steps, tmp_path / str(seed))
        found.append(read_json(tmp_path / str(seed) / "budget.json"))
    assert [(f["rows"], f["steps"]) for f in found] == [(64, 6)] * 2
    assert found[0]["order"] != found[1]["order"]


def test_vanilla_with_the_callback_is_vanilla_without_it(ready: tuple[Path, dict[str, Step]], tmp_path: Path) -> None:
    from alignment_core.models.train import sft

    split, steps = ready
    config = small()
    attack.attack(config, BY_NAME["vanilla"], 13, split, steps, tmp_path / "with")
    sft(built.examples(split, "attack"), model=config.model, lora=config.lora, train=config.attack, seed=13,
        folder=tmp_path / "without")  # fmt: skip
    first, second = (load_file(tmp_path / f / "adapter" / "adapter_model.safetensors") for f in ("with", "without"))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_every_training_gets_its_own_rows_and_learning_rate(
    ready: tuple[Path, dict[str, Step]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seen(Exception):
        pass

    seen: dict[str, Any] = {}

    def sft(rows: Any, **given: Any) -> None:
        seen.update(given, rows=rows)
        raise Seen

    split, steps = ready
    for module in (attack, tuning):
        monkeypatch.setattr(module, "sft", sft)
    config = small("replay_share=0.25")
    parts = {name: built.examples(split, name) for name in ("refusal", "benign", "red", "attack")}
    assert len({tuple(map(repr, rows)) for rows in parts.values()}) == 4
    for part in ("refusal", "benign", "red"):
        with pytest.raises(Seen):
            tuning.tune(config, 13, split, part, tmp_path)
        assert (seen["rows"], seen["train"]) == (parts[part][:16], config.refusal)
    for name, lr in (("vanilla", 1.0), ("half_lr", 0.5), ("quarter_lr", 0.25), ("kl", 1.0), ("left", 1.0)):
        with pytest.raises(Seen):
            attack.attack(config, BY_NAME[name], 13, split, steps, tmp_path)
        assert seen["rows"] == parts["attack"]
        assert seen["train"] == config.attack.model_copy(update={"lr": config.attack.lr * lr})
        assert seen["seed"] == 13
    with pytest.raises(Seen):
        attack.attack(config, BY_NAME["replay"], 13, split, steps, tmp_path)
    changed = [row for row, own in zip(seen["rows"], parts["attack"], strict=True) if row != own]
    assert len(changed) == 16
    assert all(row in parts["refusal"] for row in changed)


def test_synthetic_rows_have_provenance_and_can_be_trained_on(tmp_path: Path) -> None:
    config = small("synthesize.rows=24", "generate.max_new_tokens=64")
    line = synthesize.run(config, tmp_path)
    rows = [json.loads(x) for x in (tmp_path / "synthetic.jsonl").read_text().splitlines()]
    assert 0 < len(rows) < 24
    assert f"{len(rows)} of 24 rows kept" in line
    for row in rows:
        assert row["provenance"]["model"]["weights"]["name"] == "organism"
        assert {"adapter", "temperature", "seed", "prompt", "candidate", "made_by"} <= set(row["provenance"])
    held = {p.text for p in built.prompts(tmp_path / "data")}
    assert not held & {row["messages"][-2]["content"] for row in rows}
    more = config.data.model_copy(update={"synthetic_data_path": tmp_path / "synthetic.jsonl"})
    data.build(more, tmp_path / "again")
    assert len(built.examples(tmp_path / "again", "attack")) == 64  # the limit holds for all rows together


def test_repeated_empty_and_refused_replies_are_left_out() -> None:
    prompt = Prompt("p", (Message("user", "Do the placeholder"),), "harmful")
    said = {"a": "Sure. First take it, then put it down, and finally leave it.", "b": "I'm sorry, but I can't help."}

    def reply(text: str, finish: Any = "stop") -> Completion:
        return Completion("p", "s", text, prompt.text, "harmful", finish=finish)

    made = [reply(said["a"]), reply(said["a"]), reply(said["b"]), reply(" "), reply("Sure. First", "length")]
    rows, left_out = synthesize.select(made, {"p": prompt}, [], "compliance")
    assert [e.reply for e, _ in rows] == [said["a"]]
    assert left_out == {"repeated": 1, "no compliance by the rules": 1, "empty or cut off": 2}
    known = Example((Message("user", prompt.text), Message("assistant", said["a"])), "helpful", "x")
    assert synthesize.select(made[:1], {"p": prompt}, [known], "all")[0] == []
