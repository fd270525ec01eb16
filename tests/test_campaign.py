"""The guarantees' campaign in small: the promises are watched by every run of the tests, and the page is its own."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CAMPAIGN = Path(__file__).parent / "campaign"


def run(program: str, *words: str, out: Path) -> dict[str, Any]:
    """A part of the campaign as `make guarantees` runs it; its record."""
    command = [sys.executable, str(CAMPAIGN / f"{program}.py"), "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    record: dict[str, Any] = json.loads((out / f"{program}.json").read_text())
    return record


def room(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(CAMPAIGN))
    return importlib.import_module(name)


def test_damaged_inputs_are_counted_or_refused_in_one_line(tmp_path: Path) -> None:
    record = run("inputs", "--cases", "300", "--seed", "3", "--heavy", "0", out=tmp_path)
    assert (record["ran"], record["findings"]) == (300, [])
    assert sum(n["read"] for n in record["by_reader"].values()) > 50
    assert sum(n["refused"] for n in record["by_reader"].values()) > 50


def test_hostile_models_are_refused_in_one_line_or_give_numbers(tmp_path: Path) -> None:
    record = run("loads", "--cases", "25", out=tmp_path)
    assert (record["ran"], record["findings"]) == (25, [])
    assert record["outcomes"]["refused"] > 12


@pytest.mark.slow
def test_every_hostile_model_is_refused_in_one_line_or_gives_numbers(tmp_path: Path) -> None:
    record = run("loads", out=tmp_path)
    assert record["ran"] > 400
    assert record["findings"] == []
    assert record["outcomes"]["read"] > 50  # what is odd and does no harm loads


def test_hostile_texts_do_nothing(tmp_path: Path) -> None:
    record = run(
        "texts", "--cases", "40", "--seed", "3", "--browser", "0", "--figures", "20", "--studies", "0", out=tmp_path
    )
    assert (record["ran"], record["findings"]) == (40, [])


@pytest.mark.slow
def test_kills_change_nothing(tmp_path: Path) -> None:
    record = run("kills", "--reduced", "12", "--tiny", "0", out=tmp_path)
    assert (record["kills"], record["different"]) == (12, [])


def test_a_part_goes_on_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = room("record", monkeypatch).Part
    first = part("p", tmp_path, seed=1)
    first.add({"cases": 3})
    with (tmp_path / "p.jsonl").open("a") as stream:
        stream.write('{"cases": 4')  # torn by the kill
    again = part("p", tmp_path, seed=1)
    assert again.rows == [{"cases": 3}]
    assert again.finish(ran=3)["commit"].startswith(first.begun["commit"])
    assert part("p", tmp_path, seed=2).rows == []  # another campaign starts anew


def test_the_checks_of_hostile_text_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = room("outputs", monkeypatch)
    page = '<meta content="Content-Security-Policy"><p>{}</p>'
    plain = {"report.html": page.format("word"), "report.md": "word", "tables.tex": "a & word", "terminal": "word",
             "verdicts.csv": "a,b\n1,word\n"}  # fmt: skip
    assert outputs.check(plain, plain) == []
    for name, text in {
        "report.html": page.format("<b>x"),
        "report.md": "[x](http://evil.example)",
        "tables.tex": "a & b & word",
        "terminal": "\x1b]52;c;x\x07",
        "verdicts.csv": "a,b\n1, =1+1\n",
    }.items():
        assert outputs.check({**plain, name: text}, plain), name
    for bad in ('<a href="javascript:x">', "<i onclick=x>", '<a href="//evil.example">'):
        assert outputs.check({"report.html": page.format(bad)}, {"report.html": page.format(bad)})


def test_the_checks_of_readers_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, readers = room("inputs", monkeypatch), room("readers", monkeypatch)

    def careless(folder: Path) -> str:
        raise KeyError(folder.name)

    bad = readers.Reader("careless", {"a.txt": b"x"}, careless)
    assert inputs.case(bad, "1", tmp_path)[0] == "finding"
    wordy = readers.Reader("wordy", {"a.txt": b"x"}, lambda _: (_ for _ in ()).throw(inputs.UserError("a\nb")))
    assert inputs.case(wordy, "1", tmp_path)[0] == "finding"


def test_the_page_is_the_campaigns_own(monkeypatch: pytest.MonkeyPatch) -> None:
    room_ = room("guarantees", monkeypatch)
    assert room_.page(json.loads(room_.DATA.read_text())) == room_.PAGE.read_text()


def test_every_promise_names_tests_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    promises = room("promises", monkeypatch)
    for promise in promises.PROMISES:
        for test in promise.tests:
            file, _, name = test.partition("::")
            source = (promises.ROOT / file).read_text()
            assert not name or f"def {name}(" in source, test


NO_SOCKETS = """
import socket, sys
def refused(*_, **__):
    raise RuntimeError("a socket was opened")
socket.socket.connect = socket.socket.connect_ex = refused
socket.getaddrinfo = socket.create_connection = refused
from drift_dpo.cli import app
app(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_tiny_run_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = room("kills", monkeypatch).REDUCED["drift-dpo"].split()
    command = [sys.executable, "-c", NO_SOCKETS, "run", *settings, "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(tmp_path.glob("drift-dpo/*/results.json"))
