"""`mini-cai chat` with folders of other people: what is refused is one line and exit code 2, what is whole answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignment_core.config import LoraSettings, ModelSettings
from alignment_core.models import load, lora, miniature
from alignment_core.models.adapter import BASE, CONFIG, WEIGHTS
from mini_cai.cli import app


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an adapter for it, and the two merged."""
    import torch

    place = tmp_path_factory.mktemp("whole")
    settings = ModelSettings(name=str(miniature.build(place / "model", hidden=16, layers=1)), device="cpu")
    torch.manual_seed(0)
    held = load.load(settings, trainable=True)
    tuned = lora.add_adapter(held.model, LoraSettings(r=2, alpha=4, dropout=0.0, targets=("q_proj", "v_proj")))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    lora.save_adapter(tuned, place / "adapter", load.identity(settings)["weights"])
    tuned.merge_and_unload().save_pretrained(place / "merged")
    held.tokenizer.save_pretrained(place / "merged")
    return place


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "place")


def chat(folder: Path, base: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["chat", str(folder), "--model", base], input="Hello\n")
    assert "Traceback" not in done.output
    return done.exit_code, done.output


def test_an_adapter_and_the_whole_model_it_makes_say_the_same(place: Path) -> None:
    code, adapted = chat(place / "adapter", str(place / "model"))
    assert code == 0, adapted
    code, merged = chat(place / "merged", str(place / "model"))
    assert code == 0, merged
    assert adapted.splitlines()[1:] == merged.splitlines()[1:]


def edited(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def poisoned(place: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(place / "adapter" / WEIGHTS)
    first = sorted(state)[0]
    state[first][0, 0] = float("nan")
    save_file(state, place / "adapter" / WEIGHTS)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: edited(p / "adapter" / CONFIG, r=10**9), "r=1000000000"),
        (lambda p: edited(p / "adapter" / CONFIG, lora_alpha=float("nan")), "lora_alpha=nan"),
        (lambda p: edited(p / "adapter" / CONFIG, task_type="EVIL"), "task_type='EVIL'"),
        (lambda p: edited(p / "adapter" / BASE, sha256="0" * 64), "was trained on model"),
        (lambda p: (p / "adapter" / WEIGHTS).write_bytes(b"cut"), "not a whole safetensors file"),
        (poisoned, "holds a number that is not finite"),
        (lambda p: edited(p / "model" / "config.json", hidden_size=10**12), "is no size of a model"),
    ],
)
def test_what_cannot_be_used_is_one_line(place: Path, harm, words) -> None:
    harm(place)
    if words == "is no size of a model":
        (place / "adapter" / BASE).unlink()
    code, said = chat(place / "adapter", str(place / "model"))
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (code, len(errors)) == (2, 1), said
    assert words in errors[0]
    assert "internal error" not in said


def test_an_adapter_of_one_embedded_model_is_refused_on_another(place: Path) -> None:
    base = {"kind": "organism", "name": "organism", "sha256": "0" * 64}
    (place / "adapter" / BASE).write_text(json.dumps(base))
    code, said = chat(place / "adapter", "organism:2")
    assert code == 2
    assert "was trained on organism (000000000000), not on organism:2" in said
