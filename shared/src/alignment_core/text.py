"""Hostile text made harmless for each place it is shown in: terminal, markdown, HTML, CSV, LaTeX.

Model replies, prompts and names are shown, never obeyed. `visible` turns everything that steers a display (C0 and C1
controls, ANSI escapes, bidirectional and zero-width format characters, lone surrogates) into a readable escape such
as `\\x1b` or `\\u202e`; the other functions start from it and add what their own syntax needs.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

_KEPT = {"\n", "\t"}
# Format characters that steer nothing but are needed to write some scripts and emoji sequences.
_JOINERS = {"\u200c", "\u200d"}


@lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    code = ord(character)
    steers = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") or 0xFDD0 <= code <= 0xFDEF
    if (steers and character not in _JOINERS) or code & 0xFFFE == 0xFFFE:
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def visible(text: str, *, lines: bool = False) -> str:
    """`text` with every steering character as a readable escape; newline and tab stay only with `lines`.

    The result is printable in any terminal and encodes to UTF-8.
    """
    if text.isascii() and text.isprintable():
        return text
    if lines:
        return "".join(c if c in _KEPT else _shown(c) for c in text)
    return "".join({"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c) or _shown(c) for c in text)


def for_html(text: str, *, lines: bool = False) -> str:
    """Escaped for HTML text and quoted attributes."""
    return html.escape(visible(text, lines=lines), quote=True)


# Marks that always need an escape; the rest of what CommonMark and GitHub give a meaning to only needs one where it
# would act, which leaves `0.30 [0.24, 0.37] (n=200)` readable in the source.
_MARKS = {ord(c): f"&#{ord(c)};" for c in "\\`*_{}<>&|#@$~"}
_ACTS = re.compile(r"!(?=\[)|\](?=[(\[:])|:(?=//)|(?<=www)\.|^(?:[-+](?=[\s-]|$)|=|\d+(?=[.)](?:\s|$)))", re.IGNORECASE)


def for_markdown(text: str) -> str:
    """Escaped for running markdown text or a table's cell, on one line: no link, image, HTML or autolink survives.

    Marks become numeric references: a backslash would not stop the autolinks that some renderers add.
    """
    marked = visible(text).strip().translate(_MARKS)
    return _ACTS.sub(lambda m: "".join(f"&#{ord(c)};" for c in m.group()), marked)


def for_csv(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: a leading apostrophe where one could start.

    Control characters are escaped first, so that a cell is one line.
    """
    shown = visible(text)
    starts = shown.lstrip(" \u00a0")[:1]
    risky = starts in ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20") or text[:1] in ("\t", "\r", "\n")
    return f"'{shown}" if starts and risky else shown


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def for_latex(text: str) -> str:
    """Escaped for LaTeX text, a table's cell too: a row that began with a bracket or an asterisk would be taken for
    an argument of the row before."""
    shown = visible(text).lstrip()
    first = f"{{{shown[0]}}}" if shown[:1] in ("[", "*") else ""
    return first + "".join(_LATEX.get(c, c) for c in (shown[1:] if first else shown))


def number(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """A figure for a table; `n/a` where it is undefined. A rounded zero has no sign."""
    if value is None:
        return "n/a"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def p_value(p: float | None) -> str:
    """A p-value: three digits, `<.001` below."""
    if p is None:
        return "n/a"
    return "<.001" if p < 0.001 else f"{p:.3f}"
