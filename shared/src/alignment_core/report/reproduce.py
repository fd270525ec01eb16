"""How to get a run again: the checkout, the command with every setting that is not the preset's, the environment."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from alignment_core import config
from alignment_core.errors import UserError
from alignment_core.evaluation.results import Results
from alignment_core.pipeline.run import changes
from alignment_core.report import markup
from alignment_core.report.spec import ReportSpec
from alignment_core.report.tables import Cell, Grid
from alignment_core.text import for_html


def html(results: Results, spec: ReportSpec, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """The section: commands to copy, then versions, environment and settings, folded."""
    commit = environment.get("git") or {}
    lines = [f"git checkout {commit['commit']}", "make setup"] if commit.get("commit") else []
    lines.append(command(results, spec, settings))
    out = [f"<pre>{for_html(chr(10).join(lines), lines=True)}</pre>"]
    if commit.get("changed"):
        out.append('<p class="note">The checkout had changes that were not committed.</p>')
    versions = results.versions or environment.get("versions", {})
    rows = tuple((Cell(str(k)), Cell(str(v))) for k, v in versions.items())
    if rows:
        out.append(markup.folded("Versions", markup.grid(Grid("", ("package", "version"), rows))))
    for title, value in (("Environment", environment), ("Every setting", settings)):
        if value:
            text = for_html(json.dumps(value, indent=1, ensure_ascii=False), lines=True)
            out.append(markup.folded(title, f'<pre tabindex="0">{text}</pre>'))
    return "\n".join(out)


def command(results: Results, spec: ReportSpec, settings: Mapping[str, Any]) -> str:
    """The command line that makes the run: preset, seeds, and each setting that differs from the preset's.

    Where the study is not installed or does not know these settings it is the spec's own command, or one without
    settings.
    """
    plain = f"{results.study} run --preset {results.preset} --seeds {','.join(map(str, results.seeds))}"
    over = _overrides(results, settings) if settings else None
    if over is None:
        return spec.command or plain
    return " ".join([plain, *(shlex.quote(f"{key}={_value(value)}") for key, value in over.items())])


def _overrides(results: Results, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was laid over the preset, as far as the installed study can tell."""
    found = list(metadata.entry_points(group="alignment_core.studies", name=results.study))
    study: Any = found[0].load() if found else None
    if study is None or not hasattr(study, "config"):
        return None
    model = study.config
    if isinstance(model, str):
        module, _, name = model.partition(":")
        model = getattr(importlib.import_module(module), name)
    try:
        bare = config.resolve(model, study.package, results.preset)
        return changes(config.validate(model, settings, "config.json"), bare)
    except UserError:
        return None


def _value(value: Any) -> str:
    """A setting as the command line takes it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
