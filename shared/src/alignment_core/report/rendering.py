"""The templates' environment: every value a template shows is escaped for the language of the template.

`{{ value }}` in `*.html.j2` passes through `text.for_html`, in `*.md.j2` through `for_markdown`, in `*.tex.j2` through
`for_latex`; a macro that is imported escapes for its own file. Autoescaping stands behind that, and an undefined name
is an error. A page has one style sheet, and a policy that allows nothing but it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from alignment_core.report.inline_svg import colours
from alignment_core.report.replies import FILTERS
from alignment_core.text import for_html, for_latex, for_markdown, visible

_ESCAPES = {"html": for_html, "md": for_markdown, "tex": for_latex}


@pass_context
def _escaped(context: Context, value: Any) -> Any:
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    language = str(context.name).split(".")[-2]
    return Markup(_ESCAPES[language](value))


def _lines(text: str) -> Markup:
    """Escaped for HTML, its line breaks kept."""
    return Markup(for_html(text, lines=True))


def _code(text: str) -> Markup:
    """For a block of code in Markdown: on one line, and otherwise as it is."""
    return Markup(visible(text))


def _alt(text: str) -> Markup:
    """A picture's name in Markdown: a bracket in it would end it."""
    return Markup(for_markdown(text).translate({ord("["): "&#91;", ord("]"): "&#93;"}))


@cache
def environment() -> Environment:
    """The environment of `report/templates`."""
    made = Environment(
        loader=PackageLoader("alignment_core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"lines": _lines, "code": _code, "alt": _alt}
    return made


def render(template: str, **values: Any) -> str:
    """A template with these values."""
    return environment().get_template(template).render(values)


def page(template: str, title: str, subjects: int = 0, **values: Any) -> str:
    """A whole page. Its style sheet is named by its hash in the page's policy; nothing else is loaded, run or sent.

    `subjects`: of how many the page shows replies.
    """
    style = style_sheet(subjects)
    return render(template, title=title, style=Markup(style), policy=policy(style), **values)


def style_sheet(subjects: int = 0) -> str:
    """The whole style sheet of a page whose replies are of so many subjects."""
    rules = [f":root:has(#v-{f}:checked) .prompt:not(.has-{f}){{display:none}}" for f in FILTERS]
    for i in range(subjects):
        picked = f".kind:has(.at{i}:target)"
        rules += [f"{picked} .reply:not(.s{i}){{display:none}}", f"{picked} .only.o{i}{{display:block}}"]
    sheet = resources.files("alignment_core.report").joinpath("page.css").read_text(encoding="utf-8")
    dark = f"@media screen and (prefers-color-scheme: dark) {{{colours(dark=True)}}}"
    return "\n".join([sheet, colours(dark=False), dark, *rules, ""])


def policy(style: str) -> str:
    """The content security policy of a page with this one style sheet."""
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
