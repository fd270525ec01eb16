"""Put hostile texts through every output, and hold each to the shape it has with a plain word; then a real browser."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import outputs
from hostile import TRICKS, texts
from outputs import PLAIN, make
from record import Part, options, say

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def case(made: Callable[[Path], outputs.Outputs], place: Path, plain: outputs.Outputs) -> list[str]:
    """What one text did, by output."""
    folder = place / "case"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return outputs.check(made(folder), plain)
    except Exception as error:  # noqa: BLE001 - whatever escapes is the finding
        at = traceback.extract_tb(error.__traceback__)[-1]
        return [f"{type(error).__name__} in {Path(at.filename).name}:{at.lineno}: {str(error)[:160]}"]


def browser(given: list[str], place: Path) -> dict[str, Any]:
    """Pages of many texts in a headless browser: no word on its console, no request, no dialog, no script run."""
    command = next((b for b in BROWSERS if shutil.which(b)), None)
    if command is None:
        return {"pages": 0, "skipped": "no headless browser is installed", "wrong": []}
    from alignment_core.report import page

    wrong, pages = [], 0
    for start in range(0, len(given), 100):
        some = given[start : start + 100]
        pairs = [outputs.judged(t) for t in some]
        replies = ([c for cs, _ in pairs for c in cs], [v for _, vs in pairs for v in vs])
        path = place / f"page{start}.html"
        first = some[0]
        path.write_text(page.render(outputs.found(first), outputs.spec(first), None, *replies), encoding="utf-8")
        log = place / f"net{start}.json"
        asked = [command, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                 "--virtual-time-budget=2000", f"--user-data-dir={place / 'profile'}", f"--log-net-log={log}",
                 "--dump-dom", f"file://{path}"]  # fmt: skip
        done = subprocess.run(asked, capture_output=True, text=True, errors="replace", timeout=180, check=False)
        pages += 1
        if done.returncode != 0:
            wrong.append(f"page {pages}: the browser ended with {done.returncode}")
        wrong += [f"page {pages}: console: {line[:150]}" for line in done.stderr.splitlines() if "CONSOLE" in line]
        asked_for = re.findall(r'"url":"(https?://evil[^"]*)"', log.read_text(errors="replace") if log.exists() else "")
        wrong += [f"page {pages}: asked for {address[:100]}" for address in asked_for]
        if re.search(r"<title>owned", done.stdout):
            wrong.append(f"page {pages}: a script ran")
    return {"pages": pages, "wrong": wrong}


def main() -> int:
    """`--figures N` draws every N-th text in figures too, `--studies N` puts it into the studies' own reports."""
    given = options(__doc__ or "", cases=500, browser=1, figures=5, studies=100)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    part = Part("texts", given.out, seed=given.seed, cases=given.cases)
    chosen = texts(given.cases, given.seed)
    done = sum(r["cases"] for r in part.rows if "cases" in r)
    with tempfile.TemporaryDirectory() as place:
        plain = {figures: make(PLAIN, Path(place) / f"plain{figures}", figures) for figures in (False, True)}
        in_studies = outputs.of_studies(PLAIN, Path(place) / "studies") if given.studies else {}
        findings: list[str] = []
        for number in range(done, given.cases):
            figures = number % given.figures == 0
            found = case(partial(make, chosen[number], figures=figures), Path(place), plain[figures])
            if given.studies and number % given.studies == 0:
                found += case(partial(outputs.of_studies, chosen[number]), Path(place), in_studies)
            findings += [f"text {number}, {w}" for w in found]
            if (number + 1) % 20 == 0 or number + 1 == given.cases:
                part.add({"cases": number + 1 - done, "findings": findings})
                for finding in findings:
                    say(finding)
                say(f"texts: {number + 1} of {given.cases}")
                done, findings = number + 1, []
        seen = next((r["browser"] for r in part.rows if "browser" in r), None)
        if seen is None:
            seen = (
                browser(chosen, Path(place)) if given.browser else {"pages": 0, "skipped": "not asked for", "wrong": []}
            )
            part.add({"browser": seen})
    obeyed = [f for r in part.rows for f in r.get("findings", ())] + seen["wrong"]
    part.finish(ran=done, tricks=sum(map(len, TRICKS.values())), kinds=sorted(TRICKS),
                outputs=sorted([*plain[True], *in_studies]),
                browser=seen, findings=obeyed)  # fmt: skip
    say(f"texts: {done} texts, {len(obeyed)} findings; {seen['pages']} pages in a browser")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
