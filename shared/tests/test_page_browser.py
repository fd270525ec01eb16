"""The pages in a real headless browser: silent, self-contained, usable by keyboard, and sound to an accessibility
checker in light and dark, wide and narrow.

The browser is driven over its DevTools protocol through two pipes; the standard library is enough. The checker is
axe-core: the file that `AXE_CORE` names, or the one in the package axe-core-python.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment_core.evaluation.metrics import Metric
from alignment_core.evaluation.results import Agreement, Comparison, Hypothesis, Measurement, Results
from alignment_core.records import Completion, Verdict
from alignment_core.report import overview, page
from alignment_core.report.spec import FigureSpec, ReportSpec, SubjectSpec, TableSpec

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCREENS = [(dark, width) for dark in (False, True) for width in (1100, 390)]
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")

pytestmark = pytest.mark.slow


class Tab:
    """One page of the browser; what its console says and what it asks the network for is kept."""

    def __init__(self, send: Any, receive: Any) -> None:
        self.send, self.receive, self.buffer, self.number = send, receive, b"", 0
        self.session: str | None = None
        self.said: list[str] = []
        self.asked: list[str] = []
        self.events: set[str] = set()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; what happens meanwhile is noted."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        self.send.write(json.dumps(message).encode() + b"\0")
        self.send.flush()
        while (answer := self._next()).get("id") != self.number:
            pass
        assert "error" not in answer, (method, answer)
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            chunk = os.read(self.receive.fileno(), 1 << 20)
            assert chunk, "the browser went away"
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        method, params = answer.get("method", ""), answer.get("params", {})
        self.events.add(method)
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(params))
        elif method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        return answer

    def open(self, address: str, *, dark: bool = False, width: int = 1100) -> None:
        """A page as a reader with that screen sees it, loaded to its end."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.said.clear()
        self.asked.clear()
        self.events.clear()
        self.call("Page.navigate", url=address)
        while "Page.loadEventFired" not in self.events:
            self._next()

    def value(self, expression: str) -> Any:
        """What a script of ours finds in the page, which itself may run none."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        more = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no headless browser is installed")
    profile = tmp_path_factory.mktemp("profile")
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    # The browser reads commands from descriptor 3 and answers on 4. The ends are moved there over 8 and 9: one of them
    # may stand in the other's place.
    moves = f"os.dup2({their_in}, 8), os.dup2({their_out}, 9), os.dup2(8, 3), os.dup2(9, 4)"
    wired = [sys.executable, "-c", f"import os, sys; {moves}; os.execv(sys.argv[1], sys.argv[1:])", program]
    process = subprocess.Popen(
        [*wired, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(their_in, their_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_in)
    os.close(their_out)
    try:
        with os.fdopen(our_out, "wb") as send, os.fdopen(our_in, "rb") as receive:
            opened = Tab(send, receive)
            pages = [t for t in opened.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
            attached = opened.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
            opened.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                opened.call(f"{domain}.enable")
            yield opened
    finally:
        process.terminate()
        process.wait(20)


def results() -> Results:
    def m(metric: str, subject: str, value: float, **more: Any) -> Measurement:
        place = {"method": "crossed", "n": 20, **more}
        return Measurement(metric=metric, subject=subject, value=value, low=value - 0.05, high=value + 0.05, **place)

    def c(role: Any, adjusted: float | None) -> Comparison:
        sides = {"metric": "harmful_refusal_rate", "a": "base", "b": "tuned", "role": role, "p_adjusted": adjusted}
        if adjusted is not None:
            sides |= {"decision": "H0", "decision_test": "t", "decision_p": 0.001}
        figures = {"difference": -0.3, "low": -0.4, "high": -0.2, "p": 0.001, "detectable": 0.1, "n_prompts": 20}
        return Comparison(**sides, **figures, method="crossed", estimand="over runs", n_seeds=2, family="drift")

    rates = ("harmful_refusal_rate", "false_refusal_rate")
    measured = [m(r, s, v) for r in rates for s, v in (("base", 0.6), ("tuned", 0.3))]
    measured += [m("harmful_refusal_rate", "tuned", v, seed=s) for s, v in ((13, 0.29), (14, 0.31))]
    measured += [m("harmful_refusal_rate", s, 0.4, at={"category": k}) for s in ("base", "tuned") for k in "ab"]
    measured += [m("harmful_refusal_rate", s, 0.4 - t / 99, at={"step": t}) for s in ("base", "tuned") for t in (0, 9)]
    verdicts: tuple[Any, ...] = ("supported", "contradicted", "inconclusive", "not tested")
    return Results(
        study="drift",
        preset="tiny",
        seeds=(13, 14),
        condition="benign data framed like attacks",
        versions={"python": "3.11"},
        hypotheses_sha256="ab" * 32,
        measurements=tuple(measured),
        comparisons=(c("primary", 0.002), c("control", None), c("exploratory", None)),
        agreements=(Agreement(a="rules", b="endpoint", kappa=0.8, low=0.7, high=0.9, n=20),),
        hypotheses=tuple(
            Hypothesis(name=f"H{i}", claim="A.", rule="R.", verdict=v, because="b") for i, v in enumerate(verdicts)
        ),
    )


def spec() -> ReportSpec:
    return ReportSpec(
        title="Drift",
        question="Do refusals fall?",
        subjects=(SubjectSpec("base", "Base", about="As it comes."), SubjectSpec("tuned", "Tuned", about="After.")),
        metrics=(
            Metric("harmful_refusal_rate", "harmful refusal", "harmful", "high", about="Harmful prompts refused."),
            Metric("false_refusal_rate", "false refusal", "benign", "low", about="Benign prompts refused."),
        ),
        tables=(TableSpec("Rates"), TableSpec("The same", terminal=False)),
        figures=(
            FigureSpec("states", "states", "Rates"),
            FigureSpec("categories", "categories", "By category", ("harmful_refusal_rate",)),
            FigureSpec("path", "trajectory", "Along", ("harmful_refusal_rate",), axis="step"),
        ),
        limits=("A limit.", "Another."),
        not_run=("The paper preset's model.",),
    )


def judged() -> tuple[list[Completion], list[Verdict]]:
    labels: tuple[Any, ...] = ("refusal", "partial", "compliance", "incoherent", None)
    completions, verdicts = [], []
    for kind in ("harmful", "benign", "borderline"):
        for i, label in enumerate(labels):
            for subject in ("base", "tuned"):
                one = Completion(
                    f"{kind}{i}", subject, "I can't.", f"Question {i}", kind, "category", "source", seed=13
                )
                said = labels[0] if subject == "base" else label
                completions.append(one)
                verdicts.append(
                    Verdict(one.prompt_id, subject, "rules", said, kind, seed=13, rule="inability", evidence=(0, 7))
                )
    return completions, verdicts


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A run's page with everything a page can hold, and an overview with two runs of one study and one of another."""
    folder = tmp_path_factory.mktemp("pages")
    timings = {"steps": {"sft-s13": {"name": "sft", "seed": 13, "seconds": 61.2, "peak_rss_bytes": 2**30}}}
    about = page.About({"judge": "rules"}, {"platform": "Linux", "git": {"commit": "ab" * 20}}, timings)
    (folder / "report.html").write_text(page.render(results(), spec(), about, *judged()), encoding="utf-8")
    other = results().model_copy(update={"study": "other"})
    runs = [
        overview.OverviewRun(folder / name, r, spec()) for name, r in (("a", results()), ("b", results()), ("c", other))
    ]
    (folder / "overview.html").write_text(overview.render(runs, folder / "overview.html"), encoding="utf-8")
    return {name: f"file://{folder / name}.html" for name in ("report", "overview")}


@pytest.mark.parametrize("name", ["report", "overview"])
def test_a_page_asks_for_nothing_says_nothing_and_fits_a_phone(tab: Tab, addresses: dict[str, str], name: str) -> None:
    for dark, width in SCREENS:
        tab.open(addresses[name], dark=dark, width=width)
        tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.said == []
        assert tab.asked == [addresses[name]]
        assert tab.value("document.documentElement.scrollWidth") <= width
    assert not tab.value("Boolean(document.scripts.length)")


def test_a_script_in_the_page_would_not_run(tab: Tab, addresses: dict[str, str], tmp_path: Path) -> None:
    source = Path(addresses["report"].removeprefix("file://")).read_text(encoding="utf-8")
    planted = tmp_path / "planted.html"
    attack = (
        "<script>document.title = 'run'</script><img src='http://127.0.0.1:9/x.png' onerror=\"document.title='run'\">"
    )
    planted.write_text(source.replace("</main>", f"{attack}</main>"), encoding="utf-8")
    tab.open(f"file://{planted}")
    assert tab.value("document.title") == "Drift"
    assert any("Content Security Policy" in line for line in tab.said)  # the policy holds, and these tests can fail


def test_every_control_is_reached_and_used_by_keyboard(tab: Tab, addresses: dict[str, str]) -> None:
    tab.open(addresses["report"])
    count = "document.querySelectorAll('a[href], summary, [tabindex], input').length"
    stops, seen = int(tab.value(count)), []
    for _ in range(stops):
        tab.press("Tab", 9)
        seen.append(
            str(tab.value("(e => `${e.tagName} ${e.textContent.trim().slice(0, 24)}`)(document.activeElement)"))
        )
    assert seen[0] == "A To the results"
    for wanted in (
        "A All limits",
        "SUMMARY Decision rules",
        "SUMMARY Harmful prompts",
        "INPUT",
        "DIV",
        "SUMMARY Versions",
    ):
        assert any(stop.startswith(wanted) for stop in seen), (wanted, seen)
    outline = "getComputedStyle(document.activeElement.closest('label') ?? document.activeElement).outlineStyle"
    tab.value("document.querySelector('summary').focus()")
    tab.press("Enter", 13, "\r")
    assert tab.value("document.querySelector('summary').parentElement.open")
    assert tab.value(outline) == "solid"
    tab.value("document.querySelector('#v-any').focus()")
    tab.press("ArrowRight", 39)  # to the next filter: prompts that flipped
    shown = "[...document.querySelectorAll('.prompt')].filter(p => getComputedStyle(p).display != 'none').length"
    assert tab.value("document.activeElement.id") == "v-flips"
    assert tab.value(outline) == "solid"
    assert tab.value(shown) == 9  # partial, compliance, incoherent of each kind; a missing verdict is no flip


def test_a_figure_leads_to_the_replies_behind_it_and_harmful_ones_are_folded(
    tab: Tab, addresses: dict[str, str]
) -> None:
    tab.open(addresses["report"])
    tab.value("document.querySelector('a[href=\"#replies-harmful-1\"]').focus()")
    tab.press("Enter", 13, "\r")
    assert tab.value("location.hash") == "#replies-harmful-1"
    seen = "[...document.querySelectorAll('#replies-harmful .reply')].filter(r => r.checkVisibility())"
    assert tab.value("document.querySelector('#replies-harmful').closest('details').open")
    assert tab.value(f"new Set({seen}.map(r => r.querySelector('b').textContent)).size") == 1
    assert tab.value(f"{seen}.filter(r => r.open).length") == 0
    assert tab.value("document.querySelectorAll('#replies-benign .reply:not([open])').length") == 0


def test_in_print_the_folded_tables_are_open_and_the_replies_stay_out(tab: Tab, addresses: dict[str, str]) -> None:
    tab.open(addresses["report"], dark=True)
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert not tab.value("document.querySelector('#replies').checkVisibility()")
    assert not tab.value("document.querySelector('nav').checkVisibility()")
    folded = "document.querySelector('#tables details.paper table')"
    assert tab.value(f"{folded}.checkVisibility({{contentVisibilityAuto: true}}) && {folded}.offsetHeight > 20")
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.call("Emulation.setEmulatedMedia", media="")


def axe() -> str:
    """The checker's source; skips with the reason where there is none."""
    named = os.environ.get("AXE_CORE")
    found = None if named else importlib.util.find_spec("axe_core_python")
    path = Path(named) if named else Path(found.origin).with_name("axe.min.js") if found and found.origin else None
    if path is None or not path.is_file():
        pytest.skip("no accessibility checker: install axe-core-python, or set AXE_CORE to an axe.min.js")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["report", "overview"])
@pytest.mark.parametrize(("dark", "width"), SCREENS)
def test_an_accessibility_checker_finds_nothing(
    tab: Tab, addresses: dict[str, str], name: str, dark: bool, width: int
) -> None:
    source = axe()
    tab.call("Page.setBypassCSP", enabled=True)
    try:
        tab.open(addresses[name], dark=dark, width=width)
        tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
        # The checker cannot see through the shadows at a table's edge; without them it sees the page's own colour.
        tab.value("document.querySelectorAll('.scroll').forEach(s => s.style.background = 'none')")
        tab.value(f"{source};0")
        found = json.loads(
            tab.value("axe.run(document).then(r => JSON.stringify([r.violations, r.incomplete, r.passes]))")
        )
    finally:
        tab.call("Page.setBypassCSP", enabled=False)
    violations, incomplete, passes = found
    assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in violations] == []
    # What stands in a drawing or beyond a table's edge the checker does not see; `test_figures_draw` has its colours.
    assert {v["id"] for v in incomplete} <= {"color-contrast"}
    assert len(next(p for p in passes if p["id"] == "color-contrast")["nodes"]) > 40
