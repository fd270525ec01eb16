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
from typing import Any

import pytest

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.evaluation.metrics import Metric
from alignment_core.evaluation.results import Agreement, Comparison, Hypothesis, Measurement, Results
from alignment_core.evaluation.state import StateFiles, read_index, write_index
from alignment_core.records import Completion, Verdict
from alignment_core.report import (
    documents,
    methods,
    overview,
    page,
    rendering,
    replies,
    reproduce,
    served,
    summary,
    timings,
    verdicts_csv,
)
from alignment_core.report.spec import FigureSpec, ReportSpec, SubjectSpec, TableSpec, TextTable
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
        condition=name,
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
                test=name,
                decision=name,
                decision_test=name,
                decision_p=0.02,
                p_adjusted=0.03,
                family=name,
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
        metrics=(Metric("harmful_refusal_rate", name, "harmful", "high"),),
        tables=(TableSpec(name, note=name),),
        figures=(
            FigureSpec("states", "states", name, caption=name),
            FigureSpec("categories", "categories", name, subjects=(key,)),
        ),
        originals=(TextTable(name, ("", name), ((name, name),), name),),
        method=name,
        limits=(name,),
        not_run=(name,),
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

    md = documents.markdown(results, described, {}, None)
    for steering in STEERING:
        assert steering not in md
    running = [line for line in md.splitlines() if not line.startswith("    ")]  # the command is a block of code
    assert not any(re.search(r"!\[|\]\(|<[a-z/!]|://|]\[", line, re.IGNORECASE) for line in running)
    widths = [line.count("|") for line in running]
    assert all(widths[i - 1] == w == widths[i + 1] for i, w in enumerate(widths) if running[i].startswith("|-"))

    tex = "".join(documents.latex(g) for g in documents.all_grids(results, described))
    assert "\\input" not in tex
    assert not re.search(r"(?<!\\)[$#%]", tex)

    path = tmp_path / "verdicts.csv"
    states = as_states(tmp_path, *judged((attack, "x"), attack), at={attack: attack})
    count = verdicts_csv.write(path, states)
    assert count == len(judged((attack, "x"), attack)[1])
    raw = path.read_bytes().decode("utf-8")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == len(raw.splitlines()) == 1 + count
    for cell in (c for row in rows for c in row):
        assert not cell.lstrip().startswith(("=", "+", "-", "@"))
        assert not any(s in cell for s in (*STEERING, "\t"))


def test_the_page_answers_in_a_readers_order_and_says_what_the_verdict_rests_on() -> None:
    text = page.render(found(), spec(), page.About({"model": {"name": "org/model"}}), *judged())
    order = ("question", "verdict", "basis", 'id="figure"', 'id="hypotheses"', 'id="numbers"', 'id="tests"')
    order += ('id="replies"', 'id="more"', 'id="originals"', 'id="limits"', 'id="not-run"', 'id="reproduce"')
    places = [text.index(f'class="{o}"' if "=" not in o else o) for o in order]
    assert places == sorted(places)
    assert (
        "Based on 2 training seeds of org/model and 2 harmful prompts. Brackets are 95% intervals; "
        "the p-values that decide are Holm-adjusted." in text
    )


def macros() -> Any:
    return rendering.environment().get_template("macros.html.j2").module


def test_what_every_cell_of_a_column_rests_on_is_said_once() -> None:
    rows = tuple((Cell(name), Cell("0.5", "n=20"), Cell("0.4", under)) for name, under in (("a", "n=3"), ("b", "n=4")))
    text = macros().grid(Grid("T", ("", "x ↑", "y"), rows, "", (False, True, True)))
    assert text.count("n=20") == 1
    assert '<th scope="col" class="n">x\u00a0↑<span class="under">n=20</span></th>' in text
    assert '<td class="n">0.4<span class="under">n=4</span></td>' in text
    assert "<thead><tr><td></td>" in text  # a head without a word is no head


def test_differences_are_told_apart_by_role() -> None:
    one = found().comparisons[0]
    none = {"decision": None, "p_adjusted": None}
    roles = [one.model_copy(update={"role": r, **c}) for r, c in (("primary", {}), ("exploratory", none))]
    text = page.render(found().model_copy(update={"comparisons": tuple(roles)}), spec(), None)
    assert text.index("Primary: these decide") < text.index("Exploratory: no hypothesis rests on these (1)")
    assert text.count("p adjusted</th>") == 1  # a column that would be empty is left out
    assert "-0.300 [-0.400, -0.200]" in text


def test_time_and_memory_are_summed_then_listed_by_step() -> None:
    steps = {f"sft-s{s}": {"name": "sft", "seed": s, "seconds": 60.0, "peak_rss_bytes": 2**31} for s in (13, 14)}
    steps["data"] = {"name": "data", "seconds": 0.01, "attempts": 2}
    found = timings.cost({"steps": steps}, {"platform": "Linux", "cpus": 2})
    assert found is not None
    assert found.summary == (
        "3 steps, 2.0 min in total, peak memory 2.0 GiB. 1 of them took more than one attempt. On Linux, 2 CPUs."
    )
    rows = [[c.text for c in row] for row in found.by_step.rows]
    assert rows == [["sft", "2", "2.0 min", "2.0 GiB"], ["data", "1", "<0.1 s", "n/a"]]
    assert found.each is not None
    assert timings.cost({}, {}) is None


def test_the_command_names_what_is_not_the_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    results, described = found("toy study"), spec()
    assert reproduce.command(results, described, {"judge": "rules"}) == "Stage A"  # not installed: the spec's own
    bare = replace(described, command="")
    assert reproduce.command(results, bare, {}) == "toy study run --preset toy study --seeds 13,14"
    monkeypatch.setattr(reproduce, "_overrides", lambda *_: {"train.lr": 0.001, "judge": "a b", "x": None, "on": True})
    line = "toy study run --preset toy study --seeds 13,14 train.lr=0.001 'judge=a b' x=none on=true"
    assert reproduce.command(results, described, {"judge": "a b"}) == line


def test_replies_of_a_trajectory_are_those_of_its_end(tmp_path: Path) -> None:
    run_folder(tmp_path)
    early = [Completion("p0", "stage_a", "early", "Q", "harmful", seed=13)]
    step = as_states(tmp_path, early, [Verdict("p0", "stage_a", "rules", "refusal", "harmful", seed=13)], {"step": 1})
    completions, _ = replies.of_run([*step, *read_index(tmp_path)], 13)
    assert completions
    assert "early" not in {c.text for c in completions}


def test_the_overview_is_inert_and_links_to_each_run(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "drift" / 'a"b'
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("x")
    runs = [overview.OverviewRun(folder, found(a), spec(a)) for a in (ATTACKS[0], "other")]
    runs.append(overview.OverviewRun(tmp_path / "tiny", found("other"), spec("other")))
    text = overview.render(runs, tmp_path / "runs" / "report.html")
    read = Reader(text)
    assert set(read.tags) <= ALLOWED
    assert "drift/a%22b/report.html" in text
    assert text.count("<section") == 2
    assert "Summary of all studies" in text
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
    section = rendering.environment().get_template("replies.html.j2").make_module().section
    assert "1 more prompts" in section(gathered, spec())


def test_marked_text_is_cut_around_the_evidence() -> None:
    assert replies.cut_around("a<b>c", (1, 4)) == ("a", "<b>", "c")
    assert replies.cut_around("abc", (2, 9)) == ("abc", "", "")
    assert "(6000 characters more)" in replies.cut_around("x" * 10_000, None)[0]
    one = Completion("p0", "stage_a", "\ud800é", "Q", "benign")
    text = page.render(
        found(), spec(), None, [one], [Verdict("p0", "stage_a", "r", "refusal", "benign", evidence=(1, 2))]
    )
    assert "\\ud800<mark>é</mark>" in text


def as_states(
    folder: Path, completions: list[Completion], verdicts: list[Verdict], at: dict[str, Any] | None = None
) -> list[StateFiles]:
    """The states of these replies, written into a run folder."""
    states = []
    for n, (subject, seed) in enumerate(dict.fromkeys((c.subject, c.seed) for c in completions)):
        name = f"{n}-{'-'.join(map(str, (at or {}).values() if at and 'step' in at else ()))}"
        answered, judged = folder / "made" / f"answer-{name}", folder / "made" / f"judge-{name}" / "deeper"
        io.write_jsonl(
            answered / "completions.jsonl", [c for c in completions if (c.subject, c.seed) == (subject, seed)]
        )
        io.write_jsonl(judged / "verdicts.jsonl", [v for v in verdicts if (v.subject, v.seed) == (subject, seed)])
        states.append(StateFiles(subject, seed, answered, judged, at or {}))
    return states


def run_folder(folder: Path) -> Results:
    """A run folder as a study leaves it, the index of its states among its files."""
    write_index(folder, as_states(folder, *judged()))
    io.write_json(folder / "config.json", {"config": {"judge": "rules", "model": {"name": "organism"}}})
    io.write_json(folder / "env.json", {"cpu": "two cores"})
    io.write_json(folder / "timings.json", {"steps": {"sft-s13": {"name": "sft", "seed": 13, "seconds": 61.24}}})
    return found()


def test_a_run_folder_gets_all_its_outputs_twice_the_same(tmp_path: Path) -> None:
    results = run_folder(tmp_path)
    names = ("report.html", "report.md", "tables.tex", "verdicts.csv", "figures/states.svg", "figures/states.png")
    assert page.write(tmp_path, results, spec()) == tmp_path / "report.html"
    first = [(tmp_path / n).read_bytes() for n in names]
    page.write(tmp_path, results, spec())
    assert first == [(tmp_path / n).read_bytes() for n in names]
    text = first[0].decode()
    for shown in ("61.2 s", "two cores", "The model is the embedded model", "Sure.", "Stage A"):
        assert shown in text
    assert len(first[3].splitlines()) == 1 + 12  # two judges' verdicts on two replies of three states
    assert "![Stage A](figures/states.png)" in first[1].decode()


def test_every_judged_reply_of_a_run_shows_its_verdict_by_every_judge(tmp_path: Path) -> None:
    labels: tuple[Any, ...] = ("refusal", "partial", "compliance", "incoherent")
    states = []
    for subject in ("baseline", "stage_a"):
        named = {"subject": f"in the files of {subject}", "kind": "harmful"}  # the index names the state
        completions = [Completion(f"p{i}", text=f"reply {i}", prompt=f"Q{i}", **named) for i in range(4)]
        completions.append(Completion("p9", text="", prompt="Q9", failure="content filter", **named))
        verdicts = [Verdict(f"p{i}", judge="rules", label=labels[i], **named) for i in range(4)]
        verdicts += [Verdict(f"p{i}", judge="endpoint", label=labels[3 - i], **named) for i in range(4)]
        verdicts += [Verdict("p9", judge=j, label=None, rule="content filter", **named) for j in ("rules", "endpoint")]
        (one,) = as_states(tmp_path / subject, completions, verdicts)
        states.append(StateFiles(subject, 13, one.answered, one.judged))
    write_index(tmp_path, states)
    page.write(tmp_path, found(), spec())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    checked(text)
    shown = re.findall(r'badge l-(\w+)">\w+</span> · endpoint: (\w+)</summary><div class="text">reply (\d)<', text)
    assert sorted(shown) == sorted([(labels[i], labels[3 - i], str(i)) for i in range(4)] * 2)
    assert text.count("no reply: content filter") == 2
    assert "missing (0)</label>" in text
    assert "no reply (1)</label>" in text
    assert "5 harmful prompts." in text
    assert len((tmp_path / "verdicts.csv").read_text().splitlines()) == 1 + 2 * 2 * 5


def test_several_replies_a_prompt_are_counted_as_replies() -> None:
    completions = [
        Completion(f"p{i}", "stage_a", "x", f"Q{i}", "harmful", candidate=k) for i in range(10) for k in (0, 1)
    ]
    text = page.render(found(), spec(), None, completions, drawn={})
    assert "Based on 2 training seeds and 20 replies to 10 harmful prompts. " in text
    assert "n = replies unless stated" in text  # the figures count 20
    other = found().comparisons[0].model_copy(update={"n_prompts": 10})
    unknown = found().model_copy(update={"comparisons": (other,)})
    assert "and 20 replies to harmful prompts." in summary.basis(unknown, {}, summary.asked(unknown, spec()))
    assert "and 20 harmful prompts." in summary.basis(found(), {}, summary.asked(found(), spec()))


def test_the_condition_stands_under_the_headline_and_verdicts_in_their_own_words() -> None:
    words = ("supported", "contradicted", "inconclusive", "not tested")
    claims = tuple(Hypothesis(name=f"H{i}", claim="c", rule="r", verdict=w, because="b") for i, w in enumerate(words))
    results = found().model_copy(update={"hypotheses": claims, "condition": "benign data framed like attacks"})
    text = page.render(results, spec(), drawn={})
    looks = re.findall(r'<span class="badge (\w+)">H\d ([\w ]+)</span>', text)
    assert looks == list(zip(("good", "bad", "neutral", "neutral"), words, strict=True))
    assert '</p>\n<p class="condition">Condition: benign data framed like attacks</p>' in text
    assert "H0 supported; H1 contradicted; H2 inconclusive; H3 not tested." in text
    assert "Condition: benign data framed like attacks" in documents.markdown(results, spec())


def test_the_overview_is_never_written_over_a_runs_own_page(tmp_path: Path) -> None:
    runs = [overview.OverviewRun(tmp_path / "drift" / "tiny", found(), spec())]
    io.write_text(tmp_path / "drift" / "tiny" / "report.html", "its own")
    assert overview.write(tmp_path, runs) == tmp_path / "report.html"
    for name in ("results.json", "config.json"):
        io.write_json(tmp_path / "drift" / "tiny" / name, {})
        with pytest.raises(UserError, match=r"`Stage A report .*tiny` .* `alignment-core report .*drift`"):
            overview.write(tmp_path / "drift" / "tiny", runs)
        (tmp_path / "drift" / "tiny" / name).unlink()
    assert (tmp_path / "drift" / "tiny" / "report.html").read_text() == "its own"


def test_limits_say_which_replies_a_server_made(tmp_path: Path) -> None:
    states = as_states(tmp_path, *judged())
    config = {"generate": {"max_new_tokens": 8, "endpoint": "http://localhost:1"}}
    assert served.limits(states, spec(), {}) == ()
    about = {"route": "chat", "first_token_nats_apart": 0.012}
    io.write_json(states[0].answered / "completions.served.json", about)
    limits = served.limits(states, spec(), config)
    assert len(limits) == 4
    assert "at most 0.012 nats" in limits[1]
    assert limits[2].endswith("for Baseline.")
    assert limits[3].startswith("The replies of Stage A were made here")


def test_a_record_without_its_steps_has_no_replies(tmp_path: Path) -> None:
    results = run_folder(tmp_path)
    shutil.rmtree(tmp_path / "made")
    (tmp_path / "states.json").unlink()
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
    assert methods.paragraph(found(), spec("Four states."), config) == (
        "Four states. The model is org/m at revision abc, loaded in 4-bit NormalFloat; LoRA of rank 16, alpha 32. "
        "Stage a: 2 epochs, batches of 32, peak learning rate 0.0001 (cosine). "
        "Stage dpo: 30 steps, batches of 1, peak learning rate 5e-07 (constant), beta 0.1. "
        "Replies are greedy, at most 128 tokens. Verdicts are by rules,gcg31. Training seeds: 13, 14. "
        "Intervals are 95%: wilson. Differences are paired by prompt: Stage A (Stage A). "
        "Primary tests are adjusted by Holm within the family Stage A."
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
