"""The run folder: keys, reuse, resumption, lock, what is written beside the steps, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment_core import io
from alignment_core.config import ModelSettings, Settings
from alignment_core.errors import UserError
from alignment_core.pipeline import environment
from alignment_core.pipeline import run as runs
from alignment_core.pipeline.owner import Owner
from alignment_core.pipeline.process_group import process_group
from alignment_core.pipeline.run import Run, Step, changes, plain, run_folder
from alignment_core.pipeline.step import step_key
from alignment_core.pipeline.store import Store
from alignment_core.testing import thread_group


class Config(Settings):
    size: int = 3
    where: Path | None = None
    model: ModelSettings = ModelSettings()


def open_run(folder: Path, config: Settings | None = None) -> runs.AbstractContextManager[Run]:
    return Run.open(folder, "toy", "tiny", config or Config(), (13,))


def writes(text: str) -> Callable[[Path], None]:
    return lambda folder: io.write_text(folder / "out.txt", text)


def forbidden(folder: Path) -> None:
    raise AssertionError("the step was made again")


def test_a_whole_step_is_not_made_again(tmp_path: Path) -> None:
    with open_run(tmp_path / "r") as run:
        first = run.do("data", writes("one"), settings={"n": 1})
    with open_run(tmp_path / "r") as run:
        again = run.do("data", forbidden, settings={"n": 1})
    assert again == first
    assert (again / "out.txt").read_text() == "one"


def test_changed_settings_make_a_new_step_and_keep_the_old(tmp_path: Path) -> None:
    with open_run(tmp_path / "r") as run:
        old = run.do("data", writes("one"), settings={"n": 1})
        new = run.do("data", writes("two"), settings={"n": 2})
        below_old = run.do("train", writes("a"), reads=[old], seed=13)
        below_new = run.do("train", writes("b"), reads=[new], seed=13)
    texts = [(s / "out.txt").read_text() for s in (old, new, below_old, below_new)]
    assert texts == ["one", "two", "a", "b"]
    assert below_old.folder.name.startswith("train-s13-")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"code": "d2"},
        {"settings": {"lr": 2}},
        {"seed": 14},
        {"reads": [("data", "bbb")]},
        {"identity": {"model": "y"}},
    ],
)
def test_everything_that_decides_a_step_is_in_its_key(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {
        "name": "train",
        "settings": {"lr": 1},
        "seed": 13,
        "reads": [("data", "aaa")],
        "identity": {"model": "x"},
        "code": "d1",
    }
    assert step_key(**base) != step_key(**{**base, **change})
    assert step_key(**base) == step_key(**base)
    assert len(step_key(**base)) == 12


def test_a_key_does_not_depend_on_the_order_of_settings() -> None:
    one = step_key("t", {"a": 1, "b": 2}, None, [("d", "k")], None, "c")
    assert one == step_key("t", {"b": 2, "a": 1}, None, [("d", "k")], None, "c")


def test_plain_turns_settings_into_json() -> None:
    assert plain({"c": Config(where=Path("a/b")), "t": (1, Path("x"))})["t"] == [1, "x"]
    assert plain(Config(where=Path("a/b")))["where"] == "a/b"


def test_changes_are_dotted_and_the_folder_has_a_hash_only_when_there_are_any() -> None:
    preset, other = Config(), Config(size=4, model=ModelSettings(name="x"))
    assert changes(preset, preset) == {}
    assert changes(other, preset) == {"model.name": "x", "size": 4}
    assert run_folder(Path("runs"), "drift-dpo", "tiny", preset, preset) == Path("runs/drift-dpo/tiny")
    name = run_folder(Path("runs"), "drift-dpo", "tiny", other, preset).name
    assert name.startswith("tiny-")
    assert len(name) == len("tiny-") + 6
    assert name != run_folder(Path("runs"), "drift-dpo", "tiny", Config(size=5), preset).name


def test_an_interrupted_step_continues_in_its_partial_folder(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def work(folder: Path) -> None:
        seen.append(sorted(p.name for p in folder.iterdir()))
        if len(seen) == 1:
            io.write_text(folder / "half.txt", "half")
            raise KeyboardInterrupt
        io.write_text(folder / "whole.txt", "whole")

    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "r") as run:
        run.do("train", work)
    with open_run(tmp_path / "r") as run:
        step = run.do("train", work)
    assert seen == [["made.json"], ["half.txt", "made.json"]]
    assert sorted(p.name for p in step.folder.iterdir()) == ["half.txt", "made.json", "step.json", "whole.txt"]


def test_what_a_kill_left_beside_the_steps_is_swept(tmp_path: Path) -> None:
    """The report's own files are written after the last step; so is what a kill leaves of them."""
    (tmp_path / "r" / "figures").mkdir(parents=True)
    gone = f"{io.host_id()}-4194305"  # a number that no process has
    left = [tmp_path / "r" / f".results.json.{gone}.tmp", tmp_path / "r" / "figures" / f".states.png.{gone}.tmp"]
    others = [
        tmp_path / "r" / f".results.json.{name}.tmp" for name in ("00000000-12", f"{io.host_id()}-{os.getppid()}")
    ]
    for path in (*left, *others, tmp_path / "r" / "figures" / "states.png"):
        path.write_text("x")
    with open_run(tmp_path / "r"):
        assert not [path for path in left if path.exists()]
        assert all(path.exists() for path in others), "they are written now, here or on another machine"
        assert (tmp_path / "r" / "figures" / "states.png").exists()


def test_checkpoints_go_when_the_step_is_whole(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        for place in ("checkpoints", "adapter/checkpoints"):
            io.write_text(folder / place / "optimizer.pt", "pickle")
        io.write_text(folder / "adapter" / "weights", "w")

    with open_run(tmp_path / "r") as run:
        step = run.do("train", work)
    assert sorted(p.relative_to(step.folder).as_posix() for p in step.folder.rglob("*") if p.is_file()) == [
        "adapter/weights",
        "made.json",
        "step.json",
    ]
    assert io.read_json(step / "step.json")["files"] == {"adapter/weights": hashlib.sha256(b"w").hexdigest()}


def test_step_json_says_what_made_the_step_and_no_time(tmp_path: Path) -> None:
    with open_run(tmp_path / "r") as run:
        data = run.do("data", writes("x"))
        step = run.do("train", writes("y"), settings=Config(), seed=13, reads=[data], identity={"base": "abc"})
    facts = io.read_json(step / "step.json")
    assert facts["reads"] == {data.folder.name: io.sha256_file(data / "step.json")}
    assert (facts["name"], facts["seed"], facts["key"]) == ("train", 13, step.key)
    assert facts["identity"] == {"base": "abc"}
    assert facts["settings"]["size"] == 3
    assert __name__ in facts["code"]["modules"]
    assert facts["versions"]["python"] == sys.version.split()[0]
    assert not {"seconds", "time"} & set(facts)


@pytest.mark.parametrize("damage", ["cut", "same length", "gone", "no step.json", "step.json"])
def test_a_step_changed_afterwards_is_set_aside_and_made_again(tmp_path: Path, damage: str) -> None:
    with open_run(tmp_path / "r") as run:
        step = run.do("data", writes("text"))
    before = (step / "step.json").read_bytes()
    if damage in ("cut", "same length"):
        (step / "out.txt").write_text("te" if damage == "cut" else "tezt")
    elif damage == "step.json":
        (step / "step.json").write_bytes(before.replace(b'"seed": null', b'"seed":  null'))
    else:
        (step / ("out.txt" if damage == "gone" else "step.json")).unlink()
    with open_run(tmp_path / "r") as run:
        again = run.do("data", writes("text"))
    assert again == step
    assert (step / "out.txt").read_text() == "text"
    assert (step / "step.json").read_bytes() == before
    assert len(list(step.folder.parent.glob(".data-*.set-aside"))) == 1


def test_what_lies_on_a_step_with_other_content_is_made_again(tmp_path: Path) -> None:
    """The same step, made again with other bytes: what read it is made again; with the same bytes it is kept."""

    def study(text: str) -> list[str]:
        made: list[str] = []

        def noting(name: str, text: str) -> Callable[[Path], None]:
            return lambda folder: (made.append(name), writes(text)(folder))[1]

        with open_run(tmp_path / "r") as run:
            data = run.do("data", noting("data", text))
            train = run.do("train", noting("train", f"on {text}"), reads=[data])
            run.do("answer", noting("answer", f"of {text}"), reads=[train])
        return made

    def damaged() -> None:
        (file,) = tmp_path.glob("steps/data-*/out.txt")
        file.write_text("damaged")

    assert study("one") == ["data", "train", "answer"]
    damaged()
    assert study("one") == ["data"]
    damaged()
    assert study("two") == ["data", "train", "answer"]
    assert (next(tmp_path.glob("steps/answer-*")) / "out.txt").read_text() == "of two"


def test_timings_accumulate_over_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 100.0, 105.0])
    monkeypatch.setattr(runs.time, "monotonic", lambda: next(clock))

    def fails(folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "r") as run:
        run.do("train", fails, seed=13)
    with open_run(tmp_path / "r") as run:
        step = run.do("train", writes("x"), seed=13)
        row = run.timings()["steps"][step.folder.name]
    assert row["seconds"] == 15.0  # 10 s interrupted, then 5 s
    assert row["attempts"] == 2
    assert row["peak_rss_bytes"] > 10_000_000  # a Python process is not smaller
    assert (row["name"], row["seed"]) == ("train", 13)


TOY = """
import time
from pathlib import Path
from alignment_core.config import Settings
from alignment_core.pipeline.run import Run

def slow(folder, go):
    (folder / "half.txt").write_text("half")
    print("begun", flush=True)
    while not go.exists():
        time.sleep(0.02)
    (folder / "out.txt").write_text("made")

def study(where, seeds=(13,), waits=True):
    with Run.open(where / "r", "toy", "tiny", Settings(), seeds) as run:
        run.waits = waits
        return run.do("data", lambda folder: slow(folder, where / "go"))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A study of one step that is made once the file `go` is there, as a module that other processes can import."""
    name = f"toy_{tmp_path.parent.name}_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module(name)


@pytest.fixture
def maker(toy: Any, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that makes the step."""
    code = f"import sys; from pathlib import Path; import {toy.__name__} as toy; toy.study(Path(sys.argv[1]))"
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_step_that_another_process_makes_is_waited_for(
    toy: Any, maker: subprocess.Popen[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(runs.Busy, match=f"is being made by process {maker.pid} on "):
        toy.study(tmp_path, waits=False)
    threading.Timer(0.5, (tmp_path / "go").touch).start()
    step = toy.study(tmp_path)
    assert maker.wait() == 0
    assert (step / "out.txt").read_text() == "made"
    assert f"waits for process {maker.pid}" in caplog.text
    assert "data: starts" not in caplog.text
    assert [p.name for p in (tmp_path / "steps").glob("[!.]*")] == [step.folder.name]


def test_what_a_killed_process_left_is_taken_over(
    toy: Any, maker: subprocess.Popen[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker.kill()
    maker.wait()
    (tmp_path / "go").touch()
    step = toy.study(tmp_path)
    assert "data: continues" in caplog.text
    assert (step / "half.txt").exists()
    assert [p.name for p in (tmp_path / "steps").glob("[!.]*")] == [step.folder.name]


@pytest.mark.parametrize("who", ["another process", "its maker"])
def test_what_is_moved_while_it_is_taken_over_is_looked_for_again(
    who: str, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where locks do not hold, another process takes over first, or the maker puts the step in its place."""
    (tmp_path / "go").touch()
    whole = toy.study(tmp_path).folder
    parent = os.getppid()
    living = Owner("host", io.host_id(), parent, io.process_started(parent) or "", "abcd")
    gone = tmp_path / "steps" / f".{whole.name}.{Owner('host', io.host_id(), 2**22, '1', 'abcd')}.partial"
    theirs = gone.with_name(f".{whole.name}.{living}.partial")
    whole.rename(gone)
    rename = os.rename

    def faster(source: Path, target: Path) -> None:
        if source == gone and gone.exists():
            rename(gone, theirs if who == "another process" else whole)
        rename(source, target)

    monkeypatch.setattr(os, "rename", faster)
    caplog.clear()
    if who == "another process":
        with pytest.raises(runs.Busy, match=f"is being made by process {parent} on "):
            toy.study(tmp_path, waits=False)
    else:
        assert toy.study(tmp_path).folder == whole
    assert "data: starts" not in caplog.text
    assert len([p for p in (tmp_path / "steps").iterdir() if p.is_dir()]) == 1


def test_a_silent_process_of_another_machine_is_copied_and_may_come_back(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a heartbeat for three minutes its work is continued from a copy; of two who make one step one is kept."""
    (tmp_path / "go").touch()
    with open_run(tmp_path / "r"):
        pass
    label = toy.study(tmp_path).folder.name
    elsewhere = Owner("other-host", "boot-1", 77, "123", "abcd")
    theirs = tmp_path / "steps" / f".{label}.{elsewhere}.partial"
    (tmp_path / "steps" / label).rename(theirs)
    (theirs / "step.json").unlink()
    with open_run(tmp_path / "r") as run:
        run.waits = False
        with pytest.raises(runs.Busy, match="process 77 on other-host"):
            toy.study(tmp_path, waits=False)
    long_ago = time.time() - 181
    os.utime(theirs, (long_ago, long_ago))
    step = toy.study(tmp_path)
    assert theirs.is_dir()
    assert (step / "out.txt").read_text() == "made"
    theirs_store = Store(tmp_path, elsewhere)
    facts = io.read_json(step / "step.json")
    assert not theirs_store.publish(label, facts), "what is there is never replaced"
    assert not theirs.exists()
    assert io.read_json(step / "step.json") == facts


def test_config_env_and_log_are_written_and_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "hf_topsecret")
    with open_run(tmp_path / "r") as run:
        run.do("data", writes("x"))
        logging.getLogger("toy.study").info("a line of the study")
        logging.getLogger("elsewhere").info("chatter")
        logging.getLogger("elsewhere").warning("a library's warning")
    config = io.read_json(tmp_path / "r" / "config.json")
    assert (config["study"], config["preset"], config["seeds"]) == ("toy", "tiny", [13])
    assert config["config"] == plain(Config())
    env = io.read_json(tmp_path / "r" / "env.json")
    assert env["versions"]["python"].startswith("3.")
    assert {"torch", "transformers", "trl", "alignment-core"} <= set(env["versions"])
    everything = "".join(p.read_text() for p in (tmp_path / "r").rglob("*") if p.is_file())
    assert "topsecret" not in everything
    log = (tmp_path / "r" / "log.txt").read_text()
    assert "a line of the study" in log
    assert "a library's warning" in log
    assert "chatter" not in log
    assert "starts" in log


def test_a_fault_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError) as caught, open_run(tmp_path / "r") as run:
        run.do("data", broken)
    log = (tmp_path / "r" / "log.txt").read_text()
    assert "Traceback" in log
    assert "RuntimeError: boom" in log
    assert caught.value.__notes__ == [f"the traceback is in {tmp_path / 'r' / 'log.txt'}"]


def test_log_handlers_do_not_pile_up(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    for _ in range(3):
        with open_run(tmp_path / "r"):
            pass
    assert logging.getLogger().handlers == before


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "No space left on device; free space or choose another folder with --runs"),
        (errno.EROFS, "Read-only file system; make it writable or choose another folder with --runs"),
    ],
)
def test_a_full_or_read_only_disk_is_told_in_one_line(tmp_path: Path, code: int, words: str) -> None:
    def work(folder: Path) -> None:
        raise OSError(code, os.strerror(code), str(folder / "weights"))

    with open_run(tmp_path / "r") as run, pytest.raises(UserError, match=words) as caught:
        run.do("train", work)
    assert "\n" not in str(caught.value)


def test_a_full_disk_told_by_another_library_is_understood(tmp_path: Path) -> None:
    class SafetensorError(Exception):
        pass

    def work(folder: Path) -> None:
        raise SafetensorError(
            'Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "No sp" }'
        )

    with open_run(tmp_path / "r") as run, pytest.raises(UserError, match="No space left on device"):
        run.do("train", work)


def test_a_file_that_cannot_be_read_elsewhere_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/model.safetensors")

    with open_run(tmp_path / "r") as run, pytest.raises(PermissionError, match="elsewhere"):
        run.do("train", work)


def test_a_real_full_disk(tmp_path: Path) -> None:
    """`/dev/full` fails every write with ENOSPC."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")

    def work(folder: Path) -> None:
        with open("/dev/full", "w") as stream:
            stream.write("x")

    with open_run(tmp_path / "r") as run, pytest.raises(UserError, match="No space left on device"):
        run.do("train", work)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot write in .*Not a directory.*choose another folder with --runs"):
        open_run(tmp_path / "runs" / "toy").__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(UserError, match=r"Permission denied; make it writable or choose another folder"):
        open_run(tmp_path / "locked" / "r").__enter__()


def test_names_of_steps_are_checked(tmp_path: Path) -> None:
    with open_run(tmp_path / "r") as run, pytest.raises(ValueError, match="lower case"):
        run.do("../x", writes("x"))


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks as two threads with one barrier; the work of both is seen, the files are the first one's."""
    members = thread_group(2)
    worked: list[tuple[int, str]] = []
    ranks = threading.local()
    monkeypatch.setattr(runs, "is_main_process", lambda: ranks.rank == 0)
    monkeypatch.setattr(runs, "world_size", lambda: 2)
    steps: dict[int, list[Step]] = {}

    def rank(number: int) -> None:
        ranks.rank = number
        with Run.open(tmp_path / "r", "toy", "tiny", Config(), (13,), group=members[number]) as run:

            def data(folder: Path) -> None:
                worked.append((number, "data"))
                assert process_group().size == 1  # nothing in here may wait for the other
                writes("x")(folder)

            alone = run.do("data", data)

            def train(folder: Path) -> None:
                worked.append((number, "train"))
                assert (process_group().rank, process_group().size) == (number, 2)
                if number == 0:
                    writes("y")(folder)

            both = run.do("train", train, reads=[alone], together=True)
            steps[number] = [alone, both]

    threads = [threading.Thread(target=rank, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(worked) == [(0, "data"), (0, "train"), (1, "train")]
    assert steps[0] == steps[1]
    assert (steps[1][1] / "out.txt").read_text() == "y"


def test_several_processes_without_a_process_group_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="no process group"):
        open_run(tmp_path / "r").__enter__()


def test_versions_are_read_without_importing(tmp_path: Path) -> None:
    code = "import sys, alignment_core.pipeline.environment as e; e.environment(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_commit_is_this_checkout_or_nothing() -> None:
    found = environment.commit()
    assert found is None or (len(found["commit"]) == 40 and isinstance(found["changed"], bool))


def test_prepare_process_keeps_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(environment.os, "environ", dict(os.environ))
    environment.prepare_process()
    assert environment.os.environ["OMP_NUM_THREADS"] == "7"
    assert environment.os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_memory_peak_sees_a_large_allocation() -> None:
    environment.reset_memory_peak()
    before = environment.memory_peak()
    block = bytearray(200_000_000)
    after = environment.memory_peak()
    del block
    assert after - before > 100_000_000 or after > 300_000_000


def test_run_json_files_are_json(tmp_path: Path) -> None:
    with open_run(tmp_path / "r") as run:
        run.do("data", writes("x"))
    for path in (tmp_path / "r").rglob("*.json"):
        json.loads(path.read_text())
