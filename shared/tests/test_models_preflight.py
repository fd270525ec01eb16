"""What is said of a model before its weights are loaded, for the families that users bring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment_core import doctor
from alignment_core.cli import plan
from alignment_core.config import LoraSettings, ModelSettings, Settings, TrainSettings
from alignment_core.errors import UserError
from alignment_core.models import decoder, lora, packing, preflight, shape

Make = Callable[..., Path]
DENSE = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma3", "phi", "phi3", "gpt_neox",
         "gpt_neo", "gpt2")  # fmt: skip
EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")


class Config(Settings):
    model: ModelSettings = ModelSettings()
    lora: LoraSettings = LoraSettings(r=2)
    train: TrainSettings = TrainSettings(batch_size=2, max_length=64)


def settings(folder: Path, **more: Any) -> ModelSettings:
    return ModelSettings(name=str(folder), device="cpu", dtype="float32", **more)


@pytest.mark.parametrize("family", DENSE)
def test_adapters_and_scores_see_the_layers_of_every_dense_family(family: str, tiny_model: Make) -> None:
    built = shape.meta_model(settings(tiny_model(family)))
    found = decoder.coverage(built)
    assert (found.share, found.experts) == (1.0, 0)
    assert decoder.refusal(built) is None
    names = lora.targets(built, LoraSettings())
    assert set(names) == set(lora.linear_names(built)), names  # Llama's seven stand for all there is


def test_names_of_llama_stand_for_what_a_family_has(tiny_model: Make) -> None:
    def of(family: str) -> tuple[str, ...]:
        asked = LoraSettings(targets=("q_proj", "v_proj", "o_proj"))
        return lora.targets(shape.meta_model(settings(tiny_model(family))), asked)

    assert of("llama") == ("o_proj", "q_proj", "v_proj")
    assert of("phi") == ("dense", "q_proj", "v_proj")
    assert of("phi3") == ("o_proj", "qkv_proj")
    assert of("gpt_neox") == ("dense", "query_key_value")
    assert of("gpt_neo") == ("out_proj", "q_proj", "v_proj")


def test_a_name_that_no_family_has_is_refused_with_the_nearest(tiny_model: Make) -> None:
    built = shape.meta_model(settings(tiny_model("phi3")))
    with pytest.raises(UserError, match=r"no linear module 'qkv_porj'.*qkv_proj"):
        lora.targets(built, LoraSettings(targets=("qkv_porj",)))


@pytest.mark.parametrize("family", EXPERTS)
def test_a_mixture_of_experts_is_refused_in_one_line(family: str, tiny_model: Make) -> None:
    config = Config(model=settings(tiny_model(family)))
    [finding] = preflight.findings(config)
    assert finding.ok is False
    assert "is a mixture of experts" in finding.found
    assert "use a dense model" in finding.found
    with pytest.raises(UserError, match="mixture of experts"):
        preflight.check(config)


def test_the_share_of_experts_is_theirs(tiny_model: Make) -> None:
    found = decoder.coverage(shape.meta_model(settings(tiny_model("qwen3_moe"))))
    # 2 layers of 4 experts: gate_up 64 x 32 and down 32 x 32 each
    assert found.experts == 2 * 4 * (64 * 32 + 32 * 32)
    # q, o: 32 x 32; k, v: 16 x 32; and a router of 4 x 32 beside them
    assert found.seen == 2 * (2 * 32 * 32 + 2 * 16 * 32)
    assert found.whole == found.seen + found.experts + 2 * 4 * 32


def test_a_vision_tower_gets_neither_adapters_nor_scores(tiny_model: Make) -> None:
    from alignment_core.models.load import load

    folder = tiny_model("gemma3")
    built = shape.meta_model(settings(folder))
    assert decoder.apart(built) == ["model.vision_tower"]
    assert decoder.layers(built)[0] == "model.language_model.layers"
    model = load(settings(folder)).model
    for targets in ("all-linear", LoraSettings().targets):
        adapted = lora.add_adapter(model, LoraSettings(r=2, targets=targets))
        names = [name for name, p in adapted.named_parameters() if p.requires_grad]
        assert names
        assert all(".language_model.layers." in name for name in names)
        assert len(names) == 2 * len(decoder.linear(built))
        model = adapted.unload()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neo", "gemma3"])
def test_the_shape_counts_the_models_own_weights(family: str, tiny_model: Make) -> None:
    from safetensors import safe_open

    folder = tiny_model(family)
    form = shape.architecture(settings(folder))
    assert form is not None
    with safe_open(folder / "model.safetensors", "pt") as file:
        stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert form.weights == stored


def test_doctor_and_the_plan_say_what_a_folder_holds(tiny_model: Make, tmp_path: Path) -> None:
    config = Config(model=settings(tiny_model("phi3"), template="plain"))
    found = {check.name: check for check in doctor.examine(config, tmp_path)}
    assert found["modules"].state == found["adapters"].state == found["stop tokens"].state == "ok"
    assert "8 linear matrices hold 100.0%" in found["modules"].found
    assert "on down_proj, gate_up_proj, o_proj, qkv_proj" in found["adapters"].found
    assert found["memory"].state == "ok"
    lines = "\n".join(plan._model_lines(config))
    assert "catalogue" not in lines
    assert "train: dtype float32: weights" in lines


def test_doctor_fails_for_experts_and_for_a_folder_without_a_model(tiny_model: Make, tmp_path: Path) -> None:
    found = {c.name: c for c in doctor.examine(Config(model=settings(tiny_model("gpt_oss"))), tmp_path)}
    assert found["modules"].state == "fails"
    (tmp_path / "empty").mkdir()
    found = {c.name: c for c in doctor.examine(Config(model=settings(tmp_path / "empty")), tmp_path)}
    assert found["modules"].state == "fails"
    assert "no config.json" in found["modules"].found


def test_a_config_that_asks_for_code_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "auto_map": {"AutoModel": "evil.py"}}')
    with pytest.raises(UserError, match="never run"):
        shape.meta_model(settings(tmp_path))


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi", "gpt_neo", "gemma2"])
def test_packing_keeps_examples_apart(family: str, tiny_model: Make) -> None:
    from alignment_core.models.load import load

    model = load(settings(tiny_model(family), template="plain")).model
    train = TrainSettings(packing=True)
    assert packing.leak(model) <= packing.LEAK
    assert packing.kept_apart(model, train) is train


def test_packing_is_switched_off_where_a_model_mixes_examples(
    tiny_model: Make, caplog: pytest.LogCaptureFixture
) -> None:
    from alignment_core.models.load import load

    loaded = load(settings(tiny_model("llama"), template="plain"))
    straight = loaded.model.forward
    # A model that does not read the borders from the positions: each row is one text.
    loaded.model.forward = lambda input_ids, position_ids=None, **more: straight(input_ids=input_ids, **more)
    assert packing.leak(loaded.model) > packing.LEAK
    assert packing.kept_apart(loaded.model, TrainSettings(packing=True)).packing is False
    assert "packing is switched off" in caplog.text


@pytest.mark.parametrize("family", ["gemma3", "phi3", "gpt_neox"])
def test_a_training_on_a_stand_in_of_the_family_runs(family: str, tiny_model: Make, tmp_path: Path) -> None:
    from alignment_core.models.train import sft
    from alignment_core.records import Example, Message

    model = settings(tiny_model(family), template="own")
    turns = [(Message("user", f"lamp {i}"), Message("assistant", "red lamp")) for i in range(4)]
    rows = [Example(turn, "helpful", "made") for turn in turns]
    train = TrainSettings(batch_size=2, accumulate=1, max_length=64, warmup_ratio=0.0, packing=family == "gpt_neox")
    made = sft(rows, model=model, lora=LoraSettings(r=2), train=train, seed=13, folder=tmp_path)
    assert made.trainable > 0
