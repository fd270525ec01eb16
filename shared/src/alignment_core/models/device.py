"""Where a model is held, and in which dtype: `auto` resolved for this machine.

A plan and a step's key ask this, too. So torch, which takes seconds to import, is asked only where a driver is there
that it could use.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.errors import UserError

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings


def place(settings: ModelSettings) -> tuple[str, str]:
    """Device type and dtype's name, `auto` resolved; `UserError` for a device that this machine lacks."""
    device = settings.device
    if device == "auto":
        device = "cuda" if _cuda() else "mps" if _mps() else "cpu"
    elif device == "cuda" and not _cuda():
        raise UserError("model.device=cuda, but torch sees no CUDA device; set model.device=auto or cpu")
    elif device == "mps" and not _mps():
        raise UserError("model.device=mps, but torch sees no MPS device; set model.device=auto or cpu")
    dtype: str = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" and _bfloat16() else "float32"
    return device, dtype


@cache
def driver() -> bool:
    """Whether this machine may have a driver for CUDA (or ROCm, which torch calls by the same name)."""
    if platform.system() != "Linux":
        return platform.system() != "Darwin"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def _cuda() -> bool:
    if not driver():
        return False
    import torch

    available: bool = torch.cuda.is_available()
    return available


def _bfloat16() -> bool:
    import torch

    supported: bool = torch.cuda.is_bf16_supported()
    return supported


def _mps() -> bool:
    if platform.system() != "Darwin":
        return False
    import torch

    available: bool = torch.backends.mps.is_available()
    return available
