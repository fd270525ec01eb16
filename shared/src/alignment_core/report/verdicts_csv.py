"""verdicts.csv: the verdicts of all states in long form, one row a judge and reply, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from alignment_core import io
from alignment_core.evaluation.state import StateFiles
from alignment_core.records import Completion, Verdict
from alignment_core.report.replies import of_state
from alignment_core.text import for_csv

COLUMNS = (
    *("subject", "seed", "at", "prompt_id", "candidate", "kind", "category", "source", "cluster"),
    *("judge", "label", "rule", "score", "evidence", "prompt", "text"),
)


def write(path: Path, states: Iterable[StateFiles]) -> int:
    """Replace `path` by the verdicts of every judge on every state; returns the number of rows.

    A missing verdict has the label `missing`; `at` is the state's place on a trajectory, such as `step=40`. `evidence`
    is `start:end` in code points of the reply as it stands in the completions file. A cell that a spreadsheet would
    take for a formula begins with an apostrophe, and control characters are written as escapes: to compute with the
    texts read the JSONL files.
    """
    count = 0
    with io.atomic(path) as stream:
        sheet = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
        sheet.writerow(COLUMNS)
        for files in states:
            completions, verdicts = of_state(files)
            replies = {(c.prompt_id, c.candidate): c for c in completions}
            place = ", ".join(f"{axis}={value}" for axis, value in files.at.items())
            for v in verdicts:
                sheet.writerow(_row(v, place, replies.get((v.prompt_id, v.candidate))))
                count += 1
    return count


def _row(v: Verdict, place: str, c: Completion | None) -> list[str | int | float]:
    return [
        for_csv(v.subject),
        "" if v.seed is None else v.seed,
        for_csv(place),
        for_csv(v.prompt_id),
        v.candidate,
        v.kind,
        for_csv(v.category),
        for_csv(v.source),
        for_csv(v.cluster),
        for_csv(v.judge),
        v.label or "missing",
        for_csv(v.rule),
        "" if v.score is None else v.score,
        "" if v.evidence is None else f"{v.evidence[0]}:{v.evidence[1]}",
        "" if c is None else for_csv(c.prompt),
        "" if c is None else for_csv(c.text),
    ]
