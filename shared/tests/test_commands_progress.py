"""What a run shows: the live picture in a pseudo-terminal, lines in a pipe, little with --quiet."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from alignment_core.cli import live as progress
from alignment_core.errors import UserError

CHILD = """
import logging, signal, sys, time, warnings
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and its children do
from alignment_core import progress
from alignment_core.cli.live import Plan, terminal_log

level, pause = sys.argv[1], float(sys.argv[2])
plan = Plan("toy", ["data", "train", "evaluate"], (13, 14))
try:
    with terminal_log(("alignment_core", "toy"), level, plan) as log:
        for seed in (13, 14):
            plan.starts(seed)
            progress.kept("data", None, "data-0123456789ab")
            plan.completes("data")
            with progress.step("stage_a", seed, "stage_a-s13-0123456789ab", again=False):
                print("library chatter on stdout")
                print("Failed to load a kernel", file=sys.stderr)
                warnings.warn("old argument")
                logging.getLogger("foreign").warning("of a library")
                log.warning("3 rows \\x1b[2J left out")
                for _ in progress.each(range(40), "training \\x1b]0;title\\x07", "steps"):
                    time.sleep(pause)
            plan.completes("train")
        plan.finishes()
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
print("the table")
"""

FRAME_END = re.compile(r"\x1b\[1A|\x1b\[2K|\r")
ALLOWED = re.compile(r"\x1b\[(?:[0-9;]*m|2K|1A)")


def in_terminal(columns, level="info", pause=0.02, kill_at=None, **more):
    """What the child writes to a terminal of that width, its stdout, and its exit code."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    before = termios.tcgetattr(side)
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    env |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **more}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, level, str(pause)], stdin=side, stdout=subprocess.PIPE, stderr=side, env=env
    )
    parts = []

    def read():
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:
                return
            parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    if kill_at is not None:
        end = time.monotonic() + 30
        while kill_at not in b"".join(parts) and time.monotonic() < end:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
    out = child.communicate(timeout=60)[0].decode()
    assert termios.tcgetattr(side) == before
    os.close(side)
    reader.join(10)
    os.close(main)
    return b"".join(parts).decode().replace("\r\n", "\n"), out, child.returncode


def screen(text):
    """The lines that stay: the control sequences of the picture carried out."""
    rows, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", text):
        if token == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif token == "\r":
            continue
        elif token == "\x1b[1A":
            row -= 1
        elif token == "\x1b[2K":
            rows[row] = ""
        elif not token.startswith("\x1b"):
            rows[row] += token
    return [r for r in rows if r.strip()]


def test_a_terminal_shows_parts_bar_rate_and_time_left_and_keeps_only_lines():
    text, out, code = in_terminal(100)
    assert code == 0
    assert out == "the table\n"
    assert "toy  seed 13 (1 of 2)  ✓data ▸train evaluate" in text
    assert "toy  seed 14 (2 of 2)  ✓data ▸train evaluate" in text
    assert re.search(r"stage_a: training \\x1b]0;title\\x07  ━+─+  \d+/40 steps  [\d.]+/s  [\d.]+ s left", text)
    assert not ALLOWED.sub("", text).count("\x1b")  # the cursor stays, nothing is set
    kept = [line.split(" ", 1)[1] for line in screen(text)]
    one = ["data: kept", "warning: seed 1X: stage_a: 3 rows \\x1b[2J left out", "seed 1X: stage_a: done in"]
    assert [re.sub(r" in .*", " in", k.replace("seed 13", "seed 1X").replace("seed 14", "seed 1X")) for k in kept] == [
        *one,
        *one,
    ]


@pytest.mark.parametrize("columns", [20, 45, 72])
def test_a_narrow_terminal_is_never_wrapped(columns):
    text, _, code = in_terminal(columns, pause=0.01)
    assert code == 0
    frames = [re.sub(r"\x1b\[[0-9;]*m", "", f) for f in re.split(r"\x1b\[2K|[\r\n]+", text)]
    drawn = [f for f in frames if f.startswith(("toy", "  "))]
    assert drawn
    assert max(map(len, drawn)) < columns
    assert any("/40" in f for f in drawn)


def test_ctrl_c_leaves_the_terminal_as_it_was():
    text, out, code = in_terminal(80, pause=0.1, kill_at=b"/40 steps")
    assert (code, out) == (0, "the table\n")
    assert screen(text)[-1] == "interrupted"
    assert not ALLOWED.sub("", text).count("\x1b")
    assert "stage_a: stopped after" in screen(text)[-2]


@pytest.mark.parametrize(("level", "more"), [("warning", {}), ("info", {"TERM": "dumb"})])
def test_no_picture_where_none_is_wanted_or_can_be(level, more):
    text, _, code = in_terminal(80, level=level, pause=0, **more)
    assert code == 0
    assert "\x1b" not in text
    assert "▸" not in text
    assert text.count("stage_a: 3 rows") == 2


def in_pipe(level):
    done = subprocess.run([sys.executable, "-c", CHILD, level, "0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout == "the table\n"
    return done.stderr.splitlines()


def test_a_pipe_gets_a_line_for_each_step_and_part_and_no_noise():
    told = [re.sub(r" in [\d.]+ s", " in X", line[9:]) for line in in_pipe("info")]
    seed = [
        "data: kept",
        "seed 13: data complete",
        "seed 13: stage_a: starts",
        "warning: seed 13: stage_a: 3 rows \\x1b[2J left out",
        "seed 13: stage_a: done in X",
        "seed 13: train complete",
    ]
    assert told == [*seed, *[line.replace("13", "14") for line in seed], "writing results and report"]


def test_quiet_leaves_warnings_and_debug_shows_the_noise():
    assert [line[9:] for line in in_pipe("warning")] == [
        f"warning: seed {s}: stage_a: 3 rows \\x1b[2J left out" for s in (13, 14)
    ]
    assert in_pipe("error") == []
    text = "\n".join(in_pipe("debug"))
    for noise in ("library chatter on stdout", "Failed to load a kernel", "old argument", "of a library"):
        assert text.count(noise) == 2 or noise == "old argument", noise
    assert "in stage_a-s13-0123456789ab" in text


def test_the_stand_in_for_stderr_keeps_lines_together_and_never_recurses(monkeypatch):
    said = []
    noise = progress._Noise(sys.stderr)

    def debug(form, line):
        said.append(line)
        noise.write("--- Logging error ---\n")  # what logging does when a handler fails

    monkeypatch.setattr(progress.libraries, "debug", debug)
    noise.write("a")
    noise.write("b\n\n  \nc\rd\n")
    assert said == ["ab", "c", "d"]
    noise.write("x" * 5000)
    assert said[-1] == "x" * 5000


def test_an_unknown_level_is_told():
    with pytest.raises(UserError, match="no log level 'inf'"), progress.terminal_log(("alignment_core",), "inf"):
        pass


def test_who_says_what():
    options = type("O", (), {"quiet": False, "log_level": "debug"})
    assert progress.quiet_level(options, first=True) == "debug"
    assert progress.quiet_level(options, first=False) == "error"
    options.quiet = True
    assert progress.quiet_level(options, first=True) == "warning"
