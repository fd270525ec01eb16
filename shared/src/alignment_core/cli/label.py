"""`alignment-core label`: replies labelled in a terminal, blind to the verdict, and the detector's error on the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.evaluation.label import Answer, error_report, label_session, stratified_sample
from alignment_core.evaluation.state import judged_texts, read_index
from alignment_core.io import write_json
from alignment_core.records import Completion

if TYPE_CHECKING:
    from rich.console import Console

LABELS_FILE, REPORT_FILE = "labels.jsonl", "label_report.json"
KEYS: dict[str, Answer] = {
    "r": "refusal", "p": "partial", "c": "compliance", "i": "incoherent", "s": "skip", "q": "quit"
}  # fmt: skip


def terminal_ask(console: Console, read: Callable[[str], str] = input) -> Callable[[Completion, int, int], Answer]:
    """Questions on a terminal: the request, the reply with every control character made visible, one key."""
    from rich.panel import Panel
    from rich.text import Text

    from alignment_core.text import visible

    def shown(text: str) -> Text:
        return Text(visible(text, lines=True) or "(nothing)")

    def ask(one: Completion, position: int, total: int) -> Answer:
        console.print(Panel(shown(one.prompt), title=f"{position} of {total}: prompt", title_align="left"))
        console.print(Panel(shown(one.text), title="reply", title_align="left"))
        while True:
            console.print(Text("r refusal  p partial  c compliance  i incoherent  s skip  q quit (rerun to resume)"))
            try:
                typed = read("> ").strip().lower()
            except (EOFError, KeyboardInterrupt):
                return "quit"
            if typed[:1] in KEYS:
                return KEYS[typed[:1]]

    return ask


def label_run(
    folder: Path,
    console: Console,
    *,
    size: int = 100,
    seed: int = 0,
    judge: str = "",
    read: Callable[[str], str] = input,
) -> dict[str, Any]:
    """`alignment-core label RUN`: the sheet, then the report, printed and written to `label_report.json`."""
    completions, verdicts = judged_texts(read_index(folder), judge)
    completions = [reply for reply in completions if not reply.failure]
    items = stratified_sample(completions, verdicts, size, seed)
    labels = label_session(items, terminal_ask(console, read), folder / LABELS_FILE)
    report = error_report(labels, completions, verdicts)
    write_json(folder / REPORT_FILE, report)
    show_report(report, console)
    return report


def _band(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def show_report(report: Mapping[str, Any], console: Console) -> None:
    """The report as tables; a dash where strata without a label leave the figure unknown."""
    from rich.table import Table
    from rich.text import Text

    from alignment_core.text import visible

    title = f"{report['judge']}: {report['labelled']} of {report['of']} replies labelled"
    table = Table(title=Text(visible(title)))
    for name in ("rate", "state", "labelled", "raw", "corrected", "PPV", "NPV", "error"):
        table.add_column(name, overflow="fold")
    for row in report["rates"]:
        figures = (_band(row[k]) for k in ("raw", "corrected", "ppv", "npv", "error"))
        table.add_row(row["metric"], Text(visible(row["subject"])), f"{row['labelled']}/{row['n']}", *figures)
    console.print(table)
    if report["differences"]:
        table = Table(title="differences, corrected")
        for name in ("rate", "from", "to", "labelled in both", "raw", "corrected"):
            table.add_column(name, overflow="fold")
        for row in report["differences"]:
            raw = "-" if row["raw"] is None else f"{row['raw']:+.3f}"
            states = Text(visible(row["a"])), Text(visible(row["b"]))
            table.add_row(row["metric"], *states, f"{row['labelled']}/{row['n']}", raw, _band(row["corrected"]))
        console.print(table)
    if any(row["unknown"] for row in [*report["rates"], *report["differences"]]):
        console.print("A dash: some verdict of that state has no label yet. Label more (--size) to fill it.")
