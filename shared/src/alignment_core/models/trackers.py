"""Training told to TensorBoard, Weights & Biases or trackio where `train.report_to` names them; never otherwise.

What they write on this machine goes to `trackers/` in the study's folder, beside the steps and no part of any: a step's
key, files and results are the same with and without a tracker. Each training is a run of its own under its step's
name, begun again after an interruption. Nothing is sent anywhere unless the tracker itself is set up to: W&B by its
login or WANDB_MODE, trackio by TRACKIO_SPACE_ID. What the environment says (WANDB_DIR, WANDB_PROJECT, TRACKIO_DIR,
TENSORBOARD_LOGGING_DIR) goes before what is set here.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment_core.errors import UserError

TRACKERS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""Name in `report_to`, and what is imported for it."""
_QUIET = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_DISABLE_CODE": "true", "WANDB_DISABLE_GIT": "true"}
"""No lines on the terminal, no copy of them, of our code or of the checkout's remote address."""

_ours: dict[str, str] = {}


def check(names: Sequence[str]) -> None:
    """`UserError` with its mend where a tracker does not import or could not begin a run."""
    for name in names:
        try:
            module = importlib.import_module(TRACKERS[name])
        except ImportError as error:
            lacking = "is not installed" if error.name and error.name.split(".")[0] == name else f"fails: {error}"
            raise UserError(
                f"report_to names {name}, which {lacking}; install it (pip install {name}), or leave it out"
            ) from error
        if name == "wandb" and not _sends_nowhere_or_logged_in(module):
            raise UserError("report_to names wandb, which has no login; run wandb login, or set WANDB_MODE=offline")


def _sends_nowhere_or_logged_in(wandb: Any) -> bool:
    """Whether a run of W&B can begin without asking somebody for a key."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return True
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # versions that cannot be told not to ask
        return bool(os.environ.get("WANDB_API_KEY"))


def prepare(names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Before a trainer is built that writes in `folder`: checks, where the trackers write, and arguments for it."""
    if not names:
        return {"report_to": "none"}
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    root, label = _place(folder)
    (root / "wandb").mkdir(parents=True, exist_ok=True)  # wandb writes elsewhere where it finds no folder
    project = root.parent.name
    for variable, value in {
        "TENSORBOARD_LOGGING_DIR": str(root / "tensorboard" / label),
        "WANDB_DIR": str(root),
        "WANDB_PROJECT": project,
        "TRACKIO_DIR": str(root / "trackio"),
    }.items():
        if os.environ.get(variable) in (None, _ours.get(variable)):
            os.environ[variable] = _ours[variable] = value
    check(names)
    more = {"project": project, "trackio_static_space_id": False} if "trackio" in names else {}
    return {"report_to": list(names), "run_name": label, **more}


def _place(folder: Path) -> tuple[Path, str]:
    """Where the trackers write, and what the run is called; `folder` is a step in the making, or any other."""
    label = folder.name.lstrip(".").partition(".")[0]
    whole = folder.absolute()
    return (whole.parent.parent if whole.parent.name == "steps" else whole) / "trackers", label


def finish(names: Sequence[str]) -> None:
    """After a training, also one that failed: the next one is a run of its own."""
    if "wandb" in names:
        importlib.import_module("wandb").finish()
    if "trackio" in names and (trackio := importlib.import_module("trackio")).context_vars.current_run.get():
        trackio.finish()
