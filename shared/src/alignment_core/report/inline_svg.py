"""A drawn SVG made a part of an HTML page that forbids style attributes and follows the reader's light or dark."""

from __future__ import annotations

import re

from markupsafe import Markup

from alignment_core.report.lettering import INK, PALETTE, QUIET, RULE
from alignment_core.text import for_html

_STYLE_ATTRIBUTE = re.compile(r' style="([^"]*)"')
_ID = re.compile(r'( id="|url\(#|href="#)([\w.-]+)')
_SCALE = 1.35
"""CSS pixels to a point, so that letters are as tall in every figure and near to the page's own."""
_THEMED = {"#ffffff": "paper", INK: "ink", QUIET: "quiet", RULE: "rule", "#e9ecef": "grid"}
_CLASSES = _THEMED | {color: f"c{k}" for k, color in enumerate(PALETTE)}
_DARK = {
    "paper": "#15181c",
    "ink": "#e8eaed",
    "quiet": "#a2abb5",
    "rule": "#3a4149",
    "grid": "#2a2f36",
    "c0": "#5ab2f2",
    "c1": "#ff9d5c",
    "c2": "#45cc9f",
    "c3": "#e893c8",
    "c4": "#dfbb45",
    "c5": "#a9b8c9",
}


def inline(svg: str, name: str, title: str) -> Markup:
    """A drawn SVG as a part of an HTML page whose policy allows no style attribute.

    Style declarations become presentation attributes, the drawing's colours classes (`fill-ink`, `stroke-c0`) that
    the page's style sheet gives a light and a dark value, ids get the figure's name in front, and `title` names the
    picture for those who do not see it.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.S)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = _STYLE_ATTRIBUTE.sub(lambda m: _attributes(m.group(1)), body)
    body = _ID.sub(lambda m: f"{m.group(1)}{name}-{m.group(2)}", body)
    opening = re.sub(r' (width|height|version|xmlns(:xlink)?)="[^"]*"', "", body[: body.index(">")])
    wide = round(_SCALE * float(body[body.index('width="') + 7 :].partition("pt")[0]))
    head = f'{opening} width="{wide}" role="img" aria-label="{for_html(title)}" stroke-linejoin="round" class="figure">'
    return Markup(re.sub(r"\s*\n\s*", "\n", head + body[body.index(">") + 1 :]).strip())


def _attributes(style: str) -> str:
    parts, classes = [], []
    for declaration in style.replace("&quot;", "'").split(";"):
        key, _, value = (t.strip() for t in declaration.partition(":"))
        if key in ("fill", "stroke") and value in _CLASSES:
            classes.append(f"{key}-{_CLASSES[value]}")
        elif key and key != "font-family":
            parts.append(f'{key}="{value}"')
    named = [f'class="{" ".join(classes)}"'] if classes else []
    return "".join(f" {p}" for p in [*named, *parts])


def colours(*, dark: bool) -> str:
    """CSS rules that give the classes of `inline` their light or dark colours."""
    values = _DARK if dark else {name: value for value, name in _CLASSES.items()}
    return "".join(f".fill-{n}{{fill:{v}}}.stroke-{n}{{stroke:{v}}}" for n, v in values.items())
