"""The page's style sheet (`page.css` and what depends on the page) and the policy that allows it alone."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from alignment_core.report.inline_svg import colours

FILTERS = ("flips", "refusal", "partial", "compliance", "incoherent", "missing")
"""What the replies can be narrowed to, beside `all`."""


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
    """The content security policy of a page with this one style sheet: nothing else is loaded, run or sent."""
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
