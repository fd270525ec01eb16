"""A study of synthetic steps, crashed at every write, rename, fsync, mkdir and unlink, and again while it recovers.

`Disk` stands between Python and the system. At operation number k it "kills" the process: it raises `Killed`, and from
then on nothing this process does reaches the disk (so that `finally` blocks and destructors cannot tidy up, as they
could not after SIGKILL). A write may be cut halfway, and in a power cut every file that was not synced loses its end.
After each crash the same command is run again; results.json must equal the one of a run that was never killed.
"""

from __future__ import annotations

import builtins
import io as stdlib_io
import itertools
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alignment_core import io
from alignment_core.config import Settings
from alignment_core.pipeline import runlist
from alignment_core.pipeline.run import Run

PROCESS_IDS = itertools.count(2**23)  # numbers that no process has
CALLS = ("mkdir", "replace", "rename", "fsync", "unlink", "rmdir", "remove", "truncate")


class Killed(BaseException):
    """The process is gone."""


class Disk:
    """Counts the operations under `root` and kills the process at number `at` (1 is the first)."""

    def __init__(self, root: Path, at: int | None, how: str = "before") -> None:
        self.root, self.at, self.how = root, at, how
        self.count = 0
        self.dead = False
        self.unsynced: set[int] = set()
        self.kinds: list[str] = []

    def step(self, kind: str) -> bool:
        """Count one operation; True when the process dies in it."""
        self.count += 1
        self.kinds.append(kind)
        return self.count == self.at

    def die(self) -> None:
        self.dead = True
        if self.how == "power":
            for path in [p for p in self.root.rglob("*") if p.is_file()]:
                if path.stat().st_ino in self.unsynced:
                    self.real_truncate(path, path.stat().st_size // 2)
        raise Killed

    real_truncate = staticmethod(os.truncate)

    def raw_write(self, stream: stdlib_io.FileIO, data: Any, write: Callable[[Any], int]) -> int:
        if self.dead:
            return len(data)
        if self.step("write"):
            if self.how == "half":
                write(bytes(data)[: len(data) // 2])
            self.die()
        self.unsynced.add(os.fstat(stream.fileno()).st_ino)
        return write(data)

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead or self.step(name):
                self.die()
            if name == "fsync":
                self.unsynced.discard(os.fstat(args[0]).st_ino)
                return None  # the model of the disk is here; waiting for the real one would take minutes
            return real(*args, **kwargs)

        return call

    def open(self, file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, *rest: Any, **kw: Any) -> Any:
        if not any(c in mode for c in "wax+") or self.root not in Path(os.fspath(file)).parents:
            return self.real_open(file, mode, buffering, encoding, *rest, **kw)
        if self.dead or self.step("open"):
            self.die()
        disk = self

        class Raw(stdlib_io.FileIO):
            def write(self, data: Any) -> int:
                return disk.raw_write(self, data, super().write)

        # Small buffers, so that one file takes several writes.
        stream: Any = stdlib_io.BufferedWriter(Raw(file, mode.replace("b", "").replace("t", "")), 1024)
        return stream if "b" in mode else stdlib_io.TextIOWrapper(stream, encoding=encoding, newline="\n")

    real_open = staticmethod(stdlib_io.open)


@contextmanager
def installed(disk: Disk) -> Iterator[Disk]:
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, disk.wrap(name, getattr(os, name)))
        patch.setattr(stdlib_io, "open", disk.open)
        patch.setattr(builtins, "open", disk.open)
        # rmtree by file descriptor names no paths; the plain one calls the same unlink and rmdir.
        patch.setattr("shutil._use_fd_functions", False)
        # Reading versions and asking git writes nothing and takes long.
        for name in ("environment", "versions", "commit"):
            patch.setattr(f"alignment_core.pipeline.run.{name}", dict)
        patch.setattr("alignment_core.pipeline.run.reset_memory_peak", lambda: None)
        # Every attempt is another process, and its temporary files have other names.
        number = next(PROCESS_IDS)
        patch.setattr(os, "getpid", lambda: number)
        yield disk


class Synthetic(Settings):
    rows: int = 6
    scale: int = 3


def _draw(folder: Path) -> None:
    io.write_jsonl(folder / "rows.jsonl", ({"n": i, "x": random.Random(i).random()} for i in range(Synthetic().rows)))


def _train(rows: Path, seed: int) -> Callable[[Path], None]:
    """Continues inside its partial folder from the newest sealed checkpoint; a checkpoint is sealed by a rename."""

    def work(folder: Path) -> None:
        checkpoints = folder / "checkpoints"
        checkpoints.mkdir(exist_ok=True)
        total, done = 0.0, 0
        for path in sorted(checkpoints.glob("at-*.json")):
            total, done = io.read_json(path)
        for row in itertools.islice(io.read_jsonl(rows, dict), done, None):
            total, done = total * 0.5 + row["x"] * seed, done + 1
            if done % 2 == 0:
                io.write_json(checkpoints / f"at-{done}.json", [total, done])
        (folder / "adapter").mkdir(exist_ok=True)
        with (folder / "adapter" / "weights.bin").open("wb") as stream:  # as a library would: in place, no fsync
            stream.write(repr(total).encode() * 9)

    return work


def _reply(weights: Path) -> Callable[[Path], None]:
    """Appends batches and continues at a batch's edge."""

    def work(folder: Path) -> None:
        path = folder / "replies.jsonl"
        done = len(io.recover_jsonl(path)) // 2
        for batch in range(done, 3):
            text = weights.read_bytes()[batch : batch + 4].decode()
            io.append_jsonl(path, [{"batch": batch, "row": row, "text": text} for row in (0, 1)], keep=batch * 2)

    return work


def study(folder: Path) -> bytes:
    """Data, two seeds of training and replies, results.json."""
    with Run.open(folder, "synthetic", "tiny", Synthetic(), (1, 2)) as run:
        data = run.do("data", _draw, settings=Synthetic())
        results: dict[str, Any] = {}
        for seed in (1, 2):
            trained = run.do("train", _train(data / "rows.jsonl", seed), seed=seed, reads=[data])
            replied = run.do("reply", _reply(trained / "adapter" / "weights.bin"), seed=seed, reads=[trained])
            results[str(seed)] = list(io.read_jsonl(replied / "replies.jsonl", dict))
        io.write_json(folder / "results.json", results)
    return (folder / "results.json").read_bytes()


def attempt(folder: Path, at: int | None, how: str = "before") -> tuple[bytes | None, Disk]:
    """One run of the command; None when it was killed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with installed(Disk(folder.parent, at, how)) as disk:
        try:
            return study(folder), disk
        except Killed:
            return None, disk


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Disk]:
    result, disk = attempt(tmp_path_factory.mktemp("whole") / "run", None)
    assert result is not None
    return result, disk


def check_clean(folder: Path) -> None:
    """After recovery no partial step, temporary file or checkpoint is left, and every step is whole."""
    steps = folder.parent / "steps"
    assert sorted(p.name.rsplit("-", 1)[0] for p in steps.glob("[!.]*")) == [
        "data",
        "reply-s1",
        "reply-s2",
        "train-s1",
        "train-s2",
    ]
    assert not [p for p in folder.parent.rglob("*") if p.name.endswith(".tmp") or p.name == "checkpoints"]
    assert list(runlist.problems(folder)) == []
    for step in steps.glob("[!.]*"):
        assert set(json.loads((step / "step.json").read_text())) == {
            "name", "key", "question", "code", "seed", "settings", "reads", "identity", "files", "versions", "git",
            "sha256",
        }  # fmt: skip


def test_the_campaign_meets_every_kind_of_operation(unbroken: tuple[bytes, Disk]) -> None:
    _, disk = unbroken
    assert {"open", "write", "mkdir", "replace", "fsync", "unlink", "rmdir"} <= set(disk.kinds)
    assert disk.count > 150


def crash_at(tmp_path: Path, unbroken: tuple[bytes, Disk], how: str, operations: Iterable[int]) -> None:
    """Crash in each of the operations, run again, and look for what should not be there."""
    expected, whole = unbroken
    for at in operations:
        if how == "half" and whole.kinds[at - 1] != "write":
            continue
        folder = tmp_path / str(at) / "run"
        killed, disk = attempt(folder, at, how)
        assert killed is None, at
        assert disk.kinds == whole.kinds[:at]
        result, _ = attempt(folder, None)
        assert result == expected, f"crash at operation {at} ({whole.kinds[at - 1]}, {how})"
        check_clean(folder)


@pytest.mark.parametrize("how", ["before", "half", "power"])
def test_crash_at_some_operations(tmp_path: Path, unbroken: tuple[bytes, Disk], how: str) -> None:
    """Every seventh operation, and every second for a write cut in half; all of them are in the slow tests."""
    crash_at(tmp_path, unbroken, how, range(1, unbroken[1].count + 1, 2 if how == "half" else 7))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["before", "half", "power"])
def test_crash_at_every_operation(tmp_path: Path, unbroken: tuple[bytes, Disk], how: str) -> None:
    crash_at(tmp_path, unbroken, how, range(1, unbroken[1].count + 1))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["before", "half", "power"])
def test_crash_again_during_recovery(tmp_path: Path, unbroken: tuple[bytes, Disk], how: str) -> None:
    """Two crashes: the first at every 13th operation, the second at every 9th of what the recovery does."""
    expected, whole = unbroken
    for at in range(1, whole.count + 1, 13):
        for second in itertools.count(1 + at % 9, 9):
            folder = tmp_path / f"{at}-{second}" / "run"
            assert attempt(folder, at, how)[0] is None
            again, _ = attempt(folder, second, how)
            result, _ = attempt(folder, None)
            assert result == expected, f"crashes at {at} and then {second} ({how})"
            if again is not None:
                break
