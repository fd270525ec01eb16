"""The contract of the studies: whatever judges, a run ends in a report with real verdicts, and every command works.

Each study (the four, and the fifth of `fifth_study/`) is run with small settings through the commands a user types,
each in a process of its own: judged by the rules, by the rules and a model, by the rules and a server; a server that
is good, that fails on 15% of the requests, or whose key is rejected midway and then mended.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from alignment_core.data.exchange import read_file
from alignment_core.evaluation import results
from alignment_core.evaluation.state import StateFiles, judged_texts, read_index, texts
from alignment_core.judging.question import question
from alignment_core.records import Completion, Verdict
from alignment_core.testing.runs import run_folders
from alignment_core.testing.servers.judge import KEY, MODEL, JudgeServer, judging

HERE = Path(__file__).parent
STUDIES = ("drift-dpo", "neuron-brittleness", "orth-refusal", "mini-cai", "fifth-study")
SERVERS = {
    "clean": {},
    "faults": {"faults": 0.15},
    "mended": {"key_rejected_after": 15},
}
CASES = [
    *(pytest.param(study, "rules", "", id=f"{study}-rules") for study in STUDIES),
    *(
        pytest.param(study, judges, server, id=f"{study}-{judges}-{server}".rstrip("-"), marks=pytest.mark.slow)
        for study in STUDIES
        for judges, server in (("rules,model", ""), *(("rules,endpoint", name) for name in SERVERS))
    ),
]


def call(command: str, *words: object, typed: str = "") -> subprocess.CompletedProcess[str]:
    """A command as a user types it; the fifth study is installed nowhere, so its app is called by its module."""
    program = [str(Path(sys.executable).with_name(command))]
    if command == "fifth-study":
        program = [sys.executable, "-c", "from fifth_study.cli import app; app(prog_name='fifth-study')"]
    environment = {**os.environ, "PYTHONPATH": str(HERE / "fifth_study"), "JUDGE_KEY": KEY}
    done = subprocess.run(
        [*program, *map(str, words)], env=environment, input=typed, capture_output=True, text=True, check=False,
        timeout=600,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def good(command: str, *words: object, typed: str = "") -> str:
    """The output of a command that has to succeed."""
    done = call(command, *words, typed=typed)
    assert done.returncode == 0, f"{command} {words[0]}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def refused(command: str, *words: object) -> str:
    """The one line of a command that has to end with exit code 2."""
    done = call(command, *words)
    assert done.returncode == 2, f"{done.returncode}: {done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "internal error" not in line
    return line


def tree(folder: Path) -> dict[str, str]:
    """Every file under a folder, by its content."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@dataclass(frozen=True)
class Made:
    """A finished run, and the settings that name it."""

    study: str
    folder: Path
    judges: tuple[str, ...]
    words: tuple[object, ...]

    def states(self) -> list[StateFiles]:
        """The states that stand for themselves."""
        return [state for state in read_index(self.folder) if not state.at]

    def judged(self, judge: str) -> tuple[list[Completion], list[Verdict]]:
        return judged_texts(self.states(), judge)


@pytest.mark.parametrize(("study", "judges", "server"), CASES)
def test_a_study_keeps_the_contract(study: str, judges: str, server: str, tmp_path: Path) -> None:
    with judging(**SERVERS[server]) if server else nullcontext() as running:
        made = run(study, judges, running, tmp_path / "runs")
    results.read(made.folder / "results.json")
    for judge in made.judges:
        assert not [v for v in made.judged(judge)[1] if v.missing]
    page_shows_every_verdict(made)
    sheet_has_every_verdict(made)
    report_is_written_again(made)
    no_report_of_another_study(made)
    exports_are_read_back(made, tmp_path)
    recorded = good(study, "record", tmp_path / "records", *made.words)
    assert (tmp_path / "records" / made.folder.name / "results.json").is_file(), recorded
    good("alignment-core", "label", made.folder, "--size", "4", typed="q\n")
    if running is not None:
        nothing_is_asked_twice(made, running)
        assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def run(study: str, judges: str, server: JudgeServer | None, runs: Path) -> Made:
    """The run, after at most one more start."""
    config = HERE / "small" / f"{study}.toml"
    words: list[object] = ["--runs", runs, "--config", config, "--judge", judges]
    if server is not None:
        words += [f"judging.endpoint.base_url={server.url}", f"judging.endpoint.model={MODEL}"]
        words += ["judging.endpoint.api_key_env=JUDGE_KEY", "judging.endpoint.backoff=0.05"]
    if server is not None and server.key_rejected_after is not None:
        line = refused(study, "run", "--quiet", *words)
        assert "401" in line
        assert server.answered.total() == server.key_rejected_after
        server.mend()
    elif server is not None and server.faults:
        done = call(study, "run", "--quiet", *words)
        assert done.returncode in (0, 2), done.stderr
        assert server.faulty
    good(study, "run", "--quiet", *words)
    (folder,) = run_folders(runs / study)
    return Made(study, folder, tuple(judges.split(",")), tuple(words))


class _Replies(HTMLParser):
    """Summary and text of every reply on a page."""

    def __init__(self) -> None:
        super().__init__()
        self.summaries: list[str] = []
        self.badges: list[str] = []
        self._in: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = (dict(attrs).get("class") or "").split()
        if tag == "details" and "reply" in classes:
            self.summaries.append("")
            self._in = ["reply"]
        elif self._in and tag == "summary":
            self._in.append("summary")
        elif "summary" in self._in and "badge" in classes:
            self.badges.append("")
            self._in.append("badge")

    def handle_endtag(self, tag: str) -> None:
        if self._in[-1:] == ["badge"] and tag == "span":
            self._in.pop()
        elif self._in[-1:] == ["summary"] and tag == "summary":
            self._in = []

    def handle_data(self, data: str) -> None:
        if "summary" in self._in:
            self.summaries[-1] += data
        if "badge" in self._in:
            self.badges[-1] += data


def page_shows_every_verdict(made: Made) -> None:
    """Each judged reply stands on the page with its verdict by every judge."""
    found = _Replies()
    found.feed((made.folder / "report.html").read_text(encoding="utf-8"))
    first, *others = made.judges
    expected = [v.label for v in made.judged(first)[1]]
    assert expected
    assert Counter(found.badges) == Counter(expected)
    for judge in others:
        shown = [s.partition(f"{judge}: ")[2].split()[:1] for s in found.summaries]
        assert Counter(label for (label,) in shown) == Counter(v.label for v in made.judged(judge)[1]), judge
    assert not [s for s in found.summaries if "missing" in s]


def sheet_has_every_verdict(made: Made) -> None:
    """verdicts.csv has a row for each judge and reply of the states that stand for themselves."""
    with (made.folder / "verdicts.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if not row["at"]]
    expected = Counter(
        (v.subject, "" if v.seed is None else str(v.seed), v.prompt_id, str(v.candidate), v.judge, v.label)
        for judge in made.judges
        for v in made.judged(judge)[1]
    )
    named = ("subject", "seed", "prompt_id", "candidate", "judge", "label")
    alone = [row for row in rows if not row["at"]]  # the rest is on trajectories
    assert Counter(tuple(row[name] for name in named) for row in alone) == expected
    assert not [row for row in rows if row["label"] == "missing"]


def report_is_written_again(made: Made) -> None:
    """`<study> report` makes the same files byte for byte."""
    before = tree(made.folder)
    for name in ("report.html", "report.md", "verdicts.csv"):
        (made.folder / name).unlink()
    good(made.study, "report", made.folder)
    assert tree(made.folder) == before


def no_report_of_another_study(made: Made) -> None:
    """Another study, and the page over all runs, refuse this run and leave it as it is."""
    before = tree(made.folder)
    other = STUDIES[STUDIES.index(made.study) - 1]
    assert made.study in refused(other, "report", made.folder)
    refused("alignment-core", "report", made.folder)
    assert tree(made.folder) == before


def exports_are_read_back(made: Made, tmp_path: Path) -> None:
    """Both formats hold the run's replies and verdicts, and judged again by the rules they get the same verdicts."""
    replies, verdicts = made.judged(made.judges[0])
    said = Counter((c.subject, c.seed, c.prompt, c.text) for c in replies)
    labels = Counter(_labels(verdicts))
    for form in ("inspect", "lm-eval"):
        written = good("alignment-core", "export", made.folder, tmp_path / form, "--format", form)
        files = [Path(line) for line in written.splitlines()]
        found = [read_file(file) for file in files]
        assert Counter((c.subject, c.seed, c.prompt, c.text) for one in found for c in one.completions) == said
        assert Counter(_labels(v for one in found for v in one.verdicts)) == labels
        assert not [one.rejected for one in found if one.rejected]
        out = tmp_path / f"judged-{form}"
        good("alignment-core", "judge", files[0], "--judge", "rules", "--out", out)
        again = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
        mine = [v for v in verdicts if v.subject == again[0]["subject"] and v.seed == again[0].get("seed")]
        assert Counter((v["prompt_id"], v["label"]) for v in again) == Counter((v.prompt_id, v.label) for v in mine)


def _labels(verdicts: Sequence[Verdict] | Iterator[Verdict]) -> Iterator[tuple[object, ...]]:
    return ((v.subject, v.seed, v.prompt_id, v.candidate, v.judge, v.label) for v in verdicts)


def nothing_is_asked_twice(made: Made, server: JudgeServer) -> None:
    """No reply gets a second verdict from the server: what came before a start that failed is kept."""
    replies = [c for state in read_index(made.folder) for c in texts(state)]
    there = Counter(question(c.prompt, c.text, 8000) for c in replies)
    assert server.answered.total() > 0
    assert not [q for q, times in server.answered.items() if times > there[q]]
