"""SFT: the loss falls on replies alone, runs repeat and continue bit for bit, and silent failures are loud."""

from __future__ import annotations

import logging
import math
import shutil
import subprocess
import sys

import pytest

from alignment_core import io
from alignment_core.config import LoraSettings, ModelSettings, TrainSettings
from alignment_core.errors import UserError
from alignment_core.models import checkpoints, load, loop, miniature, packing, tokens, train
from alignment_core.records import Example, Message

LORA = LoraSettings(r=2, alpha=4, dropout=0.1, targets="all-linear")
TRAIN = TrainSettings(batch_size=4, accumulate=2, max_length=128, lr=1e-2, logging_steps=1, save_steps=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = miniature.build(tmp_path_factory.mktemp("models") / "mini", hidden=16, layers=1)
    return ModelSettings(name=str(folder), device="cpu")


def examples(count=48):
    return [
        Example(
            (Message("user", f"question {i}"), Message("assistant", f"answer {i % 5}{'!' * (i % 7)}")), "helpful", "t"
        )
        for i in range(count)
    ]


def run(model, folder, *, settings=TRAIN, data=None, seed=3, **more):
    return train.sft(data or examples(), model=model, lora=LORA, train=settings, seed=seed, folder=folder, **more)


def made(folder):
    """Everything that must be equal between two equal runs."""
    files = ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "train_log.jsonl", "train_report.json"]
    return {name: (folder / name).read_bytes() for name in files}


class Killed(Exception):
    """Stands for SIGKILL between two steps."""


def killer(step):
    from transformers import TrainerCallback

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == step:
                raise Killed

    return Kill()


@pytest.fixture(scope="module")
def unbroken(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    return folder, run(model, folder, validation=examples(3))


def test_a_run_reports_what_it_did(unbroken):
    folder, report = unbroken
    # 48 examples, 4 to a batch, 2 batches to a step: 6 steps
    assert (report.steps, report.examples, report.cut) == (6, 48, 0)
    assert [step for step, _ in report.losses] == [1, 2, 3, 4, 5, 6]
    # answer + digit + exclamation marks + end of turn; i % 7 over 0..47 sums to 6 * 21 + (0+1+2+3+4+5)
    assert report.tokens_trained == 48 * (len("answer 0") + 1) + 6 * 21 + 15
    assert report.mask.text == "answer 0<|end|>"
    assert math.isclose(report.losses[0][1], math.log(259), rel_tol=0.05)  # a random model over 256 bytes + 3
    assert report.losses[-1][1] < report.losses[0][1]
    assert report.eval_loss is not None
    stored = io.read_json(folder / "train_report.json")
    assert "seconds" not in stored
    assert stored["losses"] == [list(pair) for pair in report.losses]


def test_the_first_loss_is_that_of_the_replies_computed_by_hand(model, tmp_path):
    import torch

    data = examples(4)
    settings = TRAIN.model_copy(update={"accumulate": 1, "save_steps": None, "warmup_ratio": 0.0})
    report = run(model, tmp_path, data=data, settings=settings)
    loaded = load.load(model)
    total, count = 0.0, 0
    for example in data:
        prompt = f"<|begin|>user: {example.prompt}\nassistant: "
        ids = loaded.tokenizer(prompt + example.reply + "<|end|>", add_special_tokens=False)["input_ids"]
        start = len(loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logp = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        total -= sum(float(logp[i - 1, ids[i]]) for i in range(start, len(ids)))
        count += len(ids) - start
    assert report.losses[0][1] == pytest.approx(total / count, rel=1e-5)


def test_equal_runs_are_equal_bytes(model, unbroken, tmp_path):
    run(model, tmp_path / "again", validation=examples(3))
    assert made(tmp_path / "again") == made(unbroken[0])
    run(model, tmp_path / "other", validation=examples(3), seed=4)
    assert made(tmp_path / "other") != made(unbroken[0])


@pytest.mark.parametrize("damaged", [None, "rng_state.pth", "optimizer.pt", "scheduler.pt", "sealed.json"])
def test_killed_and_continued_equals_unbroken(model, unbroken, tmp_path, damaged):
    with pytest.raises(Killed):
        run(model, tmp_path, validation=examples(3), callbacks=[killer(5)])
    assert not (tmp_path / "adapter").exists()
    newest = tmp_path / "checkpoints" / "checkpoint-4"
    if damaged:
        (newest / damaged).unlink()
    report = run(model, tmp_path, validation=examples(3))
    assert report.resumed_from == (2 if damaged else 4)
    assert made(tmp_path) == made(unbroken[0])


@pytest.mark.parametrize("at", [4, 5, None])
def test_killed_within_an_epoch_and_a_log_interval(model, tmp_path, monkeypatch, at):
    """Logs every third step, checkpoints every second, and the end in the middle of an epoch (of 6 steps)."""
    settings = TRAIN.model_copy(update={"max_steps": 5, "logging_steps": 3, "scheduler": "constant"})
    run(model, tmp_path / "whole", settings=settings, validation=examples(3))
    with monkeypatch.context() as patch:
        if at is None:
            patch.setattr(loop, "save_adapter", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run(model, tmp_path / "broken", settings=settings, validation=examples(3), callbacks=[killer(at)])
    report = run(model, tmp_path / "broken", settings=settings, validation=examples(3))
    assert (report.steps, report.resumed_from) == (5, {4: 2, 5: 4, None: 5}[at])
    assert made(tmp_path / "broken") == made(tmp_path / "whole")


def test_killed_while_a_checkpoint_is_written(model, unbroken, tmp_path, monkeypatch):
    def half(folder, mark):
        if folder.name == "checkpoint-4":
            (folder / "trainer_state.json").unlink()
            raise Killed
        whole(folder, mark)

    whole = checkpoints.seal
    monkeypatch.setattr(checkpoints, "seal", half)
    with pytest.raises(Killed):
        run(model, tmp_path, validation=examples(3))
    monkeypatch.setattr(checkpoints, "seal", whole)
    assert run(model, tmp_path, validation=examples(3)).resumed_from == 2
    assert made(tmp_path) == made(unbroken[0])


def test_killed_after_the_last_step(model, unbroken, tmp_path, monkeypatch):
    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_adapter", killed)
        with pytest.raises(Killed):
            run(model, tmp_path, validation=examples(3))
    assert run(model, tmp_path, validation=examples(3)).resumed_from == 6  # nothing is left to train
    assert made(tmp_path) == made(unbroken[0])


@pytest.mark.parametrize("change", [{"max_steps": 9}, {"lr": 1e-3}, {"scheduler": "linear"}, {"epochs": 2.0}])
def test_a_changed_schedule_is_refused_on_resume(model, tmp_path_factory, change):
    # transformers continues on another learning-rate curve without a warning
    folder = tmp_path_factory.mktemp("resume")
    with pytest.raises(Killed):
        run(model, folder, callbacks=[killer(3)])
    with pytest.raises(UserError, match="other settings, data or seed"):
        run(model, folder, settings=TRAIN.model_copy(update=change))


@pytest.mark.parametrize("change", [{"data": "other"}, {"seed": 9}])
def test_other_data_or_seed_is_refused_on_resume(model, tmp_path, change):
    with pytest.raises(Killed):
        run(model, tmp_path, callbacks=[killer(3)])
    with pytest.raises(UserError, match="other settings, data or seed"):
        run(model, tmp_path, **({"data": examples(40)} if "data" in change else change))


def test_an_adapter_is_continued(model, unbroken, tmp_path):
    before = (unbroken[0] / "adapter" / "adapter_model.safetensors").read_bytes()
    report = run(model, tmp_path, start=unbroken[0] / "adapter")
    assert report.losses[0][1] < unbroken[1].losses[0][1]  # it begins where the first stage ended
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() != before
    with pytest.raises(UserError, match=r"r=2 and alpha=4\.?0?, but lora\.r=8"):
        train.sft(
            examples(),
            model=model,
            lora=LORA.model_copy(update={"r": 8}),
            train=TRAIN,
            seed=3,
            folder=tmp_path / "b",
            start=unbroken[0] / "adapter",
        )


def test_a_frozen_adapter_is_an_error_not_a_silent_run(model, unbroken, tmp_path, monkeypatch):
    # PEFT loads an adapter frozen by default; the trainer then runs with nothing to train and no error
    real = loop.load
    monkeypatch.setattr(loop, "load", lambda settings, adapter, trainable: real(settings, adapter, trainable=False))
    with pytest.raises(RuntimeError, match="nothing is trainable"):
        run(model, tmp_path, start=unbroken[0] / "adapter")


def test_training_that_changes_nothing_is_an_error(model, tmp_path):
    from transformers import TrainerCallback

    class Freeze(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **_):
            for parameter in model.parameters():
                parameter.grad = None

    with pytest.raises(RuntimeError, match="changed no weight"):
        run(model, tmp_path, settings=TRAIN.model_copy(update={"save_steps": None}), callbacks=[Freeze()])


def test_a_run_that_is_all_warm_up_says_so(model, tmp_path):
    # the first step of a warm-up has a learning rate of zero: one step of it trains nothing
    with pytest.raises(UserError, match=r"all 1 steps are warm-up; set train\.warmup_ratio=0"):
        run(model, tmp_path, settings=TRAIN.model_copy(update={"save_steps": None, "max_steps": 1}))


def test_labels_that_are_not_the_replies_are_an_error(model, tmp_path, monkeypatch):
    # what TRL's completion_only_loss does to a message data set: every token trains, no warning
    trainer = train._trainer

    def all_tokens(loaded, rows, *rest):
        return trainer(loaded, tokens.Tokenized(rows.input_ids, [list(ids) for ids in rows.input_ids]), *rest)

    monkeypatch.setattr(train, "_trainer", all_tokens)
    with pytest.raises(RuntimeError, match="labels are not the replies"):
        run(model, tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(model, tmp_path):
    from transformers import TrainerCallback

    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, model, **_):
            if state.global_step == 1:
                for parameter in model.parameters():
                    parameter.data.fill_(float("nan"))

    with pytest.raises(UserError, match=r"training loss is nan at step 2 of 6; lower train\.lr"):
        run(model, tmp_path, settings=TRAIN.model_copy(update={"save_steps": None}), callbacks=[Poison()])


def test_long_examples_are_cut_counted_and_dropped(model, tmp_path, caplog):
    data = [
        *examples(6),
        Example((Message("user", "q"), Message("assistant", "x" * 500)), "helpful", "t"),
        Example((Message("user", "p" * 500), Message("assistant", "x")), "helpful", "t"),
    ]
    tokenizer = load.load(model).tokenizer
    rows = tokens.tokenize(data, tokenizer, 128)
    assert (len(rows.input_ids), rows.cut, rows.dropped) == (7, 1, {tokens.NO_REPLY: 1})
    assert max(map(len, rows.input_ids)) == 128
    with caplog.at_level(logging.WARNING, "alignment_core"):
        loop.check_rows(7, rows.dropped, "training examples")
    assert "1 training examples left out: no token of the reply fits in max_length" in caplog.text
    with pytest.raises(UserError, match="no training examples to train on"):
        run(model, tmp_path, data=data[-1:])


def test_packing_trains_on_the_same_tokens_and_loss(model, tmp_path):
    one_step = {"accumulate": 1, "save_steps": None, "max_length": 1024, "batch_size": 48, "warmup_ratio": 0.0}
    settings = TRAIN.model_copy(update=one_step)
    plain = run(model, tmp_path / "plain", settings=settings)
    packed = run(model, tmp_path / "packed", settings=settings.model_copy(update={"packing": True, "max_length": 256}))
    assert packed.tokens_trained == plain.tokens_trained
    assert packed.mask.trained == plain.mask.trained == plain.tokens_trained  # one batch holds all
    assert packed.losses[0][1] == pytest.approx(plain.losses[0][1], rel=1e-5)  # no attention across examples


def test_packed_rows_start_again_with_each_example():
    rows = [
        {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, -100, 4, 5], "seq_lengths": [2, 3]},
        {"input_ids": [6, 7, 8], "labels": [6, 7, 8], "seq_lengths": [3]},
    ]
    batch = packing.packed_rows(0)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2], [0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 2, -100, 4, 5], [-100, 7, 8, -100, -100]]
    assert "attention_mask" not in batch


def test_grouping_by_length_pads_less(model, tmp_path):
    settings = TRAIN.model_copy(update={"group_by_length": True, "save_steps": None})
    assert run(model, tmp_path, settings=settings).steps == 6


def test_gradient_checkpointing_and_bfloat16_on_the_cpu(model, tmp_path):
    settings = TRAIN.model_copy(update={"gradient_checkpointing": True, "save_steps": None, "max_steps": 2})
    half = model.model_copy(update={"dtype": "bfloat16"})
    report = run(half, tmp_path, settings=settings)
    assert report.steps == 2


def test_qlora_on_the_cpu_keeps_small_steps(model, tmp_path):
    # TRL casts the adapter of a quantised model to bfloat16, where DPO's usual 5e-7 rounds to no step at all
    quantised = model.model_copy(update={"quantize": "nf4"})
    first = run(quantised, tmp_path / "a", settings=TRAIN.model_copy(update={"save_steps": None}))
    assert first.losses[-1][1] < first.losses[0][1]
    small = TRAIN.model_copy(update={"save_steps": None, "lr": 5e-7, "max_steps": 1, "warmup_ratio": 0.0})
    run(quantised, tmp_path / "b", settings=small, start=tmp_path / "a" / "adapter")
    from safetensors.torch import load_file

    old = load_file(tmp_path / "a" / "adapter" / "adapter_model.safetensors")
    new = load_file(tmp_path / "b" / "adapter" / "adapter_model.safetensors")
    moved = sum(int((old[k] != new[k]).sum()) for k in old) / sum(v.numel() for v in old.values())
    assert moved > 0.9


def test_no_pickle_in_what_is_kept(unbroken):
    kept = shutil.ignore_patterns("checkpoints")(None, [f.name for f in unbroken[0].iterdir()])
    files = [f for f in unbroken[0].rglob("*") if f.is_file() and "checkpoints" not in f.parts]
    assert kept
    assert not [f for f in files if f.suffix in (".bin", ".pt", ".pth")]


def test_importing_the_rooms_imports_no_torch():
    heavy = "{'torch', 'transformers', 'peft', 'trl', 'datasets'} & set(sys.modules)"
    rooms = "load, lora, loop, train, template, checkpoints, screen, adapter"
    code = f"import sys\nfrom alignment_core.models import {rooms}\nassert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_terminal_stays_quiet(model, tmp_path, capfd):
    run(model, tmp_path, settings=TRAIN.model_copy(update={"packing": True, "max_steps": 2}))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_pass_that_does_not_fit_is_told_with_what_would():
    torch = pytest.importorskip("torch")

    class Full:
        def train(self, **_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(
        UserError, match=r"training pass of 4 rows of up to 128 tokens; halve batch_size and double"
    ) as e:
        loop._train(Full(), TRAIN, None)
    assert "\n" not in str(e.value)
