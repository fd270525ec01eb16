"""The API key cut out of what a server sends, also where the server writes it in another form.

A server can repeat the key that it was sent: as it is, split by characters that are not shown (zero-width ones, other
format and control characters, combining marks), escaped as in JSON, or percent-encoded. So the text is read twice, once
with its backslashes left out and once with its escapes decoded, both times without the characters that are not shown;
what reads as the key is replaced by `***`.
"""

from __future__ import annotations

import re
import unicodedata

MASK = "***"

_ESCAPE = re.compile(
    r"(?P<bytes>(?:(?:%(?:25)*|\\+x)[0-9a-fA-F]{2})+)|\\+u(?P<unit>[0-9a-fA-F]{4})|(?P<space>\\+[nrtbf])|\\+"
)
_BACKSLASHES = re.compile(r"\\+")
_CODE = re.compile(r"[0-9a-fA-F]{2}(?=%|\\|$)")


def _hidden(character: str) -> bool:
    """Whether a character is not shown: control, format, combining, unpaired, or white space other than a space."""
    if character == " ":
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Mn", "Me", "Zl", "Zp") or character in "\u115f\u3164"


def _decoded(match: re.Match[str]) -> str:
    """What an escape stands for; nothing where it stands for what is not shown."""
    if (unit := match["unit"]) is not None:
        return chr(int(unit, 16))
    if (codes := match["bytes"]) is not None:
        return bytes(int(code, 16) for code in _CODE.findall(codes)).decode("utf-8", "replace")
    return ""


def _nothing(_: re.Match[str]) -> str:
    return ""


_READINGS = ((_BACKSLASHES, _nothing), (_ESCAPE, _decoded))
"""Two ways to read a text: which stretches of it stand for something else, and for what."""


def _spans(text: str, key: str, reading: int) -> list[tuple[int, int]]:
    """Where `key` stands in `text` as one way of reading has it."""
    pattern, meaning = _READINGS[reading]
    shown: list[str] = []
    places: list[tuple[int, int]] = []

    def keep(characters: str, start: int, end: int | None) -> None:
        for offset, character in enumerate(characters):
            if not _hidden(character):
                shown.append(character)
                places.append((start + offset, start + offset + 1) if end is None else (start, end))

    last = 0
    for match in pattern.finditer(text):
        keep(text[last : match.start()], last, None)
        keep(meaning(match), match.start(), match.end())
        last = match.end()
    keep(text[last:], last, None)
    read, found, at = "".join(shown), [], 0
    while (at := read.find(key, at)) >= 0:
        found.append((places[at][0], places[at + len(key) - 1][1]))
        at += len(key)
    return found


def _reads_as(text: str, reading: int) -> str:
    """`text` in one way of reading, all at once: the fast way to see that the key is not in it."""
    pattern, meaning = _READINGS[reading]
    read = pattern.sub(meaning, text)
    if read.isascii() and read.isprintable():
        return read
    return "".join(c for c in read if not _hidden(c))


def redact(text: str, key: str) -> str:
    """`text` with `***` in place of `key`, however it is written. `key` is printable ASCII."""
    wanted = key.replace("\\", "")
    for reading in range(len(_READINGS)):
        if wanted not in _reads_as(text, reading):
            continue
        parts, last = [], 0
        for start, end in _spans(text, wanted, reading):
            parts += [text[last:start].rstrip("\\"), MASK]  # a backslash before the key would begin an escape
            last = end
        text = "".join([*parts, text[last:]])
    return text


def redact_bytes(content: bytes, key: str) -> bytes:
    """The same for bytes, read as UTF-8; what is not UTF-8 stays as it is."""
    return redact(content.decode("utf-8", "surrogateescape"), key).encode("utf-8", "surrogateescape")
