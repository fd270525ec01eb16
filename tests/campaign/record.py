"""What every part of the campaign writes: a journal that a kill does not lose, and at its end one JSON file.

A part's journal stands in `build/guarantees/<part>.jsonl`; the same command continues it, and another seed or size
starts a new one. `finish` writes `<part>.json`, from which the page is made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from alignment_core import io

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "guarantees"


class Part:
    """One part of the campaign, and the rows that it has so far."""

    def __init__(self, name: str, folder: Path, **settings: Any) -> None:
        self.name, self.folder, self.settings = name, folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name}.jsonl"
        header = {"part": name, **settings}
        self.rows: list[dict[str, Any]] = io.recover_jsonl(self._path)
        if self.rows and {k: self.rows[0].get(k) for k in header} != header:
            self._path.unlink()
            self.rows = []
        if not self.rows:
            self.add({**header, **_about()})
        self.begun = self.rows.pop(0)

    def add(self, row: dict[str, Any]) -> None:
        """Keep one row; it is on the disk when this returns."""
        io.append_jsonl(self._path, [row])
        self.rows.append(row)

    def finish(self, **found: Any) -> dict[str, Any]:
        """Write the part's record and return it."""
        seconds = round(time.time() - float(self.begun["began"]))
        about = {k: v for k, v in self.begun.items() if k not in ("part", "began")}
        if (now := commit()) != about["commit"]:
            about["commit"] = f"{about['commit']} to {now}"
        record = {"part": self.name, **about, "seconds": seconds, **found}
        io.write_json(self.folder / f"{self.name}.json", record)
        return record


def _about() -> dict[str, Any]:
    """When, on which commit and machine, in words that name no place."""
    return {"began": time.time(), "date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit(),
            "machine": machine()}  # fmt: skip


def commit() -> str:
    """The checkout's commit, `and changes` where files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "HEAD")
    if not head:
        return "no checkout"
    return head[:12] + (" and changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def machine() -> str:
    """The machine in plain words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} on {platform.machine()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {system}, Python {platform.python_version()}"


def options(text: str, **numbers: int) -> argparse.Namespace:
    """`--seed` and `--out`, and a whole number for each of `numbers`."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=FOLDER)
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return parser.parse_args()


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def shown(value: Any) -> str:
    """JSON on one line, for a finding."""
    return json.dumps(value, ensure_ascii=True)
