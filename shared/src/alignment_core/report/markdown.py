"""report.md, the LaTeX tables and the methods paragraph, from the same spec and grids as the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.evaluation.results import Results
from alignment_core.report import figures as drawing
from alignment_core.report import tables
from alignment_core.report.spec import ReportSpec
from alignment_core.report.tables import Grid
from alignment_core.text import for_latex, for_markdown, visible


def markdown(
    results: Results, spec: ReportSpec, config: Mapping[str, Any] | None = None, figures: Path | None = None
) -> str:
    """report.md. Names and texts are escaped: the only pictures are our own, from the folder `figures` beside it."""
    md = for_markdown
    out = [f"# {md(spec.title)}", ""]
    out += [md(spec.question), ""] if spec.question else []
    out += [f"**{md(tables.headline(results, spec))}**", ""]
    out += [f"- {md(tables.verdict_line(h))}" for h in results.hypotheses]
    out += [f"- Warning: {md(w)}" for w in tables.warnings(results, spec)]
    out.append("")
    for figure in spec.figures:
        if figures is not None and (figures / f"{figure.name}.png").exists():
            title = md(figure.title).translate({ord("["): "&#91;", ord("]"): "&#93;"})
            out += [f"![{title}]({figures.name}/{figure.name}.png)", ""]
            out += [md(" ".join(t for t in (figure.caption, drawing.how_to_read(figure, results)) if t)), ""]
    for grid in tables.all_grids(results, spec, seeds=True):
        out += [f"## {md(grid.title)}", "", *_rows(grid), ""]
        out += [md(grid.note), ""] if grid.note else []
    out += list(_sections(results, spec, config))
    return "\n".join(out).rstrip() + "\n"


def _rows(grid: Grid) -> Iterator[str]:
    numeric = grid.numeric or tuple(False for _ in grid.columns)
    yield "| " + " | ".join(for_markdown(c) for c in grid.columns) + " |"
    yield "|" + "|".join("--:" if right else "---" for right in numeric) + "|"
    for row in grid.rows:
        yield "| " + " | ".join(for_markdown(c.line) for c in row) + " |"


def _sections(results: Results, spec: ReportSpec, config: Mapping[str, Any] | None) -> Iterator[str]:
    md = for_markdown
    for table in spec.originals:
        cells = tuple(tuple(tables.Cell(t) for t in row) for row in table.rows)
        yield from (f"## {md(table.title)}", "", *_rows(Grid(table.title, table.columns, cells)), "")
        if table.note:
            yield from (md(table.note), "")
    yield from ("## Method", "", md(methods(results, spec, config or {})), "")
    for title, lines in (("Limits", spec.limits), ("Never run", spec.never_run)):
        if lines:
            yield from (f"## {title}", "", *(f"- {md(line)}" for line in lines), "")
    if spec.command:
        yield from ("## Again", "", f"    {visible(spec.command)}", "")
    if results.hypotheses_sha256:
        yield f"Hypotheses written before the run, sha256 {md(results.hypotheses_sha256)}."


def latex(grid: Grid) -> str:
    """One grid as a LaTeX table (needs the package booktabs)."""
    numeric = grid.numeric or tuple(False for _ in grid.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        f"\\begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
        r"\toprule",
        " & ".join(
            for_latex(c.replace("↑", "(higher is better)").replace("↓", "(lower is better)")) for c in grid.columns
        )
        + r" \\",
        r"\midrule",
        *(" & ".join(for_latex(c.line.replace("−", "-")) for c in row) + r" \\" for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
        f"\\caption{{{for_latex(grid.title)}. {for_latex(grid.note)}}}".replace(". }", ".}"),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def methods(results: Results, spec: ReportSpec, config: Mapping[str, Any]) -> str:
    """A methods paragraph: the study's own words, then what the resolved config and the results say."""
    sentences = [spec.method.strip()] if spec.method.strip() else []
    sentences += [s for s in (_model(config), *_training(config), _generation(config), _judges(config)) if s]
    seeds = ", ".join(map(str, results.seeds))
    sentences.append(f"Training seed{'s' if len(results.seeds) > 1 else ''}: {seeds}.")
    methods_used = sorted({m.method for m in results.measurements if m.low is not None or m.high is not None})
    tests = sorted({f"{c.method} ({c.estimand})" for c in results.comparisons})
    if methods_used:
        sentences.append(f"Intervals are 95%: {', '.join(methods_used)}.")
    if tests:
        sentences.append(f"Differences are paired by prompt: {'; '.join(tests)}.")
    families = sorted({c.family for c in results.comparisons if c.family and c.p_adjusted is not None})
    if families:
        sentences.append(f"Primary tests are adjusted by Holm within the family {', '.join(families)}.")
    return " ".join(sentences)


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _model(config: Mapping[str, Any]) -> str:
    model = _section(config, "model")
    if "name" not in model:
        return ""
    revision = f" at revision {model['revision']}" if model.get("revision") else ""
    held = ", held in 4-bit NormalFloat" if model.get("quantize") == "nf4" else ""
    lora = _section(config, "lora")
    adapter = f"; LoRA of rank {lora['r']}, alpha {lora.get('alpha'):g}" if "r" in lora else ""
    name = "the embedded organism" if model["name"] == "organism" else model["name"]
    return f"The model is {name}{revision}{held}{adapter}."


def _training(config: Mapping[str, Any]) -> Iterator[str]:
    for name, stage in config.items():
        if isinstance(stage, Mapping) and "lr" in stage and "batch_size" in stage:
            steps, epochs = stage.get("max_steps"), stage.get("epochs")
            length = f"{steps} steps" if steps else f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
            batch = stage["batch_size"] * stage.get("accumulate", 1)
            beta = f", beta {stage['beta']:g}" if "beta" in stage else ""
            yield (
                f"Stage {name.removeprefix('stage_')}: {length}, batches of {batch}, "
                f"peak learning rate {stage['lr']:g} ({stage.get('scheduler', 'constant')}){beta}."
            )


def _generation(config: Mapping[str, Any]) -> str:
    settings = _section(config, "generate")
    if "max_new_tokens" not in settings:
        return ""
    temperature = settings.get("temperature", 0)
    how = "greedy" if not temperature else f"sampled at temperature {temperature:g}, top-p {settings.get('top_p', 1):g}"
    return f"Replies are {how}, at most {settings['max_new_tokens']} tokens."


def _judges(config: Mapping[str, Any]) -> str:
    judge = config.get("judge")
    return f"Verdicts are by {judge}." if isinstance(judge, str) and judge else ""


def write(folder: Path, results: Results, spec: ReportSpec, config: Mapping[str, Any] | None = None) -> None:
    """Write report.md and tables.tex into the run folder; figures are those in `folder/figures`."""
    io.write_text(folder / "report.md", markdown(results, spec, config, folder / "figures"))
    grids = tables.all_grids(results, spec, seeds=True)
    io.write_text(folder / "tables.tex", "\n".join(latex(g) for g in grids))
