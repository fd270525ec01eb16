"""Every output with one text as prompt, reply, category, model and run name: made, parsed, and held to be inert.

What is made of the hostile text must have the shape of what is made of a plain word: the same elements and attributes,
the same marks that LaTeX obeys, the same blocks of Markdown. Nothing steers a terminal, no cell starts a formula.
"""

from __future__ import annotations

import csv
import html.parser
import io as stdlib_io
import json
import logging
import re
import unicodedata
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from rich.console import Console

from alignment_core import io
from alignment_core.evaluation import results
from alignment_core.evaluation.metrics import Metric
from alignment_core.evaluation.results import Agreement, Comparison, Hypothesis, Measurement, Results
from alignment_core.evaluation.state import StateFiles, write_index
from alignment_core.records import Completion, Verdict
from alignment_core.report import overview, page, terminal
from alignment_core.report.spec import FigureSpec, ReportSpec, SubjectSpec, TableSpec, TextTable

ROOT = Path(__file__).resolve().parents[2]
Outputs = dict[str, str]
PLAIN = "word"


class Obeyed(Exception):
    """Some output did what a text said, or would make a reader's program do it."""


def found(t: str) -> Results:
    def m(subject: str, value: float, **more: Any) -> Measurement:
        given: dict[str, Any] = {"metric": "harmful_refusal_rate", "method": t, "n": 20, "missing": 3, **more}
        return Measurement(subject=subject, value=value, low=value - 0.1, high=value + 0.1, **given)

    compared = {"difference": -0.3, "low": -0.4, "high": -0.2, "p": 0.01, "method": t, "estimand": t, "n_prompts": 20}
    return Results(
        study=t, preset=t, seeds=(13,), versions={t: t}, hypotheses_sha256=t,
        measurements=(m("baseline", 0.6), m(f"s {t}", 0.3), *(m(f"s {t}", 0.5, at={"category": c}) for c in (t, "y")),
                      m(f"s {t}", 0.4, at={"judge": t})),
        comparisons=(Comparison(metric="harmful_refusal_rate", a="baseline", b=f"s {t}", family=t, **compared),),
        agreements=(Agreement(a=t, b=t, kappa=0.8, low=0.7, high=0.9, n=20),),
        hypotheses=(Hypothesis(name=t, claim=t, rule=t, verdict="supported", because=t),),
    )  # fmt: skip


def spec(t: str) -> ReportSpec:
    return ReportSpec(
        title=t, question=t,
        subjects=(SubjectSpec("baseline", "Baseline", about=t), SubjectSpec(f"s {t}", t, about=t)),
        metrics=(Metric("harmful_refusal_rate", t, "harmful", "high", about=t),),
        tables=(TableSpec(t, note=t),),
        figures=(FigureSpec("states", "states", t, caption=t), FigureSpec("categories", "categories", t, caption=t)),
        originals=(TextTable(t, ("", t), ((t, t),), t),),
        method=t, limits=(t,), not_run=(t,), command=t,
    )  # fmt: skip


def judged(t: str) -> tuple[list[Completion], list[Verdict]]:
    completions, verdicts = [], []
    for i, (subject, seed) in enumerate((("baseline", None), (f"s {t}", 13))):
        c = Completion(t, subject, f"r{t}", f"q{t}", "harmful", t, t, t, seed)
        completions.append(c)
        given = {"kind": c.kind, "category": t, "source": t, "cluster": t, "seed": seed}
        label = ("refusal", "compliance")[i]
        verdicts.append(Verdict(t, subject, "rules", label, rule=f"u{t}", evidence=(0, 1), **given))  # type: ignore[arg-type]
        verdicts.append(Verdict(t, subject, f"j{t}", None, rule=f"u{t}", **given))  # type: ignore[arg-type]
    return completions, verdicts


def _states(run: Path, completions: list[Completion], verdicts: list[Verdict]) -> list[StateFiles]:
    """One state a completion, its files in the run folder."""
    states = []
    for n, c in enumerate(completions):
        folder = run / "made" / f"answer-{n}"
        io.write_jsonl(folder / "completions.jsonl", [c])
        io.write_jsonl(folder / "verdicts.jsonl", [v for v in verdicts if v.subject == c.subject])
        states.append(StateFiles(c.subject, c.seed, folder, folder))
    return states


def run_folder(folder: Path, t: str) -> None:
    """The files of a run whose settings, environment and timings hold the text."""
    config = {"model": {"name": t, "revision": t}, "judge": t, "lora": {"r": 8, "alpha": 16}, t: {"lr": 0.1,
              "batch_size": 2, "epochs": 1, "scheduler": t}}  # fmt: skip
    io.write_json(folder / "config.json", {"study": t, "preset": t, "config": config})
    io.write_json(folder / "env.json", {"platform": t, "versions": {t: t}, "variables": {t: t}})
    io.write_json(folder / "timings.json", {"steps": {t: {"name": t, "seed": 13, "seconds": 1.0}}})


def make(t: str, folder: Path, figures: bool) -> Outputs:
    """Every output, by its name."""
    run = folder / "run"
    run.mkdir(parents=True)
    run_folder(run, t)
    shown = spec(t) if figures else _without_figures(spec(t))
    completions, verdicts = judged(t)
    write_index(run, _states(run, completions, verdicts))
    page.write(run, found(t), shown)
    results.write(run / "results.json", found(t))
    out = {name: (run / name).read_text("utf-8") for name in ("report.html", "report.md", "tables.tex", "verdicts.csv")}
    named = _named(folder, t)
    (named / "report.html").write_text("x")
    out["overview.html"] = overview.render([overview.OverviewRun(named, found(t), shown)], folder / "report.html")
    out["terminal"] = _terminal(lambda c: c.print(terminal.render(found(t), shown)))
    out["labels"] = _labels(t, completions, verdicts)
    out["log"], out["log.txt"] = _logged(t, folder)
    out["command"] = _said(t, folder, run)
    _exported(t, folder, completions, verdicts)
    out["card.md"] = _card(t, folder)
    return out


def _without_figures(shown: ReportSpec) -> ReportSpec:
    import dataclasses

    return dataclasses.replace(shown, figures=())


def _named(folder: Path, t: str) -> Path:
    """A run folder named by the text, as far as a file system takes it."""
    name = (
        "".join(c for c in t if c not in "/\0" and not "\ud800" <= c <= "\udfff")
        .encode()[:200]
        .decode("utf-8", "ignore")
    )
    place = folder / (name if name.strip(". ") else "name")
    place.mkdir(exist_ok=True)
    return place


class _Screen(stdlib_io.StringIO):
    """A stream that says that somebody looks."""

    def isatty(self) -> bool:
        return True


def _terminal(draw: Callable[[Console], Any]) -> str:
    screen = _Screen()
    draw(Console(file=screen, force_terminal=True, color_system="truecolor", width=120, legacy_windows=False))
    return screen.getvalue()


def _labels(t: str, completions: list[Completion], verdicts: list[Verdict]) -> str:
    from alignment_core.cli.label import show_report, terminal_ask
    from alignment_core.evaluation.label import error_report

    def draw(console: Console) -> None:
        terminal_ask(console, lambda _: "s")(completions[0], 1, 2)
        show_report(error_report([], completions, [v for v in verdicts if v.judge == "rules"]), console)

    return _terminal(draw)


def _logged(t: str, folder: Path) -> tuple[str, str]:
    """A log line on a terminal, and in a run's log.txt."""
    from alignment_core.cli.live import terminal_log
    from alignment_core.config import Settings
    from alignment_core.pipeline.run import Run

    screen = _Screen()
    with redirect_stderr(screen), terminal_log(("alignment_core",), "debug"):
        logging.getLogger("alignment_core").warning("%s", t)
    logger = logging.getLogger("alignment_core")
    with Run.open(folder / "logged", "synthetic", "tiny", Settings(), (1,)):
        logger.warning("%s", t)
    return screen.getvalue(), (folder / "logged" / "log.txt").read_text("utf-8")


def _said(t: str, folder: Path, run: Path) -> str:
    """What commands print: an error, a comparison, a report's place."""
    from alignment_core.cli import main
    from alignment_core.cli.guard import guarded
    from alignment_core.errors import UserError

    def fail() -> None:
        raise UserError(t)

    rows = [{"prompt_id": f"{i}{t}", "verdict": "refusal" if i % 2 else "compliance", "cluster": t} for i in range(4)]
    for name in ("a", "b"):
        io.write_jsonl(folder / f"{name}.jsonl", rows)
    told = t.replace("\0", "") or PLAIN
    screen = _Screen()
    compare = ["compare", str(folder / "a.jsonl"), str(folder / "b.jsonl"), f"--name-a=a{told}", f"--name-b=b{told}"]
    with redirect_stdout(screen), redirect_stderr(screen):
        for call in (
            lambda: guarded(fail)(),
            lambda: main.app(compare, standalone_mode=False),
            lambda: main.app(["compare", f"{told}x", "y"], standalone_mode=False),
            lambda: main.app(["report", str(_named(folder, t))], standalone_mode=False),
        ):
            try:
                call()
            except (SystemExit, Exception):  # noqa: BLE001 - only what was printed counts here
                continue
    return screen.getvalue()


def _exported(t: str, folder: Path, completions: list[Completion], verdicts: list[Verdict]) -> None:
    """Other tools' files: plain names inside the folder that was asked for, and whole JSON in them."""
    from alignment_core.data import exchange

    root = folder / "out"
    written = exchange.to_inspect(root, completions, verdicts, task=t) + exchange.to_lm_eval(
        root, completions, verdicts, task=t
    )
    for path in written:
        inside = path.relative_to(root)
        if not all(
            re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}|-?[A-Za-z0-9._-]{1,120}", part) for part in inside.parts
        ):
            raise Obeyed(f"a file's name: {inside}")
        if ".." in inside.parts:
            raise Obeyed(f"a file outside its folder: {inside}")
    for path in written:
        if path.suffix == ".eval":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if not re.fullmatch(r"[A-Za-z0-9._/-]{1,200}", name) or ".." in name or name.startswith("/"):
                        raise Obeyed(f"a member's name: {name!r}")
                    json.loads(archive.read(name))
            back = exchange.read_file(path)
            if [c.text for c in back.completions] != [
                c.text for c in completions if c.subject == back.completions[0].subject
            ]:
                raise Obeyed("a reply came back as another text")


def _card(t: str, folder: Path) -> str:
    """The hub's model card of an adapter whose base is named by the text; names that are not plain are refused."""
    from alignment_core.errors import UserError
    from orth_refusal import hub
    from orth_refusal.config import OrthConfig

    for given in ((t, "vanilla"), ("me", t)):
        try:
            name = hub.repository(OrthConfig(), *given)
        except UserError:
            continue
        if not re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", name):
            raise Obeyed(f"a repository's name: {name!r}")
    adapter = folder / "adapter"
    adapter.mkdir()
    io.write_json(adapter / "base.json", {"kind": "hub", "name": t, "revision": t})
    return hub.card(OrthConfig(), "me/refusal-experiment-vanilla", "vanilla", adapter, True, found(t))


# What the outputs are held to.


class _Shape(html.parser.HTMLParser):
    """Elements with their attributes' names, and the addresses among their values."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.shape: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shape.append(f"<{tag} {' '.join(sorted(k for k, _ in attrs))}>")
        for key, value in attrs:
            if key.startswith("on"):
                raise Obeyed(f"a handler: {key}")
            if key in ("href", "src", "action", "xlink:href", "data", "formaction", "srcset"):
                self.addresses.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self.shape.append(f"</{tag}>")

    def handle_comment(self, data: str) -> None:
        self.shape.append("<!-- -->")


def _elements(text: str) -> list[str]:
    read = _Shape(text)
    for address in read.addresses:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc or address.startswith(("/", "\\")):
            raise Obeyed(f"an address that leaves the page: {address!r}")
    if any("<script" in s or "<iframe" in s or "<base" in s or "<form" in s for s in read.shape):
        raise Obeyed("an element that acts")
    if text.count("Content-Security-Policy") < 1:
        raise Obeyed("no policy")
    return read.shape


def _blocks(text: str) -> list[str]:
    """Kinds of Markdown's blocks and marks; nothing may link, embed or be HTML but our own figures."""
    out = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        for part in (token, *(token.children or ())):
            if part.type in ("html_block", "html_inline", "link_open"):
                raise Obeyed(f"{part.type} in Markdown: {part.content[:80]!r}")
            if part.type == "image" and not re.fullmatch(r"figures/[a-z_]+\.png", str(part.attrs.get("src"))):
                raise Obeyed(f"a picture in Markdown: {part.attrs}")
            if part.type not in ("text", "inline", "text_special"):
                out.append(part.type)
    return out


def _commands(text: str) -> list[str]:
    """What LaTeX obeys: commands, groups and marks, after our own escapes for single characters are taken out."""
    text = re.sub(r"\\text(backslash|asciicircum|asciitilde|less|greater|bar|quotedbl)\{\}", "", text)
    text = re.sub(r"\\[{}$&%#_]|\{[*\[]\}", "x", text)
    if wrong := re.search(r"(\\\\|\\toprule|\\midrule)\s*[*\[]", text):
        raise Obeyed(f"an argument for {wrong[0]!r}")
    return re.findall(r"\\[A-Za-z]+|\\.|[{}$&%#_^~]", text)


def _cells(text: str) -> list[str]:
    """One row a verdict, each cell one line, none a formula."""
    rows = list(csv.reader(stdlib_io.StringIO(text, newline=""), strict=True))
    for row in rows:
        for cell in row:
            if re.match(r"[\s\u00a0]*[=+\-@\uff1d\uff0b\uff0d\uff20]", cell) or cell[:1] in ("\t", "\r"):
                raise Obeyed(f"a formula: {cell[:60]!r}")
    return [str(len(row)) for row in rows]


def _steady(text: str, colours: bool = False) -> None:
    """Nothing in it steers a terminal; `colours` leaves rich's own alone."""
    if colours:
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for character in text:
        if character in "\n" or character in "\u200c\u200d":
            continue
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            raise Obeyed(f"U+{ord(character):04X} on the terminal: {text[max(0, text.index(character) - 30) :][:60]!r}")


def _front(text: str) -> list[str]:
    """A card's front matter is YAML of known keys; what follows is inert Markdown."""
    import yaml

    _, head, body = text.split("---\n", 2)
    meta = yaml.safe_load(head)
    if set(meta) - {"library_name", "tags", "base_model", "model-index"}:
        raise Obeyed(f"a key in the card: {sorted(meta)}")
    return [*sorted(meta), *_blocks(body)]


SHAPES: dict[str, Callable[[str], list[str]]] = {
    "report.html": _elements, "overview.html": _elements, "report.md": _blocks, "tables.tex": _commands,
    "verdicts.csv": _cells, "card.md": _front,
}  # fmt: skip


def check(made: Outputs, plain: Outputs) -> list[str]:
    """What is wrong with the outputs, by name; empty where every one is inert."""
    wrong = []
    for name, text in made.items():
        kind = name.rpartition("/")[2]
        try:
            if kind in SHAPES:
                shape, wanted = SHAPES[kind](text), SHAPES[kind](plain[name])
                if "/" in name:  # rows may stand in another order
                    shape, wanted = sorted(shape), sorted(wanted)
                if shape != wanted:
                    pairs = zip([*shape, "end"], [*wanted, "end"], strict=False)
                    at = next(((i, a, b) for i, (a, b) in enumerate(pairs) if a != b), (0, "", ""))
                    raise Obeyed(f"another shape: {at[1]!r} for {at[2]!r} at {at[0]}")
            if kind not in ("terminal", "labels"):
                _steady(text.replace("\t", " ") if kind in ("report.html", "log", "log.txt") else text)
            else:
                _steady(text, colours=True)
            text.encode("utf-8")
        except Obeyed as error:
            wrong.append(f"{name}: {error}")
    return wrong


def of_studies(t: str, folder: Path) -> Outputs:
    """The four studies' own reports of their records, with the text in place of every category, judge and word."""
    from alignment_core.cli.study import installed, report_spec

    out: Outputs = {}
    for path in sorted(ROOT.glob("studies/*/results/*/results.json")):
        record = results.read(path)
        told = _told(record, t)
        shown = report_spec(installed(record.study), told)
        place = folder / record.study
        place.mkdir(parents=True)
        page.write(place, told, shown)
        for name in ("report.html", "report.md", "tables.tex"):
            out[f"{record.study}/{name}"] = (place / name).read_text("utf-8")
        drawn = terminal.render(told, shown)
        out[f"{record.study}/terminal"] = _terminal(lambda console, drawn=drawn: console.print(drawn))
    return out


def _told(record: Results, t: str) -> Results:
    names: dict[str, str] = {}

    def place(at: Any) -> dict[str, Any]:
        free = ("category", "judge", "source")
        return {k: names.setdefault(f"{k} {v}", f"{t}{len(names)}") if k in free and v else v for k, v in at.items()}

    words = {"method": t}
    return record.model_copy(
        update={
            "versions": {t: t},
            "measurements": tuple(m.model_copy(update={"at": place(m.at), **words}) for m in record.measurements),
            "comparisons": tuple(
                c.model_copy(update={"at": place(c.at), "estimand": t, **words}) for c in record.comparisons
            ),
            "agreements": tuple(a.model_copy(update={"a": t, "b": t}) for a in record.agreements),
            "hypotheses": tuple(h.model_copy(update={"claim": t, "rule": t, "because": t}) for h in record.hypotheses),
        }
    )
