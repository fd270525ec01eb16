"""Adapters and model folders that are damaged, absurd or meant to do harm: each a name and what is done to good ones.

`CASES` are edits of a folder that holds `model/` and `adapter/`, both whole. Promised of every one: it is refused in
one line, or loads as a model whose logits are numbers; nothing in it is run; it ends.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile_settings import CONFIG, GENERATION, INF, NAN, SETTINGS, TOKENIZER, TOKENIZER_CONFIG
from hostile_tensors import DEEP, DIGITS, TENSORS, Edit, number, tensors

MARK = "code-was-run"
"""The file that a case's code would write, in the folder of the case."""


def setting(file: str, key: str, value: Any) -> Edit:
    """One key of a JSON file, as no JSON writer would refuse it."""

    def edit(place: Path) -> None:
        path = place / file
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return edit


def settings(file: str, table: dict[str, tuple[Any, ...]]) -> Iterator[tuple[str, Edit]]:
    for key, values in table.items():
        for value in values:
            yield f"{file}: {key}={value!r:.40}", setting(file, key, value)


TEXTS: dict[str, bytes] = {
    "empty": b"", "not JSON": b"{evil", "a list": b"[]", "a number": b"5", "null": b"null", "deep": DEEP.encode(),
    "digits": f'{{"r": {DIGITS}}}'.encode(), "another encoding": '{"r": 2}'.encode("utf-16"), "zeros": b"\0" * 100,
}  # fmt: skip


def text(file: str, data: bytes) -> Edit:
    return lambda place: ((place / file).write_bytes(data) and None) or None


def gone(file: str) -> Edit:
    return lambda place: (place / file).unlink()


class Code:
    """A pickle that writes `MARK` when it is read."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return (Path.touch, (self.place / MARK,))


def pickled(file: str, instead: str) -> Edit:
    def edit(place: Path) -> None:
        (place / instead).unlink()
        (place / file).write_bytes(pickle.dumps(Code(place)))

    return edit


def module(place: Path) -> None:
    """The Python file that `auto_map` and its relatives name in these cases."""
    code = f"import pathlib\npathlib.Path({str(place / MARK)!r}).touch()\n"
    for folder in ("model", "adapter"):
        (place / folder / "evil.py").write_text(code)


BASES: dict[str, Any] = {
    "another folder": {"kind": "folder", "name": "other", "sha256": "0" * 64}, "a list": [], "nothing": {},
    "the embedded model": {"kind": "organism", "name": "organism", "sha256": "0" * 64}, "no kind": {"name": "x"},
    "an unheard-of kind": {"kind": "evil"}, "a kind of numbers": {"kind": 5}, "a list as kind": {"kind": []},
}  # fmt: skip
WEIGHTS, ADAPTER, MODEL = "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "model/model.safetensors"


JSON_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "model.safetensors.index.json")  # fmt: skip


def _cases() -> Iterator[tuple[str, Edit]]:
    yield from settings(ADAPTER, SETTINGS)
    for name, change in TENSORS.items():
        yield f"{WEIGHTS}: {name}", tensors(WEIGHTS, change)
    for name in ("a name twice", "overlapping", "deep header", "cut at -64", "of I8", "of I64", "surplus bytes",
                 "header of nothing", "a tensor less", "1,000 more", "transposed"):  # fmt: skip
        yield f"{MODEL}: {name}", tensors(MODEL, TENSORS[name])
    for value in (NAN, INF, -INF, 3e38):
        for part in ("embed", "q_proj", "lm_head"):
            yield f"{MODEL}: {value} in {part}", tensors(MODEL, number(value, part=part))
    for file in (ADAPTER, "adapter/base.json", *(f"model/{name}" for name in JSON_FILES)):
        for name, data in TEXTS.items():
            yield f"{file}: {name}", text(file, data)
    for file in (ADAPTER, WEIGHTS, "model/config.json", MODEL, "model/tokenizer.json", "model/chat_template.jinja"):
        yield f"{file}: gone", gone(file)
    for name, base in BASES.items():
        yield f"adapter/base.json: {name}", text("adapter/base.json", json.dumps(base).encode())
    yield "a pickled adapter", pickled("adapter/adapter_model.bin", WEIGHTS)
    yield "a pickled model", pickled("model/pytorch_model.bin", MODEL)
    for shards in ({"x": "../evil.safetensors"}, {"x": "gone.safetensors"}, {"x": 5}, {"x": "evil.bin"}, []):
        index = json.dumps({"weight_map": shards}).encode()
        yield f"shards {shards}", text("model/model.safetensors.index.json", index)
    yield from settings("model/config.json", CONFIG)
    yield from settings("model/generation_config.json", GENERATION)
    yield from settings("model/tokenizer_config.json", TOKENIZER_CONFIG)
    yield from settings("model/tokenizer.json", TOKENIZER)


CASES: list[tuple[str, Edit]] = list(_cases())
