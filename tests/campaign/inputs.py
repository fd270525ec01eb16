"""Fuzz every reader: valid small files are damaged, read, and the outcome is held against what is promised.

Promised: rows in = kept + rejected; what cannot be used is a `UserError` of one line; no other exception; no hang; no
half-written file; and on a command line one `error:` line, no traceback, and never "internal error".
"""

from __future__ import annotations

import logging
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mutate import mutated
from readers import READERS, Reader, Wrong
from record import Part, options, say

from alignment_core.errors import NothingToReport, UserError

LIMIT = 20
"""Seconds that one case may take."""


class Hang(BaseException):
    """A case took longer than `LIMIT`."""


@contextmanager
def limited(seconds: int = LIMIT) -> Iterator[None]:
    def rang(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, rang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def escaped(error: BaseException) -> str:
    """An exception that should have become an error of one line, and where in our code it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    at = [f for f in frames if "/src/" in f.filename or f is frames[-1]][-1]
    return f"{type(error).__name__} in {Path(at.filename).name}:{at.lineno}: {str(error)[:160]}"


def case(reader: Reader, seed: str, place: Path) -> tuple[str, str]:
    """One damaged input: `(outcome, finding)`; the finding is empty where the promise held."""
    rng = random.Random(seed)
    folder = place / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reader.write(folder)
    target = rng.choice(reader.targets)
    path = folder / target
    path.write_bytes(mutated(path.read_bytes(), rng))
    before = {p for p in folder.rglob("*") if p.is_file()}
    try:
        with limited():
            outcome = reader.read(folder)
    except Hang:
        return "finding", f"{target}: no end after {LIMIT} s"
    except (UserError, NothingToReport) as error:
        text = str(error)
        outcome, wrong = "refused", "" if text.strip() and "\n" not in text.strip() else f"not one line: {text!r:.200}"
        if wrong:
            return "finding", f"{target}: {wrong}"
    except Wrong as error:
        return "finding", f"{target}: {error}"
    except Exception as error:  # noqa: BLE001 - whatever escapes is the finding
        return "finding", f"{target}: {escaped(error)}"
    stray = [p.name for p in folder.rglob("*") if p.is_file() and p not in before and p.name.endswith(".tmp")]
    return ("finding", f"left {stray[0]}") if stray else (outcome, "")


def main() -> int:
    given = options(__doc__ or "", cases=10_000, heavy=1)
    logging.getLogger("alignment_core").setLevel(logging.CRITICAL)
    readers = [r for r in READERS if given.heavy or not r.heavy]
    part = Part("inputs", given.out, seed=given.seed, cases=given.cases, readers=[r.name for r in readers])
    shares = [r.share for r in readers]
    plan = random.Random(given.seed).choices(range(len(readers)), shares, k=given.cases)
    done = sum(r["cases"] for r in part.rows)
    with tempfile.TemporaryDirectory() as place:
        counted: Counter[str] = Counter()
        findings: list[str] = []
        for number in range(done, given.cases):
            reader = readers[plan[number]]
            outcome, finding = case(reader, f"{given.seed} {number}", Path(place))
            counted[f"{reader.name}|{outcome}"] += 1
            if finding:
                findings.append(f"{reader.name}, case {number}: {finding}")
                say(findings[-1])
            if (number + 1) % 250 == 0 or number + 1 == given.cases:
                part.add({"cases": number + 1 - done, "outcomes": dict(counted), "findings": findings})
                say(f"inputs: {number + 1} of {given.cases}")
                done, counted, findings = number + 1, Counter(), []
    total: Counter[str] = Counter()
    for row in part.rows:
        total.update(row["outcomes"])
    found = [f for row in part.rows for f in row["findings"]]
    by_reader = {r.name: {o: total[f"{r.name}|{o}"] for o in ("read", "refused", "finding")} for r in readers}
    part.finish(ran=sum(total.values()), by_reader=by_reader, findings=found)
    say(f"inputs: {sum(total.values())} cases, {len(found)} findings")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
