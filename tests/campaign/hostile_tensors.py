"""Safetensors files that are damaged, or say what they do not hold: what is made of a good file's tensors."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_settings import INF, NAN

DEEP = '{"a":' * 50_000
DIGITS = "9" * 5_000
Edit = Callable[[Path], None]
Tensors = dict[str, tuple[str, list[int], bytes]]


def parts(data: bytes) -> Tensors:
    """Type, shape and bytes of the tensors in a whole safetensors file, by name."""
    (size,) = struct.unpack("<Q", data[:8])
    table = json.loads(data[8 : 8 + size])
    table.pop("__metadata__", None)
    body = data[8 + size :]
    return {k: (v["dtype"], v["shape"], body[slice(*v["data_offsets"])]) for k, v in table.items()}


def packed(tensors: Tensors, **more: Any) -> bytes:
    """A safetensors file of whatever is given; `more` are keys put over the first tensor's entry."""
    table, at = {}, 0
    for number, (name, (dtype, shape, data)) in enumerate(tensors.items()):
        place = [at, at + len(data)]
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": place, **({} if number else more)}
        at += len(data)
    return framed(json.dumps(table).encode(), b"".join(data for _, _, data in tensors.values()))


def framed(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def number(value: float, dtype: str = "F32", part: str = "") -> Callable[[Tensors], bytes]:
    """The first value of one tensor, or all of another type."""
    size = {"F32": "<f", "F64": "<d"}[dtype]

    def edit(tensors: Tensors) -> bytes:
        name = next(n for n in tensors if part in n)
        _, shape, data = tensors[name]
        count = math.prod(shape)
        values = struct.pack(size, value) + (data[4:] if dtype == "F32" else struct.pack(size, 0.5) * (count - 1))
        return packed(tensors | {name: (dtype, shape, values)})

    return edit


def retyped(dtype: str, width: int) -> Callable[[Tensors], bytes]:
    return lambda tensors: packed({n: (dtype, s, b"\x01" * (math.prod(s) * width)) for n, (_, s, _) in tensors.items()})


def reshaped(change: Callable[[list[int]], list[int]]) -> Callable[[Tensors], bytes]:
    def edit(tensors: Tensors) -> bytes:
        name = sorted(tensors)[0]
        shape = change(list(tensors[name][1]))
        return packed(tensors | {name: ("F32", shape, b"\0" * (4 * math.prod(shape)))})

    return edit


def renamed(change: Callable[[str], str]) -> Callable[[Tensors], bytes]:
    return lambda tensors: packed({change(n): t for n, t in tensors.items()})


def whole(tensors: Tensors) -> bytes:
    return packed(tensors)


def cut(at: int) -> Callable[[Tensors], bytes]:
    return lambda tensors: whole(tensors)[:at]


def twice(tensors: Tensors) -> bytes:
    """The same name in the header twice, with two places."""
    name, (dtype, shape, data) = next(iter(tensors.items()))
    one = json.dumps({"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]})
    two = json.dumps({"dtype": dtype, "shape": shape, "data_offsets": [len(data), 2 * len(data)]})
    return framed(f'{{"{name}": {one}, "{name}": {two}}}'.encode(), data + b"\x7f" * len(data))


def overlapping(tensors: Tensors) -> bytes:
    """Every tensor on the first one's bytes."""
    longest = max(len(data) for _, _, data in tensors.values())
    table = {n: {"dtype": d, "shape": s, "data_offsets": [0, len(b)]} for n, (d, s, b) in tensors.items()}
    return framed(json.dumps(table).encode(), b"\0" * longest)


TENSORS: dict[str, Callable[[Tensors], bytes]] = {
    **{f"{v} in {p or 'the first'}": number(v, part=p) for v in (NAN, INF, -INF, 1e30, -3e38) for p in ("_A", "_B")},
    "1e300 in float64": number(1e300, "F64", "_A"),
    "NaN in float64": number(NAN, "F64", "_B"),
    **{
        f"of {t}": retyped(t, w)
        for t, w in (
            ("I8", 1),
            ("U8", 1),
            ("BOOL", 1),
            ("I16", 2),
            ("I32", 4),
            ("I64", 8),
            ("C64", 8),
            ("F8_E4M3", 1),
            ("F33", 4),
            ("F16", 2),
            ("BF16", 2),
        )
    },
    "transposed": reshaped(lambda s: s[::-1]),
    "rank 10,000": reshaped(lambda s: [10_000, s[-1]]),
    "a scalar": reshaped(lambda s: []),
    "of nothing": reshaped(lambda s: [0, s[-1]]),
    "of three axes": reshaped(lambda s: [1, *s]),
    "wider": reshaped(lambda s: [s[0], 2 * s[-1]]),
    "negative shape": lambda t: packed(t, shape=[-1, -16]),
    "shape of halves": lambda t: packed(t, shape=[0.5, 32]),
    "shape of texts": lambda t: packed(t, shape=["2", "16"]),
    "no shape": lambda t: packed(t, shape=None),
    "shape beyond 64 bits": lambda t: packed(t, shape=[2**63, 2**63]),
    "shape of yes": lambda t: packed(t, shape=[True, 32]),
    "zero times 64 bits": lambda t: packed(t, shape=[0, 2**63]),
    "no type": lambda t: packed(t, dtype=None),
    "type a list": lambda t: packed(t, dtype=["F32"]),
    "place reversed": lambda t: packed(t, data_offsets=[128, 0]),
    "place negative": lambda t: packed(t, data_offsets=[-128, 0]),
    "place of one": lambda t: packed(t, data_offsets=[0]),
    "place far away": lambda t: packed(t, data_offsets=[2**62, 2**62 + 128]),
    "entry a list": lambda t: framed(b'{"a": []}', b""),
    "a name twice": twice,
    "overlapping": overlapping,
    "header a list": lambda t: framed(b"[]", b""),
    "header not JSON": lambda t: framed(b"{evil", b""),
    "header empty": lambda t: framed(b"", b""),
    "header of nothing": lambda t: framed(b"{}", b""),
    "deep header": lambda t: framed(DEEP.encode(), b""),
    "header of digits": lambda t: framed(f'{{"a": {DIGITS}}}'.encode(), b""),
    "header not text": lambda t: framed(b"\xff" * 9, b""),
    "header without end": lambda t: struct.pack("<Q", 2**63) + whole(t)[8:],
    "surplus bytes": lambda t: whole(t) + b"x",
    **{f"cut at {at}": cut(at) for at in (0, 4, 8, 20, 200, -1, -64)},
    "metadata of numbers": lambda t: framed(json.dumps({"__metadata__": {"a": 5}}).encode(), b""),
    "a tensor less": lambda t: packed(dict(list(t.items())[1:])),
    "names of another": renamed(lambda n: n.replace("layers.0", "layers.7")),
    "a name of two lines": renamed(lambda n: n + "\n\x1b[31m"),
    "an empty name": renamed(lambda n: n[:-6] if n.endswith("x") else ""),
    "names of a path": renamed(lambda n: f"../{n}"),
    "1,000 more": lambda t: packed(t | {f"evil.{i}": ("F32", [1], b"\0" * 4) for i in range(1000)}),
}


def tensors(file: str, change: Callable[[Tensors], bytes]) -> Edit:
    def edit(place: Path) -> None:
        (place / file).write_bytes(change(parts((place / file).read_bytes())))

    return edit
