"""Sealed checkpoints: a training run continues only from one that was written whole and has not changed since.

transformers writes a checkpoint in place and resumes from the highest number unchecked; without its random state or
its optimiser a run continues, silently, on other numbers. Here a checkpoint counts once `sealed.json` stands in it:
the names, sizes and sha256 of its files and the fingerprint of the run, written last, after everything else is on
disk. Damaged or half-written ones are passed over with a line in the log, and older whole ones are tried.

Checkpoints hold pickles of our own making (optimiser, scheduler, random state); they never leave the step's folder
and go when the step is whole.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.errors import InputError, UserError
from alignment_core.pipeline.process_group import world_size

log = logging.getLogger("alignment_core")

SEAL = "sealed.json"
_NAME = re.compile(r"checkpoint-(\d+)")
# Without any one of these transformers resumes all the same, on other numbers and without a word.
NEEDED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name, or -1 for any other folder."""
    found = _NAME.fullmatch(folder.name)
    return int(found[1]) if found else -1


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file() and f.name != SEAL and not f.name.endswith(".tmp"))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def incomplete(names: Sequence[str]) -> str | None:
    """The first file that a resumable checkpoint must have and these names lack, or None."""
    present = set(names)
    for name in NEEDED:
        if name not in present and not (name == "optimizer.pt" and "optimizer.bin" in present):  # FSDP's name for it
            return name
    return None if any(n.startswith("rng_state") for n in present) else "rng_state.pth"


def seal(folder: Path, fingerprint: str) -> None:
    """Flush a checkpoint's files to disk and seal it; `RuntimeError` when a file that resuming needs is not there."""
    files = _files(folder)
    names = [f.relative_to(folder).as_posix() for f in files]
    if lacking := incomplete(names):
        raise RuntimeError(f"{folder}: the checkpoint was saved without {lacking}")
    entries = {}
    for name, file in zip(names, files, strict=True):
        _flush(file)
        entries[name] = {"size": file.stat().st_size, "sha256": io.sha256_file(file)}
    for inner in {f.parent for f in files}:
        _flush(inner)
    io.write_json(folder / SEAL, {"step": step_of(folder), "fingerprint": fingerprint, "files": entries})
    io.fsync_dir(folder.parent)


def damage(folder: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None when its seal holds for every file."""
    try:
        manifest = io.read_json(folder / SEAL)
        entries: Mapping[str, Mapping[str, Any]] = manifest["files"]
        if lacking := incomplete(list(entries)):
            return f"sealed without {lacking}"
        for name, entry in entries.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["size"] or io.sha256_file(file) != entry["sha256"]:
                return f"{name} has changed or is cut short"
    except InputError:
        return f"{SEAL} is damaged"
    except UserError:
        return "it was never sealed (the run stopped while writing it)"
    except (KeyError, TypeError, AttributeError):
        return f"{SEAL} is damaged"
    return None


def newest(folder: Path, fingerprint: str) -> Path | None:
    """The newest whole checkpoint of this run under `folder`, or None; damaged ones are removed, with a log line.

    Raises `UserError` when a whole checkpoint belongs to a run with other settings, data or seed, or of another
    number of processes: continuing it would follow another schedule, or other random states, without a word.
    """
    if not folder.is_dir():
        return None
    for checkpoint in sorted((f for f in folder.iterdir() if step_of(f) >= 0), key=step_of, reverse=True):
        if why := damage(checkpoint):
            log.warning("checkpoint %s is passed over: %s", checkpoint.name, why)
            _remove(checkpoint)
            continue
        manifest = io.read_json(checkpoint / SEAL)
        made_by = sum(name.startswith("rng_state") for name in manifest["files"])
        if made_by != world_size():
            raise UserError(
                f"{checkpoint}: was made by {made_by} processes at work and {world_size()} are now; start as many "
                f"again, or delete {folder} to train this step from its start"
            )
        if manifest.get("fingerprint") != fingerprint:
            raise UserError(
                f"{checkpoint}: belongs to a run with other settings, data or seed; "
                "train into another folder, or delete this one's checkpoints to start over"
            )
        return checkpoint
    return None


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint, its seal first, so that a stop halfway leaves one that is not trusted."""
    (checkpoint / SEAL).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest sealed checkpoints; called after the newest is sealed, never before."""
    for old in sorted((f for f in folder.iterdir() if step_of(f) >= 0), key=step_of)[:-keep]:
        _remove(old)


def sealing(folder: Path, fingerprint: str, keep: int) -> Any:
    """A trainer callback that seals each checkpoint once all processes have written theirs, then prunes."""
    from transformers import TrainerCallback

    class Seal(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            import torch.distributed as dist

            distributed = dist.is_available() and dist.is_initialized()
            if distributed:
                dist.barrier()
            if state.is_world_process_zero:
                seal(folder / f"checkpoint-{state.global_step}", fingerprint)
                prune(folder, keep)
            if distributed:
                dist.barrier()

    return Seal()
