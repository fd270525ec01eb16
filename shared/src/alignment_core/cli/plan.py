"""What a run would do, without a GPU or a network: models, data, every step, and which of them are made already.

The study itself is walked with a run that makes nothing, so that the plan is what the run does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment_core.cli.study import Study, load
from alignment_core.config import ModelSettings, Settings, models_of, named_files
from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError
from alignment_core.pipeline.run import Planned, Run
from alignment_core.progress import duration

COSTLY = 1800.0
"""Seconds of work by other code above which a run asks before it makes that again."""


def walk(
    study: Study, config: Settings, seeds: Sequence[int], folder: Path, *, keep_changed: bool = False
) -> list[Planned]:
    """Every step of the study for these seeds, each once, in the order in which they are made."""
    run = Run.plan(folder, keep_changed=keep_changed)
    for seed in seeds:
        for _ in load(study.run)(run, config, seed):
            pass
    return run.planned


def refuse_costly(steps: Sequence[Planned]) -> None:
    """`UserError` where what would be made again, because its code changed, took longer than `COSTLY`."""
    again = [step for step in steps if step.seconds]
    total = sum(step.seconds for step in again)
    if total > COSTLY:
        names = list(dict.fromkeys(step.name for step in again))
        first = next((step.why for step in again if step.why), "its code changed")
        raise UserError(
            f"{len(again)} steps would be made again that took {duration(total)} ({', '.join(names[:4])}"
            f"{' …' if len(names) > 4 else ''}: {first}); --remake makes them again, --keep-changed keeps the trainings"
        )


def text(study: Study, config: Settings, seeds: Sequence[int], folder: Path, *, keep_changed: bool = False) -> str:
    """The plan as lines of text; `UserError` for a judge, file or server that cannot be had."""
    from alignment_core.doctor import needs_of

    steps = walk(study, config, seeds, folder, keep_changed=keep_changed)
    open_all(steps)
    own = load(study.needs)(config) if study.needs else []
    kept = sum(step.kept for step in steps)
    return "\n".join(
        [
            f"run folder: {folder}",
            f"seeds: {', '.join(map(str, seeds))}",
            "",
            "models",
            *_model_lines(config),
            "data",
            *_data_lines(config, needs_of(config, own)),
            f"judges: {getattr(config, 'judge', 'none')}",
            f"steps: {len(steps)}, {kept} of them made already",
            *_step_lines(steps),
        ]
    )


def open_all(steps: Sequence[Planned]) -> None:
    """Open what the steps that are still to be made need from outside, once each; `UserError` says what is wrong."""
    opened: list[Any] = []
    for step in steps:
        what = getattr(step.opens, "args", None)
        if step.opens is not None and not step.kept and what not in opened:
            opened.append(what)
            step.opens()


def check_templates(config: Settings) -> None:
    """`UserError` for a model whose chat template cannot be had, where the model is on this machine."""
    from alignment_core.models.template_check import expected

    for model in dict.fromkeys(model for _, model in models_of(config)):
        expected(model)


def _model_lines(config: Settings) -> Iterator[str]:
    from alignment_core.models import preflight
    from alignment_core.models.catalogue import CATALOGUE
    from alignment_core.models.template_check import described

    said: dict[ModelSettings, list[str]] = {}
    for key, model in models_of(config):
        said.setdefault(model, []).append(key)
    for model, keys in said.items():
        known, what = CATALOGUE.get(model.name), ", ".join(keys)
        pinned = f"revision {model.revision or 'not set (required)'}"
        if seed := embedded_seed(model.name):
            yield f"  {what}: embedded model {seed}: nothing to download, under 1 GB of memory, no GPU"
        elif Path(model.name).expanduser().is_dir():
            yield f"  {what}: {model.name}: nothing to download"
        elif known is None:
            yield f"  {what}: {model.name}, {pinned}: its size and terms stand on the hub"
        else:
            access = "gated: accept its licence on the hub, set HF_TOKEN" if known.gated else "open"
            yield f"  {what}: {model.name}, {pinned}: {known.download / 1e9:.1f} GB; {access}"
        if template := described(model):
            yield f"    chat template: {template}"
        if model == preflight.trained(config):
            yield from _trained_lines(config, model)


def _trained_lines(config: Settings, model: ModelSettings) -> Iterator[str]:
    """What its config.json says of the model that is trained, and what each training needs; `UserError` where it
    cannot be trained."""
    from alignment_core.models import preflight

    for finding in preflight.findings(config):
        if finding.ok is False:
            raise UserError(finding.found)
        yield f"    {finding.name}: {'not checked: ' if finding.ok is None else ''}{finding.found}"
    # A model on the hub is planned for a GPU, whatever machine the plan is made on.
    device = None if Path(model.name).expanduser().is_dir() else "cuda"
    dtype = "NF4, double quantisation" if model.quantize == "nf4" else f"dtype {model.dtype}"
    for name, need in preflight.memories(config, device):
        yield (
            f"    {name}: {dtype}: weights {need.weights / 1e9:.1f} GB, adapter and optimiser {need.adapter / 1e9:.1f} "
            f"GB, activations {need.activations / 1e9:.1f} GB: about {need.total / 1e9:.1f} GB of "
            f"{'GPU ' if device else ''}memory (worked out from config.json)"
        )


def _data_lines(config: Settings, needs: Sequence[tuple[str, str, str | None]]) -> Iterator[str]:
    from alignment_core.data.catalogue import SOURCES

    licences = {s.repo: f"{'gated, ' if s.gated else ''}{s.licence}" for s in SOURCES.values()}
    local = [f"  {key}: read from {path}" for key, path in named_files(config)]
    yield from local
    taken = [(name, revision) for kind, name, revision in needs if kind == "dataset"]
    for repo, revision in taken:
        access = "; accept its terms on the hub, set HF_TOKEN" if "gated" in licences.get(repo, "") else ""
        yield f"  {repo}, revision {revision or 'not set'}: {licences.get(repo, 'licence unknown')}{access}"
    if not taken and not local:
        yield "  nothing to download"


def _step_lines(steps: Sequence[Planned]) -> Iterator[str]:
    """One line a step; steps that differ in nothing but the seed share one."""
    names: dict[tuple[str, str, str], list[Planned]] = {}
    for step in steps:
        names.setdefault((step.name, step.about, step.why), []).append(step)
    wide = max((len(name) for name, _, _ in names), default=0)
    for (name, about, why), each in names.items():
        times = "" if each[0].seed is None else f" (seeds {', '.join(str(s.seed) for s in each)})"
        made = sum(s.kept for s in each)
        state = "kept" if made == len(each) else "to make" if not made else f"{made} of {len(each)} kept"
        again = f" again ({why})" if why else ""
        yield f"  {name:<{wide}}  {state}{again}{times}{f': {about}' if about else ''}"
