"""Settings: preset, file and command line laid over each other, and every mistake named where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from alignment_core import config, io
from alignment_core.cli import reference
from alignment_core.config import LoraSettings, ModelSettings, Settings, TrainSettings
from alignment_core.errors import UserError, nearest


class Deep(Settings):
    inner: ModelSettings = ModelSettings()
    maybe: LoraSettings | None = None


class Study(Settings):
    size: int = 1
    train: TrainSettings = TrainSettings()
    deep: Deep = Deep()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, text in {
        "__init__.py": "",
        "presets/zeta.toml": "",
        "presets/small.toml": "size = 2",
        "presets/tiny.toml": "size = 3\n[train]\nlr = 0.25\nepochs = 2\n",
        "presets/README.md": "no preset",
        "presets/broken.toml": "size = = 2",
        "presets/wrong.toml": "sice = 2",
    }.items():
        io.write_text(tmp_path / "layered" / name, text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "layered"
    import sys

    sys.modules.pop("layered", None)


def test_presets_are_listed_tiny_first(package: str) -> None:
    assert config.presets(package) == ["tiny", "small", "broken", "wrong", "zeta"]


def test_the_command_line_wins_over_the_file_over_the_preset(package: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("size = 5\n[train]\nlr = 0.5\n")
    plain = config.resolve(Study, package)
    assert (plain.size, plain.train.lr, plain.train.epochs) == (3, 0.25, 2)
    filed = config.resolve(Study, package, "tiny", file)
    assert (filed.size, filed.train.lr, filed.train.epochs) == (5, 0.5, 2)
    full = config.resolve(Study, package, "tiny", file, ["train.lr=1e-3", "train.targets=x"][:1])
    assert (full.size, full.train.lr, full.train.epochs) == (5, 0.001, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "tinny"}, "no preset 'tinny' (did you mean 'tiny'?); there are tiny, small"),
        ({"preset": "broken"}, "preset broken: not TOML"),
        ({"preset": "wrong"}, "preset wrong: unknown key 'sice' (did you mean 'size'?)"),
        ({"overrides": ["train.learning_rate=1"]}, "command line: unknown key 'train.learning_rate'"),
        ({"overrides": ["train.eval_step=1"]}, "unknown key 'train.eval_step' (did you mean 'eval_steps'?)"),
        ({"overrides": ["deep.inner.nam=x"]}, "unknown key 'deep.inner.nam' (did you mean 'name'?)"),
        ({"overrides": ["deep.maybe.alfa=1"]}, "unknown key 'deep.maybe.alfa' (did you mean 'alpha'?)"),
        ({"overrides": ["zzzz=1"]}, "unknown key 'zzzz'; known here: size, train, deep"),
        ({"overrides": ["train.lr=fast"]}, "command line: train.lr: input should be a valid number"),
        ({"overrides": ["train.lr=-1"]}, "command line: train.lr: input should be greater than 0, found -1"),
        ({"overrides": ["train=3"]}, "command line: train:"),
        ({"overrides": ["deep.inner.quantize=int3"]}, "found 'int3'"),
        ({"overrides": ["=3"]}, "cannot read the setting '=3'"),
    ],
)
def test_each_mistake_says_what_where_and_what_would_work(package: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        config.resolve(Study, package, **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_wrong(package: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such settings file; `show tiny > none"):
        config.resolve(Study, package, "tiny", tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("size = 2\nsiez = 2\n")
    (tmp_path / "binary.toml").write_bytes(b"size = \xff")
    with pytest.raises(UserError, match=r"binary\.toml: cannot be read as text"):
        config.resolve(Study, package, "tiny", tmp_path / "binary.toml")
    with pytest.raises(UserError, match=r"bad\.toml: unknown key 'siez' \(did you mean 'size'\?\)"):
        config.resolve(Study, package, "tiny", tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1), ("a=1e-4", 1e-4), ("a=true", True), ("a=none", None), ("a=[1, 2]", [1, 2]), ('a="1"', "1"),
        ("a=Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"), ("a=x=y", "x=y"), ("a=", ""), ("a= 3 ", 3), ("a=True", "True"),
        ("a={b = 2}", {"b": 2}),
    ],
)  # fmt: skip
def test_values_on_the_command_line(text: str, value: object) -> None:
    assert config.parse_overrides([text]) == {"a": value}


def test_dotted_keys_merge() -> None:
    assert config.parse_overrides(["a.b=1", "a.c.d=2", "a.b=3"]) == {"a": {"b": 3, "c": {"d": 2}}}
    assert config.merge({"a": {"b": 1}, "c": 2}, {"a": {"d": 3}, "c": {"e": 4}}) == {
        "a": {"b": 1, "d": 3},
        "c": {"e": 4},
    }


def test_a_presets_template_and_commit_are_for_the_presets_model() -> None:
    preset = {"model": {"name": "a/b", "revision": "0", "template": "qwen3", "dtype": "float32"}}
    assert config.merge(preset, {"model": {"name": "c/d"}}) == {"model": {"name": "c/d", "dtype": "float32"}}
    assert config.merge(preset, {"model": {"name": "a/b", "quantize": "nf4"}})["model"]["template"] == "qwen3"
    named = config.merge(preset, {"model": {"name": "c/d", "template": "own"}})
    assert named["model"] == {"name": "c/d", "template": "own", "dtype": "float32"}


def test_a_value_that_smuggles_toml_is_only_a_value() -> None:
    assert set(config.parse_overrides(["a=1\nb = 2"])) == {"a"}


def test_settings_are_frozen_and_closed() -> None:
    settings = TrainSettings()
    with pytest.raises(ValidationError):
        settings.lr = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError):
        TrainSettings(learning_rate=1.0)  # type: ignore[call-arg]


def test_every_shared_field_has_a_help_text() -> None:
    for section in vars(config).values():
        if isinstance(section, type) and issubclass(section, Settings):
            for name, info in section.model_fields.items():
                assert info.description, f"{section.__name__}.{name}"


def test_nearest() -> None:
    assert nearest("sise", ["size", "train"]) == " (did you mean 'size'?)"
    assert nearest("qqqq", ["size"]) == ""
    assert nearest("x", []) == ""


VALUES = (
    st.text()
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.lists(st.text(), max_size=3)
    | st.dictionaries(st.text(), st.integers(0, 9), max_size=2)
)


@given(st.dictionaries(st.text(), VALUES))
def test_written_toml_reads_back(values: dict[str, Any]) -> None:
    text = "\n".join(f"{reference.toml_key(k)} = {reference.toml_value(v)}" for k, v in values.items())
    assert config.parse_toml(text, "written") == values


def test_toml_has_no_null() -> None:
    with pytest.raises(ValueError, match="no null"):
        reference.toml_value(None)
    assert reference.toml_value(LoraSettings(targets="all-linear")).startswith("{r = 16, alpha = 32")


def test_the_listing_shows_a_sections_own_defaults() -> None:
    class Other(Settings):
        train: TrainSettings = TrainSettings(lr=1e-5)
        """Training."""

    rows = {key: default for key, _, default, _ in reference.listing(Other)}
    assert rows["train.lr"] == "1e-05"
    assert rows["train.max_steps"] == "none"
    kinds = {key: kind for key, kind, _, _ in reference.listing(Study)}
    assert kinds["train.scheduler"] == "cosine | linear | constant"
    assert kinds["train.report_to"] == "list of tensorboard | wandb | trackio"
    assert kinds["train.max_steps"] == "whole number | none"
