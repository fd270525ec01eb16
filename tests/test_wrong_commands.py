"""Commands that a person gets wrong: one line that says what is wrong and what would work, and nothing written.

A row below is a command, `#`, and words that the line has to hold; `#3` for another exit code than 2. Files that the
commands name are made by `place`. The rows of `EVERY` are tried on every study.
"""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.evaluation import results
from alignment_core.evaluation.files import COMPLETIONS, VERDICTS
from alignment_core.evaluation.results import Results
from alignment_core.evaluation.state import StateFiles, write_index
from alignment_core.io import write_jsonl
from alignment_core.judging.verdicts import verdict
from alignment_core.pipeline.run import Run
from alignment_core.records import Completion

STUDIES = ("drift-dpo", "neuron-brittleness", "orth-refusal", "mini-cai")
EVERY = """
run --preset tyni                                     # there are tiny
run judgee=rules                                      # did you mean 'judge'
run train.lrr                                         # write key.sub=value
run model.device=gpu                                  # model.device
run judging.batch_size=many                           # judging.batch_size
run judging.batch_size=                               # judging.batch_size
run --config absent.toml                              # no such settings file
run --config folder                                   # no such settings file
run --config bad.toml                                 # not TOML
run --config unknown.toml                             # unknown key 'nothing'
run --config binary.toml                              # cannot be read as text
run --seeds thirteen                                  # whole numbers
run --seeds 13,13                                     # each seed may stand once
run --seeds -1                                        # none may be negative
run --seeds ''                                        # whole numbers
run --seeds 13 --seeds 14                             # --seeds 13,14
run --seeds 17-13                                     # the smaller seed first
run --seeds 1-2-3                                     # 13-17
run --seeds 13-15,14                                  # each seed may stand once
run --seeds 1-1000000                                 # at most 1000 seeds
run --judge gpt-4o                                    # no judge 'gpt-4o'
run --judge rules,rules                               # each judge once
run --judge ''                                        # each judge once
run --dry-run --judge gpt-4o                          # no judge 'gpt-4o'
run --judge endpoint                                  # judging.endpoint.model
run --dry-run --judge rules,endpoint                  # judging.endpoint.model
run --judge endpoint judging.endpoint.model=m judging.endpoint.base_url=http://me:sk-1@127.0.0.1:9/v1  # base_url
run --judge endpoint judging.endpoint.model=m judging.endpoint.base_url=http://127.0.0.1:9/v1?key=sk-1 # base_url
run --judge endpoint judging.endpoint.model=m judging.endpoint.base_url=http://127.0.0.1:99999/v1      # base_url
run --judge endpoint judging.endpoint.model=m judging.endpoint.base_url=127.0.0.1:9                    # base_url
run --judge endpoint judging.endpoint.model=m judging.endpoint.api_key_env=NO_KEY_HERE                 # NO_KEY_HERE
run --judge endpoint judging.endpoint.model=m judging.endpoint.base_url=http://127.0.0.1:9/v1         # start the server
run --runs replies.jsonl                              # replies.jsonl
run --log-level loud                                  # no log level 'loud'
run --frobnicate                                      # No such option
run --judge                                           # requires an argument
data --preset smal                                    # did you mean 'small'
show tyni                                             # there are tiny
show tiny --config bad.toml                           # not TOML
report                                                # Missing argument
report absent                                         # no finished run
report unfinished                                     # no finished run
report done/{other}                                   # is a run of {other}, not of {study}
record                                                # Missing argument
record records                                        # no finished run
doctor --judge gpt-4o                                 #3 no judge 'gpt-4o'
doctor --judge endpoint                               #3 judging.endpoint.model
sweep                                                 # nothing to vary
sweep judge                                           # KEY=a,b
sweep judge=                                          # a value is empty
sweep judge=rules,,xstest                             # a value is empty
sweep 'judge=[rules,xstest'                           # not closed
sweep judge=rules,rules                               # are the same settings
sweep judge=rules judge=xstest                        # judge is given twice
sweep judge=rules,xstest --judge gcg31                # judge is given twice
sweep judgee=rules,xstest                             # did you mean 'judge'
sweep model.device=cpu,gpu                            # model.device
sweep judge=rules,gpt-4o                              # no judge 'gpt-4o'
sweep judge=rules,xstest --preset tyni                # there are tiny
sweep judge=rules,xstest --seeds 17-13                # the smaller seed first
sweep judge=rules,xstest --launcher locl:2            # did you mean 'local'
sweep judge=rules,xstest --launcher local:0           # at least one
sweep judge=rules,xstest --launcher local             # local:2
sweep judge=rules,xstest --launcher print:2           # only local takes a number
sweep judge=rules,xstest --launcher slurm             # no sbatch on PATH
sweep judge=rules,xstest --slurm partition=gpu        # --launcher slurm
sweep judge=rules,xstest --launcher slurm --slurm gpu # KEY=VALUE
sweep judge=rules,xstest --launcher local:2 --gpus 64 # needs 128 GPUs
evaluatee                                             # No such command
"""
OWN = {
    "drift-dpo": """
run data.eval_file=absent.jsonl                       # no such file
run --dry-run data.eval_file=absent.jsonl             # no such file
run data.sources=public data.dolly.path=absent        # no such file
run --preset small model.revision=main                # revision
run train.lr=1e-4                                     # unknown key 'train'
run stage_a.lr=-1                                     # stage_a.lr
run data.stage_a_size=0                               # data.stage_a_size
""",
    "neuron-brittleness": """
run doses=0.5                                         # doses
run data.samples=0                                    # data.samples
run train.max_steps=0                                 # train.max_steps
""",
    "orth-refusal": """
run direction.rank=0                                  # direction.rank
run attack.max_steps=0                                # attack.max_steps
sorry-bench                                           # sorry
push --namespace me                                   # Missing option
push --namespace me --adapter vanilla                 # NAME=FOLDER
push --namespace me --adapter vanilla=absent          # absent
pull --namespace me --name vanilla                    # Missing option
""",
    "mini-cai": """
chat                                                  # Missing argument
chat absent                                           # no adapter there
chat folder                                           # no adapter there
run --include bests                                   # selection.include
""",
}
CORE = """
compare                                               # Missing argument
compare replies.jsonl                                 # Missing argument
compare replies.jsonl absent.jsonl                    # absent.jsonl
compare replies.jsonl folder                          # folder
compare replies.jsonl broken.jsonl                    # broken.jsonl:1
compare replies.jsonl empty.jsonl                     # no rows
compare replies.jsonl others.jsonl                    # no prompt is in both
compare replies.jsonl replies.jsonl --metric refusals # refusal
compare replies.jsonl replies.jsonl --map id          # --map
compare replies.jsonl replies.jsonl --map name=id     # --map
compare replies.jsonl replies.jsonl --judge rulez     # 'rulez'
compare replies.jsonl replies.jsonl --seeds some      # --seeds
compare replies.jsonl replies.jsonl --level 95        # level
compare replies.jsonl replies.jsonl --margin wide     # --margin
compare replies.jsonl replies.jsonl --margin -0.1     # margin
compare replies.jsonl replies.jsonl --where-a subject # --where-a
compare replies.jsonl replies.jsonl --where-a subject=nobody  # no rows
compare replies.jsonl replies.jsonl --fail-on worse   # --fail-on
judge                                                 # Missing argument
judge absent.jsonl                                    # absent.jsonl
judge folder                                          # folder
judge broken.jsonl                                    # broken.jsonl
judge damaged.eval                                    # damaged.eval
judge replies.jsonl --judge gpt-4o                    # no judge 'gpt-4o'
judge replies.jsonl --judge endpoint                  # model
judge replies.jsonl --kind evil                       # --kind
judge replies.jsonl --out full                        # full
judge replies.jsonl --map text=                       # --map
export done/drift-dpo                                 # Missing argument
export absent out                                     # no finished run
export unfinished out                                 # no finished run
export done/drift-dpo out --format csv                # --format
export done/drift-dpo full                            # full
label                                                 # Missing argument
label absent                                          # no finished run
label unfinished                                      # no finished run
label done/drift-dpo --size 0                         # --size
label done/drift-dpo --size ten                       # --size
report absent                                         # no finished run
report folder                                         # no finished run
report done/drift-dpo                                 # done/drift-dpo
report replies.jsonl                                  # replies.jsonl
power                                                 # leave out
power --prompts 100 --seeds 3 --difference 2 --power 0.8      # leave out
power --prompts -5 --seeds 3 --power 0.8              # prompts
power --prompts 100 --seeds 3 --power 80              # power
power --prompts 100 --seeds 3 --power 0.8 --discordant 2      # discordant
headlines absent                                      # absent
headlines done --write absent.md                      # absent.md
headlines done --write page.md                        # to put the table between
selfcheck --runs 10                                   # at least 200
organism build full                                   # is not an empty folder
organism build out --seed one                         # --seed
organism feed                                         # No such command
doctor --runs replies.jsonl                           #3 replies.jsonl
comparre a b                                          # No such command
"""


def cases() -> Iterator[object]:
    """(command, words of its line, exit code, what the line says)."""
    for index, study in enumerate(STUDIES):
        for row in (EVERY.strip() + OWN[study].rstrip()).splitlines():
            yield _case(study, row.replace("{study}", study).replace("{other}", STUDIES[index - 1]))
    for row in CORE.strip().splitlines():
        yield _case("alignment-core", row)


def _case(command: str, row: str) -> object:
    line, _, says = row.partition("#")
    code, says = (int(says[0]), says[1:]) if says[0].isdigit() else (2, says)
    return pytest.param(command, line.strip(), code, says.strip(), id=f"{command} {line.strip()}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what the commands name: files good and bad, runs finished and not."""
    folder = tmp_path / "place"
    for name, text in {
        "bad.toml": "data = [",
        "unknown.toml": "nothing = 1\n",
        "broken.jsonl": "{\n",
        "empty.jsonl": "",
        "damaged.eval": "PK no zip",
        "full/verdicts.jsonl": "{}\n",
        "full/baseline.eval": "kept",
        "unfinished/config.json": "{}",
        "page.md": "# A page\n",
        "folder/inside/file": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, first in (("replies", 0), ("others", 100)):
        replies = [Completion(f"p{first + i}", "m", "Sure.", f"Do {first + i}", "harmful") for i in range(6)]
        write_jsonl(folder / f"{name}.jsonl", replies)
    for study in STUDIES:
        run = folder / "done" / study
        state = StateFiles("baseline", None, run / "made" / "answer", run / "made" / "judge")
        write_jsonl(state.answered / COMPLETIONS, replies)
        write_jsonl(state.judged / VERDICTS, [verdict(reply, "rules", "compliance") for reply in replies])
        write_index(run, [state])
        results.write(run / "results.json", Results(study=study, preset="tiny", seeds=(13,)))
    return folder


@pytest.fixture
def _no_step_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is accepted by mistake ends at its first step."""
    do = Run.do

    def planned(run: Run, name: str, *words: Any, **named: Any) -> Any:
        if not run.planning:
            pytest.fail(f"the command was accepted: step {name} would be made")
        return do(run, name, *words, **named)

    monkeypatch.setattr(Run, "do", planned)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else b"/" for p in folder.rglob("*")}


def check(code: int, stdout: str, stderr: str, expected: int, says: str) -> None:
    """One line on stderr (or the usage and one), the right exit code, and the words that help."""
    assert "Traceback" not in stdout + stderr
    assert "internal error" not in stderr, stderr
    said = [line for line in stderr.splitlines() if line.strip()]
    if not said or not said[0].startswith(("Usage: ", "╭")):
        lines = said or stdout.splitlines()
        assert [line for line in said if not line.startswith("error: ")] == [], stderr
        assert len(said) == (1 if expected == 2 else 0), stderr
        assert any(says in line for line in lines), stderr or stdout
    else:
        assert says in " ".join(" ".join(said).replace("│", " ").split()), stderr
    assert code == expected, f"exit code {code}: {stderr}"


@pytest.mark.usefixtures("_no_step_is_made")
@pytest.mark.parametrize(("command", "line", "code", "says"), list(cases()))
def test_a_wrong_command_is_one_line_and_writes_nothing(
    command: str, line: str, code: int, says: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    name = "alignment_core.cli.main" if command == "alignment-core" else f"{command.replace('-', '_')}.cli"
    before = snapshot(place)
    done = CliRunner().invoke(importlib.import_module(name).app, shlex.split(line), prog_name=command)
    assert snapshot(place) == before
    check(done.exit_code, done.stdout, done.stderr, code, says)


def test_there_are_a_hundred_and_each_command_is_among_them() -> None:
    rows = [case.values[:2] for case in cases()]  # type: ignore[attr-defined]
    assert len(set(rows)) == len(rows) >= 100


@pytest.mark.parametrize(
    ("command", "line", "says"),
    [
        ("alignment-core", "compare replies.jsonl absent.jsonl", "absent.jsonl"),
        ("drift-dpo", "run --judge endpoint", "judging.endpoint.model"),
        ("mini-cai", "report done/drift-dpo", "is a run of drift-dpo"),
        ("orth-refusal", "run --preset tyni", "there are tiny"),
        ("neuron-brittleness", "run --seeds 13,13", "each seed may stand once"),
    ],
)
def test_the_same_in_a_process_of_its_own(command: str, line: str, says: str, place: Path) -> None:
    program = Path(sys.executable).with_name(command)
    before = snapshot(place)
    done = subprocess.run(
        [program, *shlex.split(line)], cwd=place, capture_output=True, text=True, check=False, timeout=120
    )
    assert snapshot(place) == before
    check(done.returncode, done.stdout, done.stderr, 2, says)
