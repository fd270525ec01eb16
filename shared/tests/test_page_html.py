"""The page and every other output of a run folder: self-contained, inert whatever a model wrote, the same each time."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from alignment_core import io
from alignment_core.evaluation.results import Agreement, Comparison, Hypothesis, Measurement, Results
from alignment_core.records import Completion, Verdict
from alignment_core.report import markdown as prose
from alignment_core.report import markup, page, replies
from alignment_core.report import overview as joint
from alignment_core.report import reproduce as again
from alignment_core.report import timings as cost
from alignment_core.report import verdicts_csv as sheet
from alignment_core.report.spec import FigureSpec, MetricSpec, ReportSpec, SubjectSpec, TableSpec, TextTable
from alignment_core.report.tables import Cell, Grid
from alignment_core.text import for_html

ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>alert(1)</script>",
    "![pixel](http://evil.example/p.png)",
    "[click](javascript:alert(1)) <http://evil.example>",
    "=HYPERLINK(\"http://evil.example\",\"x\")",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1",
    "-1|x",
    "\t=1+1",
    "\r\n=1+1",
    "\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "\x1b[2J\x1b[31mred",
    "\u202egnp.exe \u2066x\u2069",
    "lone \ud800 and \udfff",
    "null \x00 byte",
    "\u0085next \u2028line",
    "| a | b |\n|---|---|\n# head\n- item",
    "<!-- --> <details open><summary>x",
    "&lt;b&gt; &#60;script&#62;",
    "\\input{/etc/passwd} $x$ %",
    "style=\"x\" </div></details></body>",
)  # fmt: skip
STEERING = ("\x1b", "\x00", "\x07", "\x9b", "\u202e", "\u2066", "\u2028", "\u0085", "\ud800", "\r")


def found(name: str = "Stage A", key: str = "stage_a") -> Results:
    def m(subject: str, value: float, **more: object) -> Measurement:
        given = {"metric": "harmful_refusal_rate", "method": "wilson", "n": 20, **more}
        return Measurement(subject=subject, value=value, low=value - 0.1, high=value + 0.1, **given)

    return Results(
        study=name,
        preset=name,
        seeds=(13, 14),
        versions={name: name},
        hypotheses_sha256="ab" * 32,
        measurements=(
            m("baseline", 0.6),
            m(key, 0.3),
            *(m(key, v, seed=s) for s, v in ((13, 0.29), (14, 0.31))),
            *(m(key, 0.5, at={"category": c}) for c in (name, "y")),
        ),
        comparisons=(
            Comparison(
                metric="harmful_refusal_rate",
                a="baseline",
                b=key,
                difference=-0.3,
                low=-0.4,
                high=-0.2,
                p=0.01,
                method=name,
                estimand=name,
                n_prompts=20,
            ),
        ),
        agreements=(Agreement(a=name, b=name, kappa=0.8, low=0.7, high=0.9, n=20),),
        hypotheses=(Hypothesis(name=name, claim=name, rule=name, verdict="supported", because=name),),
    )


def spec(name: str = "Stage A", key: str = "stage_a") -> ReportSpec:
    return ReportSpec(
        title=name,
        question=name,
        subjects=(SubjectSpec("baseline", "Baseline", about=name), SubjectSpec(key, name)),
        metrics=(MetricSpec("harmful_refusal_rate", name, "high", "harmful"),),
        tables=(TableSpec(name, note=name),),
        figures=(
            FigureSpec("states", "states", name, caption=name),
            FigureSpec("categories", "categories", name, subjects=(key,)),
        ),
        originals=(TextTable(name, ("", name), ((name, name),), name),),
        method=name,
        limits=(name,),
        never_run=(name,),
        command=name,
    )


def judged(
    texts: tuple[str, ...] = ("I can't.", "Sure."), key: str = "stage_a"
) -> tuple[list[Completion], list[Verdict]]:
    completions, verdicts = [], []
    for i, text in enumerate(texts):
        for subject, seed in (("baseline", None), (key, 13), (key, 14)):
            c = Completion(f"p{i}", subject, text, f"Q{i} {text}", "harmful", category=text, source=text, seed=seed)
            label = "refusal" if subject == "baseline" or i % 2 else "compliance"
            completions.append(c)
            verdicts.append(
                Verdict(c.prompt_id, subject, "rules", label, "harmful", seed=seed, rule=text, evidence=(0, 4))  # type: ignore[arg-type]
            )
            verdicts.append(Verdict(c.prompt_id, subject, text, None, "harmful", seed=seed))
    return completions, verdicts


class Reader(html.parser.HTMLParser):
    """What a browser would find: elements, attributes, ids; void and unclosed elements checked."""

    VOID = frozenset({"meta", "input", "br", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, key: str) -> list[str]:
        return [v for _, k, v in self.attributes if k == key]


ALLOWED = frozenset(
    re.findall(
        r"\w+",
        """html head meta title style body a header p h1 h2 h3 h4 nav main section figure figcaption div span ul li dl
        dt dd pre table thead tbody tr th td details summary fieldset legend label input article b i mark svg g path
        defs clippath rect text use""",
    )
)


def checked(text: str) -> Reader:
    """The page read, with all that must hold whatever stands in it."""
    for steering in STEERING:
        assert steering not in text
    read = Reader(text)
    assert not read.open
    assert set(read.tags) <= ALLOWED, set(read.tags) - ALLOWED
    assert not [k for _, k, _ in read.attributes if k.startswith("on") or k in ("style", "src", "srcset", "action")]
    assert len(read.values("id")) == len(set(read.values("id")))
    for href in read.values("href") + read.values("xlink:href"):
        assert href.startswith("#"), href
        assert href[1:] in read.values("id"), href
    return read


def test_the_policy_allows_this_style_sheet_and_nothing_else() -> None:
    text = page.render(found(), spec(), None, *judged())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src &#x27;sha256-{digest}&#x27;" in policy
    assert policy.startswith("default-src &#x27;none&#x27;;")
    assert "script" not in policy
    assert "unsafe" not in policy
    checked(text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_text_is_inert_in_every_output(tmp_path: Path, attack: str) -> None:
    results, described = found(attack, attack), spec(attack, attack)
    about = page.About({attack: attack, "judge": attack}, {attack: [attack]}, {"steps": {attack: {"name": attack}}})
    text = page.render(results, described, about, *judged((attack, "x"), attack), drawn={})
    assert checked(text).tags.count("title") == 1
    assert f'<p class="question">{for_html(attack)}</p>' in text  # shown, not stripped

    md = prose.markdown(results, described, {}, None)
    for steering in STEERING:
        assert steering not in md
    running = [line for line in md.splitlines() if not line.startswith("    ")]  # the command is a block of code
    assert not any(re.search(r"!\[|\]\(|<[a-z/!]|://|]\[", line, re.IGNORECASE) for line in running)
    widths = [line.count("|") for line in running]
    assert all(widths[i - 1] == w == widths[i + 1] for i, w in enumerate(widths) if running[i].startswith("|-"))

    tex = "".join(prose.latex(g) for g in prose.tables.all_grids(results, described, seeds=True))
    assert "\\input" not in tex
    assert not re.search(r"(?<!\\)[$#%]", tex)

    path = tmp_path / "verdicts.csv"
    completions, verdicts = judged((attack, "x"), attack)
    assert sheet.write(path, verdicts, completions) == len(verdicts)
    raw = path.read_bytes().decode("utf-8")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == len(raw.splitlines()) == 1 + len(verdicts)
    for cell in (c for row in rows for c in row):
        assert not cell.lstrip().startswith(("=", "+", "-", "@"))
        assert not any(s in cell for s in (*STEERING, "\t"))


def test_the_page_answers_in_a_readers_order_and_says_what_the_verdict_rests_on() -> None:
    text = page.render(found(), spec(), page.About({"model": {"name": "org/model"}}), *judged())
    order = ("question", "verdict", "basis", 'id="figure"', 'id="hypotheses"', 'id="numbers"', 'id="tests"')
    order += ('id="replies"', 'id="more"', 'id="originals"', 'id="limits"', 'id="never"', 'id="again"')
    places = [text.index(f'class="{o}"' if "=" not in o else o) for o in order]
    assert places == sorted(places)
    assert "It rests on 2 training seeds of org/model and 20 harmful prompts. Brackets are 95% intervals." in text


def test_what_every_cell_of_a_column_rests_on_is_said_once() -> None:
    rows = tuple((Cell(name), Cell("0.5", "n=20"), Cell("0.4", under)) for name, under in (("a", "n=3"), ("b", "n=4")))
    text = markup.grid(Grid("T", ("", "x ↑", "y"), rows, "", (False, True, True)))
    assert text.count("n=20") == 1
    assert '<th scope="col" class="n">x\u00a0↑<span class="under">n=20</span></th>' in text
    assert '<td class="n">0.4<span class="under">n=4</span></td>' in text
    assert "<thead><tr><td></td>" in text  # a head without a word is no head


def test_differences_are_told_apart_by_role() -> None:
    one = found().comparisons[0]
    roles = [one.model_copy(update={"role": r, "p_adjusted": a}) for r, a in (("primary", 0.02), ("exploratory", None))]
    text = page.render(found().model_copy(update={"comparisons": tuple(roles)}), spec(), None)
    assert text.index("Primary: these decide") < text.index("Exploratory: nothing rests on these (1)")
    assert text.count("p adjusted</th>") == 1  # a column that would be empty is left out
    assert "-0.300 [-0.400, -0.200]" in text


def test_time_and_memory_are_summed_then_told_by_step() -> None:
    steps = {f"sft-s{s}": {"name": "sft", "seed": s, "seconds": 60.0, "peak_rss_bytes": 2**31} for s in (13, 14)}
    steps["data"] = {"name": "data", "seconds": 0.01, "attempts": 2}
    text = cost.html({"steps": steps}, {"platform": "Linux", "cpus": 2})
    assert (
        "3 steps, 2.0 min together, peak memory 2.0 GiB. 1 of them took more than one attempt. On Linux, 2 CPUs."
        in text
    )
    assert '<th scope="row">sft</th><td class="n">2</td><td class="n">2.0 min</td><td class="n">2.0 GiB</td>' in text
    assert '<th scope="row">data</th><td class="n">1</td><td class="n">&lt;0.1 s</td><td class="n">n/a</td>' in text
    assert cost.html({}, {}) == ""


def test_the_command_names_what_is_not_the_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    results, described = found("toy study"), spec()
    assert again.command(results, described, {"judge": "rules"}) == "Stage A"  # not installed: the spec's own
    bare = replace(described, command="")
    assert again.command(results, bare, {}) == "toy study run --preset toy study --seeds 13,14"
    monkeypatch.setattr(again, "_overrides", lambda *_: {"train.lr": 0.001, "judge": "a b", "x": None, "on": True})
    line = "toy study run --preset toy study --seeds 13,14 train.lr=0.001 'judge=a b' x=none on=true"
    assert again.command(results, described, {"judge": "a b"}) == line


def test_replies_of_a_trajectory_are_those_of_its_end(tmp_path: Path) -> None:
    results = run_folder(tmp_path)
    early = tmp_path / "steps" / "answer-aa" / "1" / "completions.jsonl"
    io.write_jsonl(early, [Completion("p0", "stage_a", "early", "Q", "harmful", seed=13)])
    place = {"at": {"step": 1}, "completions": "steps/answer-aa/1/completions.jsonl"}
    more = (*results.measurements, results.measurements[0].model_copy(update=place))
    completions, _ = replies.find(tmp_path, results.model_copy(update={"measurements": more}))
    assert completions
    assert "early" not in {c.text for c in completions}


def test_joint_page_is_inert_and_links_to_each_run(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "drift" / 'a"b'
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("x")
    runs = [joint.JointRun(folder, found(a), spec(a)) for a in (ATTACKS[0], "other")]
    runs.append(joint.JointRun(tmp_path / "tiny", found("other"), spec("other")))
    text = joint.render(runs, tmp_path / "runs" / "report.html")
    read = Reader(text)
    assert set(read.tags) <= ALLOWED
    assert "drift/a%22b/report.html" in text
    assert text.count("<section") == 2
    assert len(read.values("id")) == len(set(read.values("id")))
    assert "3 runs of 2 studies" in text


def test_replies_are_paired_flips_first_evidence_marked_harmful_folded() -> None:
    completions, verdicts = judged(("Sure <b>.", "I can't."))
    swapped = [c for c in completions if c.prompt_id == "p1"] + [c for c in completions if c.prompt_id == "p0"]
    text = page.render(found(), spec(), None, swapped, verdicts)
    assert text.index("Q0") < text.index("Q1")  # p0 flipped, p1 did not
    assert "<mark>Sure</mark> &lt;b&gt;." in text
    assert 'class="reply s1"><summary><b>Stage A</b> <span class="badge l-compliance">' in text
    assert "Harmful prompts: 2, 1 flipped, replies folded" in text
    benign = [Completion("b", "baseline", "x", "Q", "benign")]
    assert 'class="reply s0" open>' in page.render(found(), spec(), None, benign)
    assert text.count('class="reply') == 4  # one seed of two
    assert 'href="#replies-harmful-1" title="The replies behind it">0.30 [0.20, 0.40]</a>' in text


def test_a_missing_verdict_is_no_flip_and_many_prompts_are_cut_with_a_word() -> None:
    completions = [Completion(f"p{i}", s, "x", f"Q{i}", "benign") for i in range(4) for s in ("a", "b")]
    verdicts = [Verdict("p3", "a", "r", "refusal", "benign"), Verdict("p3", "b", "r", None, "benign")]
    gathered = replies.gather(completions, verdicts, spec(), limit=3)
    assert [g[0].prompt_id for g in gathered.prompts["benign"]] == ["p0", "p1", "p2"]
    assert gathered.left_out["benign"] == 1
    assert "1 more prompts" in replies.html(gathered, spec())


def test_marked_text_is_cut_around_the_evidence() -> None:
    assert replies.marked("a<b>c", (1, 4)) == "a<mark>&lt;b&gt;</mark>c"
    assert replies.marked("abc", (2, 9)) == "abc"
    assert "(6000 characters more)" in replies.marked("x" * 10_000, None)
    assert replies.marked("\ud800é", (1, 2)) == "\\ud800<mark>é</mark>"


def run_folder(folder: Path) -> Results:
    """A run folder as a study leaves it: replies in one step, verdicts in others that read it."""
    completions, verdicts = judged()
    answers = folder / "steps" / "answer-aa"
    for name, judge, kept in (("judge-old", "gcg31", verdicts[:1]), ("judge-new", "rules", verdicts)):
        io.write_jsonl(folder / "steps" / name / "verdicts.jsonl", kept)
        facts = {"reads": {"answer-aa": "aa"}, "settings": {"judge": judge}}
        io.write_json(folder / "steps" / name / "step.json", facts)
    io.write_jsonl(answers / "completions.jsonl", completions)
    io.write_json(answers / "step.json", {"reads": {}, "settings": {}})
    io.write_json(folder / "config.json", {"config": {"judge": "rules", "model": {"name": "organism"}}})
    io.write_json(folder / "env.json", {"cpu": "two cores"})
    io.write_json(folder / "timings.json", {"steps": {"sft-s13": {"name": "sft", "seed": 13, "seconds": 61.24}}})
    place = {"completions": "steps/answer-aa/completions.jsonl"}
    named = tuple(m.model_copy(update=place) for m in found().measurements)
    outside = named[0].model_copy(update={"completions": "../../etc/passwd"})
    return found().model_copy(update={"measurements": (*named, outside)})


def test_a_run_folder_gets_all_its_outputs_twice_the_same(tmp_path: Path) -> None:
    results = run_folder(tmp_path)
    names = ("report.html", "report.md", "tables.tex", "verdicts.csv", "figures/states.svg", "figures/states.png")
    assert page.write(tmp_path, results, spec()) == tmp_path / "report.html"
    first = [(tmp_path / n).read_bytes() for n in names]
    page.write(tmp_path, results, spec())
    assert first == [(tmp_path / n).read_bytes() for n in names]
    text = first[0].decode()
    for shown in ("61.2 s", "two cores", "The model is the embedded organism", "Sure.", "Stage A"):
        assert shown in text
    assert len(first[3].splitlines()) == 1 + 12  # the verdicts of the judge that the settings name
    assert "![Stage A](figures/states.png)" in first[1].decode()


def test_a_record_without_its_steps_has_no_replies(tmp_path: Path) -> None:
    results = run_folder(tmp_path)
    shutil.rmtree(tmp_path / "steps")
    page.write(tmp_path, results, spec())
    text = (tmp_path / "report.html").read_text()
    assert "Sure." not in text
    assert 'id="replies"' not in text
    checked(text)
    assert not (tmp_path / "verdicts.csv").exists()


def test_a_methods_paragraph_says_what_the_settings_say() -> None:
    config = json.loads(
        '{"model": {"name": "org/m", "revision": "abc", "quantize": "nf4"}, "lora": {"r": 16, "alpha": 32},'
        '"stage_a": {"lr": 0.0001, "batch_size": 2, "accumulate": 16, "epochs": 2, "scheduler": "cosine"},'
        '"dpo": {"lr": 5e-7, "batch_size": 1, "max_steps": 30, "beta": 0.1},'
        '"generate": {"max_new_tokens": 128, "temperature": 0}, "judge": "rules,gcg31"}'
    )
    assert prose.methods(found(), spec("Four states."), config) == (
        "Four states. The model is org/m at revision abc, held in 4-bit NormalFloat; LoRA of rank 16, alpha 32. "
        "Stage a: 2 epochs, batches of 32, peak learning rate 0.0001 (cosine). "
        "Stage dpo: 30 steps, batches of 1, peak learning rate 5e-07 (constant), beta 0.1. "
        "Replies are greedy, at most 128 tokens. Verdicts are by rules,gcg31. Training seeds: 13, 14. "
        "Intervals are 95%: wilson. Differences are paired by prompt: Stage A (Stage A)."
    )


@pytest.mark.slow
def test_a_browser_opens_it_without_a_word_and_a_figure_leads_to_its_replies(tmp_path: Path) -> None:
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if browser is None:
        pytest.skip("no headless browser is installed")
    path = tmp_path / "report.html"
    path.write_text(page.render(found(ATTACKS[2]), spec(ATTACKS[1]), None, *judged(ATTACKS)), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=1000"]
    profile, address = f"--user-data-dir={tmp_path / 'profile'}", f"file://{path}#replies-harmful-1"
    command = [browser, *options, profile, "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert '<details class="kind" open="">' in done.stdout
    assert not re.search(r"<(script|img|iframe)", done.stdout)
