"""How to reproduce a run: the checkout, the command with every setting that is not the preset's, the environment."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from alignment_core import config
from alignment_core.errors import UserError
from alignment_core.evaluation.results import Results
from alignment_core.pipeline.run import changes
from alignment_core.report.spec import ReportSpec
from alignment_core.report.tables import Grid, grid


@dataclass(frozen=True)
class Reproduction:
    """The section: commands to copy, then what they ran with."""

    commands: str
    changed: bool
    """The checkout had changes that were not committed."""
    versions: Grid
    details: tuple[tuple[str, str], ...]
    """Title and text of the environment and the settings."""


def of(results: Results, spec: ReportSpec, settings: Mapping[str, Any], environment: Mapping[str, Any]) -> Reproduction:
    """How this run is made again, from its config.json and env.json."""
    commit = environment.get("git") or {}
    lines = [f"git checkout {commit['commit']}", "make setup"] if commit.get("commit") else []
    versions = results.versions or environment.get("versions", {})
    named = (("Environment", environment), ("Every setting", settings))
    return Reproduction(
        "\n".join([*lines, command(results, spec, settings)]),
        bool(commit.get("changed")),
        grid("", ("package", "version"), ((str(k), str(v)) for k, v in versions.items())),
        tuple((title, json.dumps(value, indent=1, ensure_ascii=False)) for title, value in named if value),
    )


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
    """What differs from the preset, as far as the installed study knows the settings."""
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
