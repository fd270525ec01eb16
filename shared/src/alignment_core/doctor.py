"""Checks that can fail, each with its mend. What was not checked says so.

`examine` looks at what one configuration needs: versions, torch and its device, memory, disk, the hub's repositories,
a writable run folder. A check fails only when the run would; anything else worth knowing is a warning.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from alignment_core.config import ModelSettings, Settings, TrainSettings, models_of, named_files
from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError

State = Literal["ok", "warns", "fails", "not checked"]
Repository = tuple[Literal["model", "dataset"], str, str | None]
Need = Repository | tuple[Literal["file"], str, str | None]
GB = 1e9
_ORGANISM_BYTES = 1.0 * GB
_RUN_BYTES = 2.0 * GB
"""Room for a run's own files: adapters, checkpoints, replies."""


@dataclass(frozen=True)
class Check:
    """One finding; `mend` says what to do unless the state is ok."""

    name: str
    state: State
    found: str
    mend: str = ""


def examine(config: Settings, folder: Path, needs: Sequence[Need] | None = None) -> list[Check]:
    """Every check for a run of `config` in `folder`. `needs` are hub repositories, and the user's own files as
    ("file", the setting, its path); None: the model's repository alone."""
    model = getattr(config, "model", ModelSettings())
    if needs is None:
        needs = [("model", model.name, model.revision)] if on_hub(model) else []
    found = [check_python(), *check_packages(metadata.requires("alignment-core") or []), check_torch()]
    if found[-1].state == "ok":
        found += [check_device(model), *check_model(config), check_memory(config, getattr(config, "base", model))]
    else:
        found += [Check(n, "not checked", "torch does not import") for n in ("device", "memory")]
    if model.quantize == "nf4":
        found.append(check_import("bitsandbytes", "NF4 needs it: install bitsandbytes, or set model.quantize=none"))
    found += check_templates(config)
    found += check_trackers(config)
    found += [check_folder(folder), check_locks(folder), check_disk(folder, _RUN_BYTES, "disk for the run", "--runs")]
    found += [check_file(setting, path) for kind, setting, path in needs if kind == "file"]
    found += check_settings(config)
    return [*found, *check_hub([(kind, name, revision) for kind, name, revision in needs if kind != "file"])]


def needs_of(config: Settings, own: Sequence[Need]) -> list[Need]:
    """What a run of `config` needs from outside: its models on the hub, and what the study itself names."""
    hub: list[Need] = [("model", model.name, model.revision) for _, model in models_of(config) if on_hub(model)]
    return list(dict.fromkeys([*hub, *own]))


def on_hub(model: ModelSettings) -> bool:
    """Whether the model is a hub repository (neither an embedded model nor a folder)."""
    return embedded_seed(model.name) is None and not Path(model.name).exists()


def lines(found: Sequence[Check]) -> Iterator[str]:
    """The findings as text, the mend under what is not ok, and a count at the end."""
    for check in found:
        yield f"{check.state:<12} {check.name}: {check.found}"
        if check.mend and check.state != "ok":
            yield f"{'':<12}   {check.mend}"
    counts = {s: sum(c.state == s for c in found) for s in ("ok", "warns", "fails", "not checked")}
    yield ", ".join(f"{n} {state}" for state, n in counts.items() if n)


def check_python(version: tuple[int, int] = (sys.version_info[0], sys.version_info[1])) -> Check:
    if version < (3, 11):
        return Check("python", "fails", ".".join(map(str, version)), "install Python 3.11 or newer")
    return Check("python", "ok", platform.python_version())


def check_packages(requirements: Sequence[str]) -> Iterator[Check]:
    """One check that lists all, and a failing one for each package that is absent or below its floor."""
    from packaging.requirements import Requirement

    count, bad = 0, 0
    for text in requirements:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        count += 1
        mend = f'install "{need.name}{need.specifier}" (make setup does)'
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            bad += 1
            yield Check(need.name, "fails", "not installed", mend)
            continue
        if not need.specifier.contains(version, prereleases=True):
            bad += 1
            yield Check(need.name, "fails", f"{version}, needed {need.specifier}", mend)
    if not bad:
        yield Check("packages", "ok", f"{count} at or above their floors")


def check_import(name: str, mend: str) -> Check:
    """Whether a package can be imported here, which its being installed does not promise."""
    import importlib

    from alignment_core.models.noise import hush

    hush()  # what a library says of itself while it is imported is no finding
    try:
        module = importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a broken binary can raise anything; the check is to say so
        return Check(name, "fails", f"does not import: {type(error).__name__}: {_line(error)}", mend)
    return Check(name, "ok", f"{getattr(module, '__version__', 'imports')}")


def check_trackers(config: Settings) -> Iterator[Check]:
    """Each tracker that a training of this configuration reports to."""
    from alignment_core.models import trackers

    for name in sorted({name for train in _trainings(config) for name in train.report_to}):
        try:
            trackers.check((name,))
        except UserError as error:
            what, _, mend = _line(error).partition("; ")
            yield Check(name, "fails", what, mend)
        else:
            yield Check(name, "ok", "can be used")


def check_torch() -> Check:
    return check_import("torch", "install torch for this machine: https://pytorch.org/get-started/locally")


def check_device(model: ModelSettings) -> Check:
    """The device and dtype that the settings resolve to."""
    from alignment_core.models import load

    try:
        resolved = load.resolve(model)
    except UserError as error:
        return Check("device", "fails", _line(error))
    found = f"{resolved.device}, {resolved.dtype}"
    if resolved.device == "cpu" and on_hub(model):
        return Check("device", "warns", found, "a model of this size takes days on a CPU; a GPU is meant")
    return Check("device", "ok", found)


def check_templates(config: Settings) -> Iterator[Check]:
    """The chat template that each model of the configuration will get."""
    from alignment_core.models.template_check import described, expected

    for model in dict.fromkeys(model for _, model in models_of(config) if not embedded_seed(model.name)):
        what = f"chat template of {model.name}"
        try:
            template, found = expected(model), described(model)
        except UserError as error:
            yield Check(what, "fails", _line(error))
            continue
        if template is None:
            yield Check(what, "not checked", found)
        elif template.obstacle:
            yield Check(what, "warns", found, "set model.template to another where this model is trained")
        else:
            yield Check(what, "ok", found)


def _trainings(config: Settings) -> list[TrainSettings]:
    return [value for _, value in config if isinstance(value, TrainSettings)]


def check_model(config: Settings) -> Iterator[Check]:
    """What the model's config.json and tokenizer say, before any weights are loaded."""
    from alignment_core.models import preflight

    for finding in preflight.findings(config):
        state: State = "not checked" if finding.ok is None else "ok" if finding.ok else "fails"
        yield Check(finding.name, state, finding.found, "choose another model or setting" if state == "fails" else "")


def needed_memory(config: Settings, model: ModelSettings) -> float | None:
    """Bytes that the largest of the trainings needs; None where the model's config.json is not at hand, or nothing is
    trained."""
    from alignment_core.models import preflight

    if embedded_seed(model.name):
        return _ORGANISM_BYTES
    return max((need.total for _, need in preflight.memories(config)), default=None)


def available_memory(device: str) -> float | None:
    """Free bytes on the CUDA device, or of the machine's memory; None where the system does not tell."""
    if device == "cuda":
        import importlib

        return float(importlib.import_module("torch").cuda.mem_get_info()[0])
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    return float(next(line for line in text.splitlines() if line.startswith("MemAvailable")).split()[1]) * 1024


def check_memory(config: Settings, model: ModelSettings) -> Check:
    from alignment_core.models import load

    try:
        device = load.resolve(model).device
        need = needed_memory(config, model)
    except UserError as error:
        return Check("memory", "not checked", _line(error))
    if need is None:
        return Check("memory", "not checked", f"{model.name}: its config.json is not on this machine, or no training")
    free = available_memory(device)
    if free is None:
        return Check("memory", "not checked", "this system does not tell its free memory")
    found = f"{free / GB:.1f} GB free on the {device}, about {need / GB:.1f} GB needed"
    mend = "model.quantize=nf4, a smaller batch_size or max_length, or gradient_checkpointing=true take less"
    return Check("memory", "ok" if free >= need else "fails", found, mend)


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def check_folder(folder: Path) -> Check:
    """Whether the run folder can be written, by writing a file."""
    base = _existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=base) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Check("run folder", "fails", f"{folder}: {error.strerror}", "choose another folder with --runs")
    return Check("run folder", "ok", f"{folder} can be written")


def check_locks(folder: Path) -> Check:
    """Whether machines that share the folder see each other's locks."""
    from alignment_core.pipeline.file_system import mount_of

    mount = mount_of(_existing(folder))
    if mount is None:
        return Check("locks", "not checked", "this system has no mount table")
    found = f"{mount.point} is {mount.kind}"
    if mount.no_locks:
        mend = "several machines may make one step twice there: give each its own seeds, or choose another --runs"
        return Check("locks", "warns", f"{found}: locks do not cross machines ({mount.no_locks})", mend)
    return Check("locks", "ok", f"{found}: locks cross machines" if mount.shared else f"{found}, of this machine")


def check_disk(folder: Path, need: float, name: str, option: str) -> Check:
    free = shutil.disk_usage(_existing(folder)).free
    found = f"{free / GB:.1f} GB free, about {need / GB:.1f} GB needed"
    return Check(name, "ok" if free >= need else "fails", found, f"free space, or set {option} to another disk")


def check_settings(config: Settings) -> Iterator[Check]:
    """Whether the files that settings name are there, and the judges can be asked."""
    from alignment_core.judging.judges import check_judges

    for setting, path in named_files(config):
        yield check_file(setting, str(path))
    judges = getattr(config, "judge", None)
    if isinstance(judges, str):
        try:
            check_judges(judges, config.judging)  # type: ignore[attr-defined]
        except UserError as error:
            yield Check("judges", "fails", _line(error), "mend judge or judging.*")
        else:
            yield Check("judges", "ok", judges)


def check_file(setting: str, path: str | None) -> Check:
    """Whether a file that a setting names is there."""
    if path is None:
        return Check(setting, "fails", "not given", f"give {setting}=FILE")
    there = Path(path).is_file()
    return Check(setting, "ok" if there else "fails", path if there else f"{path} is no file", f"mend {setting}")


def check_hub(needs: Sequence[Repository]) -> list[Check]:
    """Room in the hub's cache, a token, and access to each repository."""
    if not needs:
        return [Check("hub", "ok", "nothing is taken from it")]
    from huggingface_hub import constants, get_token

    token = get_token() is not None
    found = [
        check_disk(Path(constants.HF_HUB_CACHE), _downloads(needs), "disk for downloads", "HF_HOME"),
        Check("token", "ok", "set")
        if token
        else Check("token", "warns", "none", "gated repositories need one: make it on the hub, set HF_TOKEN"),
    ]
    return found + [check_repository(*need, offline=bool(constants.HF_HUB_OFFLINE)) for need in needs]


def _downloads(needs: Sequence[Repository]) -> float:
    from alignment_core.models.catalogue import CATALOGUE

    known = [CATALOGUE.get(name) for kind, name, _ in needs if kind == "model"]
    return sum(one.download if one else 0.0 for one in known) + GB


def _cached(kind: str, name: str, revision: str | None) -> bool:
    """Whether the hub's cache holds a snapshot of the repository at that revision."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}" / "snapshots"
    return (folder / revision).is_dir() if revision else folder.is_dir() and any(folder.iterdir())


def check_repository(
    kind: Literal["model", "dataset"],
    name: str,
    revision: str | None,
    offline: bool,
    ask: Callable[[str, str], Any] | None = None,
) -> Check:
    """Whether a repository can be had: from the cache, or with access on the hub. `ask(name, kind)` raises if not."""
    from alignment_core.data.hub import HubError, explained

    what = f"{kind} {name}"
    cached = _cached(kind, name, revision)
    if offline:
        if cached:
            return Check(what, "ok", "in the cache (HF_HUB_OFFLINE is set: completeness is not checked)")
        return Check(what, "fails", "HF_HUB_OFFLINE is set and it is not in the cache", _mend(kind, name))
    try:
        with explained(name, kind):
            (ask or _ask)(name, kind)
    except HubError as error:
        if error.reason == "network" and cached:
            return Check(what, "warns", "no network, but it is in the cache", "completeness is not checked")
        return Check(what, "fails", f"{error.reason}: {_line(error).removeprefix(what).lstrip(': ')}")
    pinned = "" if revision else "; no revision is pinned: the newest will be taken"
    return Check(what, "warns" if pinned else "ok", f"can be read{pinned}", "pin 40 hex digits as its revision")


def _ask(name: str, kind: str) -> None:
    from huggingface_hub import HfApi

    HfApi().auth_check(name, repo_type=kind)


def _mend(kind: str, name: str) -> str:
    option = "--repo-type dataset " if kind == "dataset" else ""
    use = "give DIR as the source's path" if kind == "dataset" else "set model.name=DIR and model.template"
    return f"where there is a network: hf download {option}{name} --local-dir DIR; then {use}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
