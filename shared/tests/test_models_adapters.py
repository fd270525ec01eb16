"""Adapters of other people: their base, their settings and their numbers, before anything is computed with them."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.models.adapter import BASE, CONFIG, WEIGHTS, check_folder

ONE = {"kind": "organism", "name": "organism", "sha256": "1" * 64}
TWO = {"kind": "organism", "name": "organism:2", "sha256": "2" * 64}
HUB = {"kind": "hub", "name": "Qwen/Qwen3-0.6B", "revision": "a" * 40}
FOLDER = {"kind": "folder", "name": "tuned", "sha256": "3" * 64}
SETTINGS = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


def safetensors(**changes: object) -> bytes:
    names = [f"base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight" for part in "AB"]
    table = {
        names[0]: {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32], **changes},
        names[1]: {"dtype": "F32", "shape": [4, 2], "data_offsets": [32, 64]},
    }
    head = json.dumps(table).encode()
    return struct.pack("<Q", len(head)) + head + b"\0" * 64


def adapter(folder: Path, base: object = None, **settings: object) -> Path:
    (folder / WEIGHTS).write_bytes(safetensors())
    (folder / CONFIG).write_text(json.dumps(SETTINGS | settings))
    if base is not None:
        io.write_json(folder / BASE, base)
    return folder


def holds(folder: Path, base: dict[str, object] | None, passes: bool) -> None:
    """The check passes, or fails with one line."""
    if passes:
        check_folder(folder, base)
        return
    with pytest.raises(UserError) as caught:
        check_folder(folder, base)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("trained_on", "base", "passes"),
    [
        (ONE, ONE, True),
        (ONE, TWO, False),  # eight embedded models have equal shapes
        (TWO, ONE, False),
        (ONE, HUB, False),
        (ONE, FOLDER, False),
        (FOLDER, ONE, False),
        (FOLDER, FOLDER | {"name": "moved"}, True),
        (FOLDER, FOLDER | {"sha256": "4" * 64}, False),
        (HUB, HUB, True),
        (HUB, HUB | {"revision": "b" * 40}, False),
        (HUB, FOLDER, True),  # a copy of the hub's model on a machine without a network; nothing tells
        ({"kind": "evil"}, ONE, False),
        ([], ONE, False),
    ],
)
def test_the_identity_beside_an_adapter_decides(tmp_path: Path, trained_on, base, passes) -> None:
    holds(adapter(tmp_path, trained_on), base, passes)


@pytest.mark.parametrize(
    ("name", "base", "passes"),
    [
        ("organism", ONE, True),
        ("organism:1", ONE, True),
        ("organism", TWO, False),
        ("organism:2", TWO, True),
        ("organism:2", FOLDER, False),
        ("organism", HUB, False),
        ("Qwen/Qwen3-0.6B", ONE, False),
        ("Qwen/Qwen3-0.6B", HUB, True),
        ("unsloth/Qwen3-0.6B-unsloth-bnb-4bit", HUB, True),
        ("mlx-community/qwen3-0.6b", HUB, True),
        ("Qwen/Qwen3-0.6B-Base", HUB, False),
        ("Qwen/Qwen3-1.7B", HUB, False),
        ("/scratch/models/mine", HUB, True),
        (None, HUB, True),
        (5, HUB, True),
        ("meta-llama/Meta-Llama-3.1-8B", HUB | {"name": "meta-llama/Llama-3.1-8B"}, True),
    ],
)
def test_a_name_decides_where_it_is_clearly_another_models(tmp_path: Path, name, base, passes) -> None:
    holds(adapter(tmp_path, base_model_name_or_path=name), base, passes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"r": 10**9}, "r=1000000000"),
        ({"r": 64}, "no factor in adapter_model.safetensors has that rank"),
        ({"r": "8"}, "r='8': Input should be a valid integer"),
        ({"r": True}, "r=True"),
        ({"lora_alpha": math.nan}, "lora_alpha=nan"),
        ({"lora_alpha": 1e30}, "lora_alpha=1e\\+30"),
        ({"task_type": "EVIL"}, "task_type='EVIL': Input should be 'CAUSAL_LM'"),
        ({"rank_pattern": {"((.*)*)*x": 2}}, "rank_pattern"),
        ({"layer_replication": [[0, 10**9]]}, "'layer_replication' is not supported"),
    ],
)
def test_settings_out_of_reason_are_named(tmp_path: Path, settings, words) -> None:
    with pytest.raises(UserError, match=words):
        check_folder(adapter(tmp_path, **settings), None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_offsets": [32, 64]}, "does not begin where"),
        ({"data_offsets": [0, 16]}, "not as long as"),
        ({"shape": [2, -4]}, "no known type and shape"),
        ({"dtype": "F33"}, "no known type and shape"),
    ],
)
def test_a_header_that_does_not_agree_with_its_file(tmp_path: Path, change, words) -> None:
    folder = adapter(tmp_path)
    (folder / WEIGHTS).write_bytes(safetensors(**change))
    with pytest.raises(UserError, match=f"not a whole safetensors file .*{words}"):
        check_folder(folder, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_no_weight_is_such_a_number(tmp_path: Path, value: float) -> None:
    from alignment_core.models.tensors import read

    file = tmp_path / WEIGHTS
    file.write_bytes(safetensors()[:-4] + struct.pack("<f", value))
    with pytest.raises(UserError, match=r"lora_B.*holds a number that is not finite, or larger than any weight"):
        read(file)
