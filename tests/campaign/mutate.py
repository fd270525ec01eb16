"""Damage to a file's bytes: what a broken disk, a bad export, a careless hand or a stranger would leave."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

TOKENS = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r\n", b"\r", b"\n", b"\t", b"\x1b[31m", b'"', b"'", b",",
    b"{", b"}", b"[", b"]", b":", b"\\", b"\\ud800", b"\\u0000", b"null", b"true", b"NaN", b"-Infinity", b"1e999",
    b"-0", b"0x10", b"{}", b"[]", b'""', b"=", b"#", b"\xe2\x80\xae", b"\xc2\x85", b"{% raw %}", b"{{ 1/0 }}", b"%n%s",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 0.5, 1e308, float("nan"), float("inf"), "", " ",
    "x", "\ud800", "\x00", "1", "true", "NaN", "\u202eabc", "é" * 300, [], {}, [[]], [None], {"": None}, [1, 2, 3],
    {"a": {"b": {"c": []}}}, "A" * 20_000,
)  # fmt: skip


def flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data or b"\x00")
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def drop(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 10, 100)) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    part = data[start : start + rng.choice((1, 5, 50, 500))]
    return data[:start] + part * rng.choice((2, 3, 50)) + data[start:]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def nest(data: bytes, rng: random.Random) -> bytes:
    deep = rng.choice((b"[", b'{"a":')) * rng.choice((50, 2_000, 100_000))
    at = rng.choice((0, len(data), rng.randrange(len(data) + 1)))
    return data[:at] + deep + data[at:]


def digits(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + b"9" * rng.choice((20, 400, 5_000)) + data[at:]


def long_line(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((b"a", b" ", b'"', b"[ ")) * rng.choice((10_000, 300_000)) + data[at:]


def lines(data: bytes, rng: random.Random) -> bytes:
    parts = data.split(b"\n")
    how = rng.randrange(5)
    if how == 0:
        rng.shuffle(parts)
    elif how == 1:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(parts))
    elif how == 2:
        del parts[rng.randrange(len(parts))]
    elif how == 3:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(TOKENS))
    else:
        return rng.choice((b"\r\n", b"\r", b"\n\n")).join(parts)
    return b"\n".join(parts)


def encoded(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32-le")), "replace")


def value(data: bytes, rng: random.Random) -> bytes:
    """One JSON value, key or line exchanged for a strange one, where there is JSON; else a flip."""
    whole = rng.random() < 0.5 or b"\n" not in data.strip()
    parts = [data] if whole else data.split(b"\n")
    at = rng.randrange(len(parts))
    try:
        row = json.loads(parts[at])
    except (ValueError, RecursionError):
        return flip(data, rng)
    changed = _changed(row, rng)
    text = json.dumps(changed, ensure_ascii=rng.random() < 0.8)
    if rng.random() < 0.1 and text.startswith('{"'):
        key = text[1 : text.index(":")]
        text = f"{{{key}: 1, {text[1:]}"  # the same key twice
    parts[at] = text.encode("utf-8", "surrogatepass")
    return b"\n".join(parts)


def _changed(row: Any, rng: random.Random) -> Any:
    if isinstance(row, dict) and row and rng.random() < 0.9:
        key = rng.choice(list(row))
        how = rng.random()
        if how < 0.6:
            return {k: _changed(v, rng) if k == key else v for k, v in row.items()}
        if how < 0.75:
            return {k: v for k, v in row.items() if k != key}
        if how < 0.9:
            return {**row, key: rng.choice(VALUES)}
        return {**row, rng.choice(("", "extra", "__class__", "\ud800", key.upper())): rng.choice(VALUES)}
    if isinstance(row, list) and row and rng.random() < 0.8:
        at = rng.randrange(len(row))
        return [_changed(v, rng) if i == at else v for i, v in enumerate(row)]
    return rng.choice(VALUES)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip, cut, drop, repeat, insert, nest, digits, long_line, lines, encoded, value, value, value, value, value, insert,
)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` after one to three kinds of damage."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(data, rng)
    return data
