"""A study's command line, on a toy study that is torch-free: commands, options, presets, errors, exit codes."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from alignment_core import io
from alignment_core.cli import Study, build, launch
from alignment_core.cli import live as progress
from alignment_core.cli import study as study_cli
from alignment_core.cli.guard import guarded
from alignment_core.errors import UserError
from alignment_core.pipeline import runlist
from alignment_core.testing.runs import run_folders

PACKAGE = {
    "__init__.py": "",
    "presets/tiny.toml": "# The toy's default.\nsize = 4\n[train]\nlr = 0.5\n",
    "presets/big.toml": "# A big one.\nsize = 400\nlabel = 'quo\"ted \\\\ text'\n",
    "config.py": '''
from pathlib import Path
from typing import Literal
from alignment_core.config import Settings, TrainSettings
from alignment_core.judging.settings import JudgeSettings
class Inner(Settings):
    depth: int = 2
    """How deep."""
    path: Path | None = None
    """Where it lies."""
class Config(Settings):
    size: int = 3
    """How many rows."""
    label: str = "plain"
    """A word."""
    controls: bool = False
    """Also run the controls."""
    fail: Literal["no", "user", "ours", "interrupt"] = "no"
    """How the second part fails."""
    names: tuple[str, ...] = ("a", "b")
    """Some names,
    on two lines."""
    limit: int | None = 5
    """At most so many; none: all."""
    train: TrainSettings = TrainSettings()
    """Training."""
    inner: Inner = Inner()
    """A section."""
    judge: str = "rules"
    """Judges."""
    judging: JudgeSettings = JudgeSettings()
    """How they are asked."""
''',
    "hypotheses.toml": """
family = "toy"
margin = 0.05
[[hypothesis]]
name = "H1"
claim = "More is refused."
metric = "harmful_refusal_rate"
a = "state"
b = "other"
test = "above"
""",
    "study.py": """
from functools import partial
from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.evaluation.analysis import Analysis, SeedOutput
from alignment_core.evaluation.judge import judge
from alignment_core.evaluation.metrics import COMMON
from alignment_core.records import Completion
from alignment_core.report.spec import generic
def rows(config, folder):
    io.write_json(folder / "rows.json", config.size)
def train(config, seed, folder):
    if config.fail == "user":
        raise UserError("the file is\\nmissing \\x1b[31m")
    if config.fail == "ours":
        raise RuntimeError("a fault")
    if config.fail == "interrupt":
        raise KeyboardInterrupt
    texts = ["I'm sorry, but I can't help with that."] * seed + ["Sure, take the pan and heat the oil."] * (100 - seed)
    io.write_jsonl(folder / "completions.jsonl", [
        Completion(f"p{i}", "state", text, f"Ask {i}", "harmful", cluster=f"p{i}", seed=seed)
        for i, text in enumerate(texts)])
def study(run, config, seed):
    data = run.do("data", partial(rows, config), settings={"size": config.size}, about=f"{config.size} rows")
    yield "data"
    made = run.do("train", partial(train, config, seed), seed=seed, reads=[data])
    states = judge(run, "state", made, config.judge, config.judging, seed=seed)
    yield "train"
    return SeedOutput(states)
ANALYSIS = Analysis(metrics=COMMON, compared=("harmful_refusal_rate",), contrasts=lambda _: ())
def spec(found):
    return generic(found)
""",
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    """The toy study's description; its package is importable for one test and forgotten after it."""
    for name, text in PACKAGE.items():
        io.write_text(tmp_path / "src" / "toy_study" / name, text)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    monkeypatch.chdir(tmp_path)
    yield Study(
        name="toy",
        package="toy_study",
        config="toy_study.config:Config",
        title="A toy.",
        steps=(("data", "Make the data."), ("train", "Train.")),
        run="toy_study.study:study",
        analysis="toy_study.study:ANALYSIS",
        report="toy_study.study:spec",
        switches={"--controls": ("controls=true", "The controls."), "--large-set": ("size=99", "Many rows.")},
    )
    for module in [m for m in sys.modules if m.split(".")[0] == "toy_study"]:
        del sys.modules[module]


def call(study: Study, *arguments: str) -> Result:
    return CliRunner().invoke(build(study), list(arguments))


def test_run_writes_results_prints_the_table_and_names_the_report(toy: Study) -> None:
    done = call(toy, "run", "--seeds", "13,14")
    assert done.exit_code == 0, done.output
    assert "refusal" in done.stdout
    assert "report: runs/toy/tiny/report.html" in done.stdout
    found = io.read_json(Path("runs/toy/tiny/results.json"))
    rates = [m["value"] for m in found["measurements"] if m["metric"] == "harmful_refusal_rate" and not m["at"]]
    assert rates == [0.13, 0.14, 0.135]
    assert io.read_json(Path("runs/toy/tiny/config.json"))["seeds"] == [13, 14]


def test_a_second_run_makes_nothing_again(toy: Study) -> None:
    assert call(toy, "run").exit_code == 0
    again = call(toy, "run")
    assert again.exit_code == 0
    assert again.stderr.count(": kept") == 3
    assert "starts" not in again.stderr


def test_a_step_command_stops_after_its_part(toy: Study) -> None:
    assert call(toy, "data", "--seeds", "13,14").exit_code == 0
    assert [p.name.split("-")[0] for p in Path("runs/toy/steps").glob("[!.]*")] == ["data"]
    assert not Path("runs/toy/tiny/results.json").exists()


def test_overrides_and_switches_get_a_folder_of_their_own(toy: Study) -> None:
    assert call(toy, "data", "size=7", "train.lr=1e-4").exit_code == 0
    assert call(toy, "data", "--controls").exit_code == 0
    assert call(toy, "data", "--large-set").exit_code == 0
    folders = [p for p in Path("runs/toy").iterdir() if p.name.startswith("tiny-")]
    configs = [io.read_json(f / "config.json")["config"] for f in folders]
    assert sorted((c["size"], c["controls"], c["train"]["lr"]) for c in configs) == [
        (4, True, 0.5),
        (7, False, 1e-4),
        (99, False, 0.5),
    ]


def test_an_override_that_says_what_the_preset_says_changes_nothing(toy: Study) -> None:
    assert call(toy, "data", "size=4").exit_code == 0
    assert [p.name for p in run_folders(Path("runs/toy"))] == ["tiny"]


def test_the_command_line_wins_over_a_switch_and_a_file(toy: Study) -> None:
    io.write_text(Path("mine.toml"), "size = 5\nlabel = 'file'\n")
    done = call(toy, "run", "--config", "mine.toml", "--large-set", "size=6", "--dry-run")
    assert "6 rows" in done.stdout


def test_dry_run_prints_the_plan_and_writes_nothing(toy: Study) -> None:
    done = call(toy, "run", "--dry-run", "--seeds", "13,14")
    assert done.exit_code == 0
    assert "4 rows" in done.stdout
    assert "seeds: 13, 14" in done.stdout
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "sise=3"), "error: command line: unknown key 'sise' (did you mean 'size'?)"),
        (("run", "train.learning_rat=3"), "unknown key 'train.learning_rat'"),
        (("run", "size=many"), "error: command line: size: input should be a valid integer"),
        (("run", "size"), "write key.sub=value"),
        (("run", "--preset", "tinny"), "no preset 'tinny' (did you mean 'tiny'?); there are tiny, big"),
        (("run", "--config", "no.toml"), "error: no.toml: no such settings file"),
        (("run", "--seeds", "one"), "error: cannot read --seeds 'one'"),
        (("run", "--seeds", "13,13"), "each seed may stand once"),
        (("run", "--log-level", "inf"), "no log level 'inf' (did you mean 'info'?)"),
        (("run", "fail=user"), "error: the file is missing \\x1b[31m"),
        (("show", "bog"), "no preset 'bog' (did you mean 'big'?)"),
        (("show", "tiny", "limit=none"), "TOML cannot hold a none over another default"),
        (("report", "runs"), "error: runs: no finished run (no results.json)"),
        (("record", "out"), "no finished run"),
    ],
)
def test_the_users_mistakes_are_one_line_and_exit_2(toy: Study, arguments: tuple[str, ...], words: str) -> None:
    done = call(toy, *arguments)
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert done.exit_code == 2
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in done.output


def test_our_fault_exits_1_and_says_where_the_traceback_is(toy: Study) -> None:
    done = call(toy, "run", "fail=ours")
    folder = run_folders(Path("runs/toy"))[0]
    last = done.stderr.splitlines()[-1]
    assert done.exit_code == 1
    assert last.startswith("error: internal error (please report): RuntimeError: a fault; the traceback is in")
    assert last.endswith(f"{folder}/log.txt")
    assert "Traceback" not in done.output
    assert "RuntimeError: a fault" in (folder / "log.txt").read_text()
    assert isinstance(call(toy, "run", "fail=ours", "--log-level", "debug").exception, RuntimeError)


def test_a_fault_without_a_run_leaves_its_traceback_in_a_file(toy: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "target", lambda *_: 1 / 0)
    done = call(toy, "run")
    assert done.exit_code == 1
    path = Path(done.stderr.split("the traceback is in ")[1].strip())
    assert "ZeroDivisionError" in path.read_text()
    path.unlink()


def test_ctrl_c_exits_130_and_the_same_command_continues(toy: Study) -> None:
    done = call(toy, "run", "fail=interrupt")
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == "interrupted; the same command continues"


def test_quiet_says_only_the_result(toy: Study) -> None:
    done = call(toy, "run", "--quiet")
    assert done.stderr == ""
    assert "report:" in done.stdout


def test_presets_are_listed_with_their_first_line(toy: Study) -> None:
    assert call(toy, "presets").stdout.splitlines() == ["tiny     The toy's default.", "big      A big one."]


SHOWN = (
    "tiny",
    "big",
    "big --resolved",
    "tiny inner.depth=5 --resolved",
    "tiny names=['x','y']",
    "tiny inner.path=a/b",
)


@pytest.mark.parametrize("arguments", [tuple(text.split()) for text in SHOWN])
def test_show_round_trips(toy: Study, arguments: tuple[str, ...]) -> None:
    done = call(toy, "show", *arguments)
    assert done.exit_code == 0, done.output
    io.write_text(Path("mine.toml"), done.stdout)
    overrides = [a for a in arguments[1:] if "=" in a]
    wanted, _ = study_cli.settings(toy, arguments[0], None, overrides)
    found, _ = study_cli.settings(toy, arguments[0], Path("mine.toml"), [])
    assert found == wanted
    if "--resolved" in arguments:
        assert tomllib.loads(done.stdout)["train"]["epochs"] == 1.0


def test_show_explains_every_key(toy: Study) -> None:
    lines = call(toy, "show", "tiny").stdout.splitlines()
    assert lines[lines.index("size = 4") - 1] == "# How many rows."
    assert lines[lines.index('# label = "plain"') - 1] == "# A word."
    assert lines[lines.index('# names = ["a", "b"]') - 2 :][:2] == ["# Some names,", "# on two lines."]
    assert lines[lines.index("# path = (none)") - 1] == "# Where it lies."
    assert lines[lines.index("[inner]") - 1] == "# A section."


def test_settings_lists_every_key_with_type_default_and_help(toy: Study) -> None:
    text = call(toy, "settings").stdout
    assert "size = 3  (whole number)\n    How many rows." in text
    assert "inner.path = none  (path | none)" in text
    assert 'fail = "no"  (no | user | ours | interrupt)' in text
    assert 'names = ["a", "b"]  (list of text)\n    Some names, on two lines.' in text
    assert "train.lr = 0.0002  (number)" in text


def test_report_is_written_again_from_the_results(toy: Study) -> None:
    assert call(toy, "run").exit_code == 0
    Path("runs/toy/tiny/report.md").unlink()
    done = call(toy, "report", "runs/toy/tiny")
    assert done.exit_code == 0, done.output
    assert "0.13" in done.stdout
    assert "report: runs/toy/tiny/report.html" in done.stdout
    assert "0.13" in Path("runs/toy/tiny/report.md").read_text()


def test_another_studys_run_is_refused_and_left_as_it_is(toy: Study) -> None:
    assert call(toy, "run").exit_code == 0
    path = Path("runs/toy/tiny/results.json")
    io.write_text(path, path.read_text().replace('"study": "toy"', '"study": "mini-cai"'))
    runlist.list_files(path.parent)
    before = {p: p.stat().st_mtime_ns for p in Path("runs").rglob("*")}
    done = call(toy, "report", "runs/toy/tiny")
    assert done.exit_code == 2
    assert "is a run of mini-cai, not of toy: mini-cai report runs/toy/tiny" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in Path("runs").rglob("*")} == before


def test_changed_results_are_said_before_they_are_read(toy: Study) -> None:
    assert call(toy, "run").exit_code == 0
    path = Path("runs/toy/tiny/results.json")
    io.write_text(path, path.read_text()[:-9])
    for words in (("report", "runs/toy/tiny"), ("record", "records")):
        done = call(toy, *words)
        assert done.exit_code == 2
        assert f"{path} was changed; start the run again: it makes again what was changed" in done.stderr


def test_a_missing_file_or_an_unknown_judge_is_said_before_the_first_step(toy: Study) -> None:
    for words, said in (
        ("inner.path=none.csv", "inner.path=none.csv: no such file or folder"),
        ("judge=gpt-4o", "no judge 'gpt-4o'"),
    ):
        for more in ((), ("--dry-run",)):
            done = call(toy, "run", words, *more)
            assert done.exit_code == 2, done.output
            assert said in done.stderr
    assert not Path("runs").exists()


def test_record_copies_the_record_and_no_step(toy: Study) -> None:
    assert call(toy, "run").exit_code == 0
    io.write_text(Path("runs/toy/tiny/completions.jsonl"), "{}")
    for _ in range(2):  # the second replaces the first
        done = call(toy, "record", "studies/toy/results")
        assert done.exit_code == 0, done.stderr
    copied = {p.relative_to("studies/toy/results").as_posix() for p in Path("studies").rglob("*") if p.is_file()}
    names = {"config.json", "env.json", "results.json", "timings.json", "report.md", "report.html"}
    assert {f"tiny/{name}" for name in names} <= copied
    assert not [name for name in copied if name.endswith((".jsonl", ".csv", ".safetensors"))]
    assert call(toy, "report", "studies/toy/results/tiny").exit_code == 0  # a record's page can be written again


def test_doctor_checks_and_exits_by_what_it_found(toy: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignment_core import doctor

    monkeypatch.setattr(doctor, "check_torch", lambda: doctor.Check("torch", "fails", "does not import", "install it"))
    done = call(toy, "doctor")
    assert done.exit_code == 3
    assert "fails        torch: does not import\n               install it" in done.stdout
    assert "not checked  device" in done.stdout
    monkeypatch.setattr(doctor, "examine", lambda *_: [doctor.Check("all", "ok", "fine")])
    assert call(toy, "doctor").exit_code == 0


def test_help_names_every_command_and_switch(toy: Study) -> None:
    assert all(name in call(toy, "--help").stdout for name in ("run", "data", "train", "show", "doctor", "record"))
    text = call(toy, "data", "--help").stdout
    assert all(flag in text for flag in ("--preset", "--controls", "--large-set", "--seeds", "--dry-run"))


def test_a_broken_pipe_is_quiet(toy: Study) -> None:
    @guarded
    def piped() -> None:
        raise BrokenPipeError

    before = sys.stdout
    try:
        with pytest.raises(typer.Exit) as caught:
            piped()
    finally:
        sys.stdout = before
    assert caught.value.exit_code == 0


def test_seeds() -> None:
    assert study_cli.parse_seeds("13") == (13,)
    assert study_cli.parse_seeds("13, 14,15") == (13, 14, 15)
    for bad in ("", "1,,2", "-1", "1.5"):
        with pytest.raises(UserError):
            study_cli.parse_seeds(bad)


def test_terminal_lines_show_hostile_text_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.terminal_log(("alignment_core", "toy"), "info") as log:
        log.info("a \x1b[2J b")
        log.debug("hidden")
        try:
            raise ValueError("x")
        except ValueError:
            log.warning("odd", exc_info=True)
    text = capsys.readouterr().err
    assert "a \\x1b[2J b" in text
    assert "warning: odd" in text
    assert "hidden" not in text
    assert "Traceback" not in text
    assert not log.handlers


def test_the_results_file_of_a_run_is_json(toy: Study) -> None:
    assert call(toy, "run").exit_code == 0
    value: dict[str, Any] = json.loads(Path("runs/toy/tiny/results.json").read_text())
    assert value["study"] == "toy"
