"""verdicts.csv: every verdict in long form, one row a judge and reply, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from alignment_core import io
from alignment_core.records import Completion, Verdict
from alignment_core.text import for_csv

COLUMNS = (
    "subject",
    "seed",
    "prompt_id",
    "candidate",
    "kind",
    "category",
    "source",
    "cluster",
    "judge",
    "label",
    "rule",
    "score",
    "evidence",
    "prompt",
    "text",
)


def write(path: Path, verdicts: Iterable[Verdict], completions: Iterable[Completion] = ()) -> int:
    """Replace `path`; returns the number of rows. A missing verdict has the label `missing`.

    `evidence` is `start:end` in code points of the reply as it stands in the completions file. Prompt and reply are
    there where their completion is given. A cell that a spreadsheet would take for a formula begins with an
    apostrophe, and control characters are written as escapes: to compute with the texts read the JSONL files.
    """
    replies = {(c.subject, c.seed, c.prompt_id, c.candidate): c for c in completions}
    count = 0
    with io.atomic(path) as stream:
        sheet = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
        sheet.writerow(COLUMNS)
        for v in verdicts:
            sheet.writerow(_row(v, replies.get((v.subject, v.seed, v.prompt_id, v.candidate))))
            count += 1
    return count


def _row(v: Verdict, c: Completion | None) -> list[str | int | float]:
    return [
        for_csv(v.subject),
        "" if v.seed is None else v.seed,
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
