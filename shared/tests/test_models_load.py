"""Loading: what is refused before anything is loaded, adapters of another base, identities, NF4 on the CPU."""

from __future__ import annotations

import json
import pickle
import shutil
import sys

import pytest

from alignment_core import io
from alignment_core.config import LoraSettings, ModelSettings
from alignment_core.errors import UserError
from alignment_core.models import adapter, load, lora, miniature

LORA = LoraSettings(r=2, alpha=4, dropout=0.0, targets=("q_proj", "v_proj"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return miniature.build(tmp_path_factory.mktemp("models") / "base", hidden=16, layers=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, base):
    """An adapter with weights that are not zero, saved as the trainer saves it."""
    import torch

    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    settings = ModelSettings(name=str(base), device="cpu")
    torch.manual_seed(0)
    model = lora.add_adapter(load.load(settings, trainable=True).model, LORA)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    lora.save_adapter(model, folder, load.identity(settings)["weights"])
    return folder


@pytest.fixture
def model_folder(base, tmp_path):
    return shutil.copytree(base, tmp_path / "model")


@pytest.fixture
def adapter_folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "adapter")


def settings_for(folder, **more):
    return ModelSettings(name=str(folder), device="cpu", **more)


def edit(file, **changes):
    io.write_json(file, io.read_json(file) | changes)


def test_a_model_comes_with_template_stops_and_padding(base):
    loaded = load.load(settings_for(base))
    assert (loaded.device, loaded.dtype, loaded.template_name) == ("cpu", "float32", "own")
    assert loaded.stop_ids == (loaded.tokenizer.eos_token_id,)
    assert not loaded.model.training


@pytest.mark.parametrize(
    ("file", "change", "key"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tok.Evil", None]}}, "auto_map"),
        ("config.json", {"text_config": {"auto_map": {"AutoConfig": "x.Y"}}}, "text_config.auto_map"),
        ("config.json", {"_attn_implementation": "someone/kernel"}, "_attn_implementation"),
        ("config.json", {"attn_implementation": {"": "someone/kernel"}}, "attn_implementation"),
        ("config.json", {"custom_pipelines": {"x": {"impl": "p.Q"}}}, "custom_pipelines"),
        ("generation_config.json", {"custom_generate": "someone/decoding"}, "custom_generate"),
    ],
)
def test_a_config_that_asks_for_code_is_refused(model_folder, file, change, key):
    edit(model_folder / file, **change)
    with pytest.raises(UserError, match="never run") as caught:
        load.load(settings_for(model_folder))
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_config_is_screened_before_weights_are_fetched(base, model_folder, monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    edit(model_folder / "config.json", auto_map={"AutoModel": "x.Y"})
    fetched = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name, revision: str(model_folder / name))
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: fetched.append((*a, k)) or str(model_folder)
    )
    settings = ModelSettings(name="owner/name", revision="a" * 40, device="cpu")
    with pytest.raises(UserError, match=r"owner/name: config\.json: 'auto_map' asks for code"):
        load.load(settings)
    assert not fetched
    shutil.copy(base / "config.json", model_folder / "config.json")
    assert load.load(settings).template_name == "own"
    ((repository, how),) = fetched
    assert repository == "owner/name"
    wanted = filter_repo_objects(
        ["model.safetensors", "config.json", "consolidated.00.safetensors", "original/params.json", "onnx/config.json"],
        allow_patterns=how["allow_patterns"],
        ignore_patterns=how["ignore_patterns"],
    )
    assert list(wanted) == ["model.safetensors", "config.json"]


def test_no_network_is_one_line_that_says_what_to_do(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_, **__):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(UserError, match="owner/name: no network, and no copy in the cache") as caught:
        load.load(ModelSettings(name="owner/name", revision="a" * 40, device="cpu"))
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(model_folder):
    (model_folder / "model.safetensors").unlink()
    (model_folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match=r"only the pickle pytorch_model\.bin"):
        load.load(settings_for(model_folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [("model.safetensors", b"cut"), ("config.json", b'{"model_type": "unheard-of"}'), ("tokenizer.json", b"{}")],
)
def test_a_folder_that_cannot_be_loaded_is_one_line(model_folder, file, content):
    (model_folder / file).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be loaded|not a whole safetensors file") as caught:
        load.load(settings_for(model_folder))
    assert "\n" not in str(caught.value)


def test_a_shard_outside_the_folder_is_refused(model_folder):
    io.write_json(model_folder / "model.safetensors.index.json", {"weight_map": {"x": "../other/w.safetensors"}})
    with pytest.raises(UserError, match="names the shard"):
        load.load(settings_for(model_folder))


def test_names_that_cannot_be_a_model():
    with pytest.raises(UserError, match="no such folder, and not a hub id"):
        load.resolve(ModelSettings(name="./nowhere", device="cpu"))
    with pytest.raises(UserError, match="40 hex digits"):
        load.resolve(ModelSettings(name="owner/name", revision="main", device="cpu"))
    resolved = load.resolve(ModelSettings(name="owner/name", revision="a" * 40, device="cpu"))
    assert (resolved.hub_id, resolved.revision, resolved.folder) == ("owner/name", "a" * 40, None)


def test_a_device_that_is_not_there():
    import torch

    if torch.cuda.is_available():
        pytest.skip("a CUDA device is there")
    with pytest.raises(UserError, match="sees no CUDA device"):
        load.resolve(ModelSettings(device="cuda"))


def test_identity_is_of_content_not_of_place(base, model_folder):
    one, two = load.identity(settings_for(base)), load.identity(settings_for(model_folder))
    assert one["weights"]["sha256"] == two["weights"]["sha256"]
    assert json.loads(json.dumps(one)) == one
    edit(model_folder / "config.json", rms_norm_eps=1e-5)
    assert load.identity(settings_for(model_folder))["weights"] != two["weights"]
    for change in ({"dtype": "bfloat16"}, {"quantize": "nf4"}, {"template": "plain"}, {"attention": "eager"}):
        assert load.identity(settings_for(base, **change)) != one


def test_an_adapter_changes_the_model_and_loads_frozen_or_trainable(base, trained):
    import torch

    ids = torch.tensor([[1, 2, 3]])
    plain = load.load(settings_for(base)).model(ids).logits
    frozen = load.load(settings_for(base), adapter=trained)
    assert not torch.equal(frozen.model(ids).logits, plain)
    assert not any(p.requires_grad for p in frozen.model.parameters())
    trainable = load.load(settings_for(base), adapter=trained, trainable=True)
    assert {n.split(".")[-3] for n, p in trainable.model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    assert torch.equal(trainable.model(ids).logits, frozen.model(ids).logits)


def test_an_adapter_is_saved_byte_for_byte_the_same(base, trained, tmp_path):
    loaded = load.load(settings_for(base), adapter=trained, trainable=True)
    lora.save_adapter(loaded.model, tmp_path / "again", load.identity(settings_for(base))["weights"])
    for name in (adapter.WEIGHTS, adapter.CONFIG, adapter.BASE):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes()
    assert sorted(f.name for f in trained.iterdir()) == sorted([adapter.WEIGHTS, adapter.CONFIG, adapter.BASE])
    config = io.read_json(trained / adapter.CONFIG)
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert str(base.parent) not in json.dumps(config)  # no path of this machine
    assert load.adapter_identity(tmp_path / "again") == load.adapter_identity(trained)


def test_pickled_adapters_are_refused(base, adapter_folder):
    # PEFT itself falls back to the pickle without a word
    (adapter_folder / adapter.WEIGHTS).rename(adapter_folder / "adapter_model.bin")
    with pytest.raises(UserError, match=r"only the pickle adapter_model\.bin"):
        load.load(settings_for(base), adapter=adapter_folder)


def test_an_adapter_of_another_base_is_refused(adapter_folder, tmp_path):
    other = miniature.build(tmp_path / "other", hidden=16, layers=1, seed=1)
    with pytest.raises(UserError, match=r"was trained on base .* not on other"):
        load.check_adapter(adapter_folder, settings_for(other))
    with pytest.raises(UserError, match="was trained on base"):
        load.load(settings_for(other), adapter=adapter_folder)


@pytest.mark.parametrize(("shape", "reason"), [({"hidden": 32}, "has shape"), ({"layers": 2}, "are missing")])
def test_without_the_record_of_the_base_shapes_and_names_decide(adapter_folder, tmp_path, shape, reason):
    (adapter_folder / adapter.BASE).unlink()
    other = miniature.build(tmp_path / "other", **({"hidden": 16, "layers": 1} | shape))
    with pytest.raises(UserError, match=reason):
        load.load(settings_for(other), adapter=adapter_folder)


@pytest.mark.parametrize("how", ["missing", "unexpected"])
def test_partial_adapters_are_refused(base, adapter_folder, how):
    from safetensors.torch import load_file, save_file

    state = load_file(adapter_folder / adapter.WEIGHTS)
    first = sorted(state)[0]
    if how == "missing":
        del state[first]
    else:
        state[first.replace("layers.0", "layers.7")] = state[first].clone()
    save_file(state, adapter_folder / adapter.WEIGHTS)
    with pytest.raises(UserError, match="are missing" if how == "missing" else "have no place"):
        load.load(settings_for(base), adapter=adapter_folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "'megatron_config' is not supported"),
        ({"trainable_token_indices": [1]}, "'trainable_token_indices' is not supported"),
        ({"init_lora_weights": "pissa"}, "rewrites the base"),
        ({"peft_type": "IA3"}, "not a LoRA adapter"),
        ({"target_modules": ["nothing"]}, "not in this base model"),
    ],
)
def test_adapter_settings_that_cannot_be_trusted(base, adapter_folder, change, reason):
    edit(adapter_folder / adapter.CONFIG, **change)
    with pytest.raises(UserError, match=reason):
        load.load(settings_for(base), adapter=adapter_folder)


def test_an_adapter_without_a_task_names_a_library_that_is_not_imported(base, adapter_folder):
    # PEFT writes `auto_mapping` where an adapter was trained without a task type, and imports what stands there
    mapping = {"base_model_class": "X", "parent_library": "evil"}
    edit(adapter_folder / adapter.CONFIG, task_type=None, auto_mapping=mapping)
    load.load(settings_for(base), adapter=adapter_folder)
    assert "evil" not in sys.modules


def test_a_cut_adapter_is_one_clear_line(base, adapter_folder):
    file = adapter_folder / adapter.WEIGHTS
    for size in (0, 4, 20):
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(UserError, match="not a whole safetensors file"):
            load.check_adapter(adapter_folder, settings_for(base))


def test_targets_that_match_nothing_name_what_exists(base):
    model = load.load(settings_for(base)).model
    with pytest.raises(UserError, match=r"'q_prj' \(did you mean 'q_proj'\?\); it has down_proj, gate_proj"):
        lora.add_adapter(model, LoraSettings(targets=("q_prj",)))


def test_nf4_with_double_quantisation_on_the_cpu(base, trained):
    import torch

    settings = settings_for(base, quantize="nf4")
    loaded = load.load(settings, adapter=trained, trainable=True)
    layer = loaded.model.get_base_model().model.layers[0].mlp.up_proj
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested  # the scales are quantised too
    full = load.load(settings_for(base), adapter=trained).model(torch.tensor([[1, 2, 3]])).logits
    assert (loaded.model(torch.tensor([[1, 2, 3]])).logits - full).abs().max() < 0.3


def test_nf4_computes_the_same_before_and_after_an_evaluation(base):
    # bitsandbytes repacks the weights in place at the first evaluation on some CPUs
    import torch

    model = load.load(settings_for(base, quantize="nf4")).model
    ids = torch.tensor([[1, 2, 3]])
    model.train()
    before = model(ids).logits
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
    model.train()
    assert torch.equal(model(ids).logits, before)


def test_the_models_own_end_tokens_stop_a_reply_too(base, tmp_path):
    # Of the three tokens that end a reply of Llama 3.1, two stand only in its own settings.
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["eos_token_id"] = [2, 7]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    loaded = load.load(settings_for(folder))
    assert {2, 7} <= set(loaded.stop_ids)
    assert set(loaded.model.generation_config.eos_token_id) == set(loaded.stop_ids)
