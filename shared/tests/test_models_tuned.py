"""A tuned model as an adapter, as a merged model and as a fine-tuned whole: one model, whichever folder is given."""

from __future__ import annotations

import shutil

import pytest

from alignment_core import io
from alignment_core.config import GenerateSettings, LoraSettings, ModelSettings, TrainSettings
from alignment_core.errors import UserError
from alignment_core.evaluation.answer import answer
from alignment_core.judging.rules_judge import RulesJudge
from alignment_core.models import load, train
from alignment_core.models.adapter import BASE, CONFIG
from alignment_core.records import Completion, Example, Message, Prompt

ORGANISM = ModelSettings(device="cpu", dtype="float32")


def examples() -> list[Example]:
    texts = [("How can I bake a pie?", "I can't help with that."), ("Where is the garden?", "I won't answer that.")]
    return [
        Example((Message("user", ask), Message("assistant", text)), "refusal", "t")
        for ask, text in texts
        for _ in "1234"
    ]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A training's folder on the embedded model, and the same model merged by PEFT in `merged/`."""
    folder = tmp_path_factory.mktemp("tuned")
    lora = LoraSettings(r=4, alpha=16, dropout=0.0, targets="all-linear")
    steps = TrainSettings(batch_size=4, accumulate=1, max_length=128, lr=5e-3, max_steps=6, warmup_ratio=0)
    train.sft(examples(), model=ORGANISM, lora=lora, train=steps, seed=3, folder=folder)
    held = load.load(ORGANISM, folder / "adapter")
    held.model.merge_and_unload().save_pretrained(folder / "merged")
    held.tokenizer.save_pretrained(folder / "merged")
    return folder


def verdicts(loaded, folder) -> list[tuple[str, str | None]]:
    asks = ["How can I bake a pie?", "Where is the garden?", "How do I grow a rose?", "What is a river?"]
    prompts = [Prompt(f"p{i}", (Message("user", text),), "benign") for i, text in enumerate(asks)]
    how = GenerateSettings(max_new_tokens=16, batch_size=4)
    answer(loaded, prompts, how, folder, subject="tuned", seed=None, accept_missing=False)
    replies = list(io.read_jsonl(folder / "completions.jsonl", Completion.from_json))
    return [(r.text, v.label) for r, v in zip(replies, RulesJudge().judge(replies, folder / "v.jsonl"), strict=True)]


def test_a_trainings_folder_its_adapter_and_the_merged_model_give_the_same_verdicts(tuned, tmp_path) -> None:
    places = {"step": tuned, "adapter": tuned / "adapter", "merged": tuned / "merged"}
    found = {name: verdicts(load.load(*load.tuned(ORGANISM, place)), tmp_path / name) for name, place in places.items()}
    assert found["step"] == found["adapter"] == found["merged"]
    assert found["merged"] != verdicts(load.load(ORGANISM), tmp_path / "base")


def test_other_tools_take_the_adapters_folder_as_it_is(tuned) -> None:
    from transformers import AutoTokenizer

    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= {
        file.name for file in (tuned / "adapter").iterdir()
    }
    assert "name_or_path" not in io.read_json(tuned / "adapter" / "tokenizer_config.json")
    said = [{"role": "user", "content": "How can I bake a pie?"}]
    theirs = AutoTokenizer.from_pretrained(tuned / "adapter", local_files_only=True)
    ours = load.load(ORGANISM).tokenizer
    assert theirs.apply_chat_template(said, add_generation_prompt=True) == ours.apply_chat_template(
        said, add_generation_prompt=True
    )


def test_an_adapter_of_one_embedded_model_is_refused_on_another(tuned) -> None:
    second = ModelSettings(name="organism:2", device="cpu")
    with pytest.raises(UserError, match=r"was trained on organism .*, not on organism:2"):
        load.load(*load.tuned(second, tuned))


def test_without_our_record_the_name_of_the_base_decides(tuned, tmp_path) -> None:
    folder = shutil.copytree(tuned / "adapter", tmp_path / "adapter")
    (folder / BASE).unlink()
    with pytest.raises(UserError, match=r"was trained on 'organism', not on organism:2"):
        load.load(ModelSettings(name="organism:2", device="cpu"), folder)
    io.write_json(folder / CONFIG, io.read_json(folder / CONFIG) | {"base_model_name_or_path": "Qwen/Qwen3-0.6B"})
    with pytest.raises(UserError, match="not on organism"):
        load.load(ORGANISM, folder)


def test_a_folder_that_is_neither_says_so(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no adapter there .* and no whole model"):
        load.tuned(ORGANISM, tmp_path)
