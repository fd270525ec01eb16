"""DPO: the reference is stage B, a wrong one is caught, nothing is left out in silence, resume is bit for bit."""

from __future__ import annotations

import logging
import math

import pytest

from alignment_core.config import LoraSettings, ModelSettings, TrainSettings
from alignment_core.errors import UserError
from alignment_core.models import load, loop, lora, miniature, train
from alignment_core.records import Example, Message, PreferencePair
from drift_dpo import dpo
from drift_dpo.config import DpoSettings

LORA = LoraSettings(r=2, alpha=4, dropout=0.1, targets="all-linear")
SFT = TrainSettings(batch_size=4, accumulate=1, max_length=128, lr=1e-2, warmup_ratio=0.0)
DPO = DpoSettings(
    batch_size=4, accumulate=2, max_length=128, lr=1e-2, beta=0.5, logging_steps=1, save_steps=2, warmup_ratio=0.0
)


def pair(prompt, chosen, rejected):
    question = Message("user", prompt)
    return PreferencePair((question, Message("assistant", chosen)), (question, Message("assistant", rejected)), "t")


def pairs(count=32):
    return [pair(f"question {i}", f"no {i % 5}", f"sure {'!' * (i % 7)}") for i in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = miniature.build(tmp_path_factory.mktemp("models") / "mini", hidden=16, layers=1)
    return ModelSettings(name=str(folder), device="cpu")


@pytest.fixture(scope="module")
def stage_b(model, tmp_path_factory):
    data = [
        Example((Message("user", f"question {i}"), Message("assistant", f"fine {i % 3}")), "helpful", "t")
        for i in range(16)
    ]
    folder = tmp_path_factory.mktemp("stages") / "b"
    train.sft(data, model=model, lora=LORA, train=SFT, seed=1, folder=folder)
    return folder / "adapter"


def run(model, stage_b, folder, *, settings=DPO, data=None, **more):
    return dpo.dpo(
        data or pairs(), model=model, lora=LORA, train=settings, seed=3, folder=folder, start=stage_b, **more
    )


def made(folder):
    files = ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "train_log.jsonl", "train_report.json"]
    return {name: (folder / name).read_bytes() for name in files}


class Killed(Exception):
    """Stands for SIGKILL between two steps."""


def callback(**methods):
    from transformers import TrainerCallback

    return type("Given", (TrainerCallback,), methods)()


def kill_at(step):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == step:
            raise Killed

    return callback(on_step_end=on_step_end)


@pytest.fixture(scope="module")
def unbroken(model, stage_b, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    return folder, run(model, stage_b, folder, validation=pairs(4))


def test_the_first_step_says_that_the_reference_is_stage_b(unbroken):
    folder, report = unbroken
    assert report.first_loss == pytest.approx(math.log(2), abs=1e-6)
    assert report.first_margin == 0.0
    assert report.steps == 4  # 32 pairs, 4 to a batch, 2 batches to a step
    assert report.margins[-1][1] > 0
    assert report.eval_loss is not None
    assert report.mask.text == "no 0<|end|>"
    assert sorted(f.name for f in (folder / "adapter").iterdir()) == [  # the reference is not saved
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_loss_is_the_formula_on_stage_b(model, stage_b, tmp_path):
    """Second step's loss by hand: policy after one update against stage B, both loaded anew."""
    import torch

    settings = DPO.model_copy(update={"accumulate": 1, "batch_size": 8, "save_steps": None, "scheduler": "constant"})
    data = pairs(8)
    one = run(model, stage_b, tmp_path / "one", data=data, settings=settings.model_copy(update={"max_steps": 1}))
    two = run(model, stage_b, tmp_path / "two", data=data, settings=settings.model_copy(update={"max_steps": 2}))

    def logp(loaded, messages):
        prompt = f"<|begin|>user: {messages[0].content}\nassistant: "
        tokens = [
            loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (prompt, prompt + messages[1].content + "<|end|>")
        ]
        start, ids = len(tokens[0]), tokens[1]
        with torch.no_grad():
            scores = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(scores[i - 1, ids[i]]) for i in range(start, len(ids)))

    policy = load.load(model, adapter=tmp_path / "one" / "adapter")
    reference = load.load(model, adapter=stage_b)
    losses = []
    for p in data:
        ratios = [logp(policy, side) - logp(reference, side) for side in (p.chosen, p.rejected)]
        losses.append(-math.log(1 / (1 + math.exp(-settings.beta * (ratios[0] - ratios[1])))))
    assert one.losses[0] == two.losses[0]
    assert two.losses[1][1] == pytest.approx(sum(losses) / 8, rel=1e-4)


def test_the_base_as_reference_would_be_caught(model, stage_b, tmp_path):
    # what disabling the adapter does in some versions: the reference becomes the base, B = 0
    def on_train_begin(self, args, state, control, model, **_):
        for name, weight in model.named_parameters():
            if "lora_B.ref." in name:
                weight.data.zero_()

    with pytest.raises(RuntimeError, match="the DPO reference is not stage B: before the first update the loss is"):
        run(model, stage_b, tmp_path, callbacks=[callback(on_train_begin=on_train_begin)])


def test_a_reference_that_differs_is_caught_before_training(model, stage_b, tmp_path, monkeypatch):
    real = dpo._trainer

    def other(*args):
        trainer = real(*args)
        weight = next(w for n, w in trainer.model.named_parameters() if "lora_B.ref." in n)
        weight.data[0, 0] += 1e-3
        return trainer

    monkeypatch.setattr(dpo, "_trainer", other)
    with pytest.raises(RuntimeError, match="differs from its frozen copy"):
        run(model, stage_b, tmp_path)


def test_a_policy_without_a_default_adapter_is_caught(model):
    with pytest.raises(RuntimeError, match="no adapter named 'default'"):
        dpo.check_reference(load.load(model).model)


@pytest.mark.parametrize("damaged", [False, True])
def test_killed_and_continued_equals_unbroken(model, stage_b, unbroken, tmp_path, damaged):
    with pytest.raises(Killed):
        run(model, stage_b, tmp_path, validation=pairs(4), callbacks=[kill_at(3)])
    if damaged:
        (tmp_path / "checkpoints" / "checkpoint-2" / "rng_state.pth").unlink()
    report = run(model, stage_b, tmp_path, validation=pairs(4))
    assert report.resumed_from == (None if damaged else 2)
    assert made(tmp_path) == made(unbroken[0])


def test_another_stage_b_is_refused_on_resume(model, stage_b, tmp_path):
    with pytest.raises(Killed):
        run(model, stage_b, tmp_path / "run", callbacks=[kill_at(3)])
    other = load.load(model, adapter=stage_b, trainable=True).model
    for name, weight in other.named_parameters():
        if "lora_B" in name:
            weight.data *= 2
    lora.save_adapter(other, tmp_path / "b2", load.identity(model)["weights"])
    with pytest.raises(UserError, match="other settings, data or seed"):
        run(model, tmp_path / "b2", tmp_path / "run")


def test_nothing_is_left_out_in_silence(model, caplog):
    tokenizer = load.load(model).tokenizer
    data = [
        pair("short", "no", "sure"),
        pair("p" * 60, "no", "sure"),  # past max_prompt_length
        pair("p" * 200, "no", "sure"),  # the prompt alone fills max_length: TRL drops it without a word
        pair("same", "x" * 200 + "a", "x" * 200 + "b"),  # equal once cut
        pair("cut", "y" * 200, "sure"),
    ]
    rows = dpo.tokenize_pairs(data, tokenizer, DPO)
    assert rows.dropped == {dpo.LONG_PROMPT: 0, dpo.NO_REPLY: 1, dpo.SAME: 1}
    assert rows.cut == 1
    strict = dpo.tokenize_pairs(data, tokenizer, DPO.model_copy(update={"max_prompt_length": 50}))
    assert strict.dropped == {dpo.LONG_PROMPT: 2, dpo.NO_REPLY: 0, dpo.SAME: 1}
    assert len(strict.prompt_ids) == 2
    for prompt, chosen, rejected in zip(rows.prompt_ids, rows.chosen_ids, rows.rejected_ids, strict=True):
        assert max(len(prompt + chosen), len(prompt + rejected)) <= DPO.max_length
    with caplog.at_level(logging.WARNING, "alignment_core"):
        loop.check_rows(len(rows.prompt_ids), rows.dropped, "preference pairs")
    assert f"1 preference pairs left out: {dpo.SAME}" in caplog.text
    with pytest.raises(UserError, match="no preference pairs to train on"):
        loop.check_rows(0, rows.dropped, "preference pairs")


@pytest.mark.parametrize(
    ("loss", "expected"), [("sigmoid", 0.6931472), ("hinge", 1.0), ("ipo", 1.0), ("robust", 0.6931472)]
)
def test_losses_at_the_reference(model, stage_b, tmp_path, loss, expected):
    # ipo at margin 0: (0 - 1 / (2 * 0.5)) ** 2 = 1
    settings = DPO.model_copy(update={"loss": loss, "max_steps": 1, "save_steps": None})
    assert run(model, stage_b, tmp_path, settings=settings).first_loss == pytest.approx(expected, abs=1e-5)


def test_pairs_are_grouped_by_length(model, stage_b, tmp_path):
    data = [pair(f"question {i}", "n" * (90 if i % 2 else 2), "y") for i in range(128)]

    def wide_batches(name, grouped):
        widths = []

        def on_train_begin(self, args, state, control, train_dataloader, **_):
            widths.extend(batch["input_ids"].shape[1] for batch in train_dataloader)

        settings = DPO.model_copy(update={"group_by_length": grouped, "save_steps": None, "max_steps": 1})
        counting = callback(on_train_begin=on_train_begin)
        run(model, stage_b, tmp_path / name, settings=settings, data=data, callbacks=[counting])
        assert len(widths) == 32
        return sum(width > 90 for width in widths)

    # half the pairs are long: a batch of four at random is wide 15 times in 16, a sorted one half the time
    assert wide_batches("grouped", True) <= 22
    assert wide_batches("random", False) >= 26


def test_nf4_sft_and_dpo_on_the_cpu(model, tmp_path):
    quantised = model.model_copy(update={"quantize": "nf4"})
    data = [Example((Message("user", "q"), Message("assistant", f"a{i % 3}")), "helpful", "t") for i in range(16)]
    train.sft(data, model=quantised, lora=LORA, train=SFT, seed=1, folder=tmp_path / "b", validation=data[:4])
    settings = DPO.model_copy(update={"save_steps": None, "max_steps": 2})
    report = run(quantised, tmp_path / "b" / "adapter", tmp_path / "d", settings=settings, validation=pairs(4))
    # float32 on both sides: TRL alone holds policy and reference in different precisions
    assert report.first_loss == pytest.approx(math.log(2), abs=1e-6)
    assert report.first_margin == 0.0
