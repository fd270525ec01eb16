"""On what a run was made: versions, platform, commit, memory. Read without importing the packages; no secrets.

Only variables on a short list are copied from the environment: an access token must never reach a run folder.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "alignment-core",
    "drift-dpo",
    "neuron-brittleness",
    "orth-refusal",
    "mini-cai",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "numpy",
    "scipy",
    "pydantic",
)
_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "WORLD_SIZE")


def versions() -> dict[str, str]:
    """Installed versions of python and of the packages that decide a result; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> dict[str, Any] | None:
    """Commit of the checkout this code runs from and whether it has changes; None when it is installed elsewhere."""
    here = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A wheel in a virtual environment inside somebody's repository is not that repository's commit.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    head, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return None if head is None else {"commit": head, "changed": bool(changed)}


def environment() -> dict[str, Any]:
    """What env.json holds."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "git": commit(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def usable_cpus() -> int:
    """Processor cores this process may use: its affinity and its container's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return max(1, cores)
    return max(1, cores if quota == "max" else min(cores, int(quota) // int(period)))


def prepare_process() -> None:
    """Set what must be set before torch is imported; what the user has set stays.

    Waiting threads give up their core, there are as many as the machine lends (torch counts cores, not quotas),
    tokenizers do not fork threads, and nothing is reported to a hub.
    """
    threads = max(1, usable_cpus() // int(os.environ.get("WORLD_SIZE", "1")))
    for name, value in {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }.items():
        os.environ.setdefault(name, value)


def reset_memory_peak() -> None:
    """Start a new peak of resident memory where the system can (Linux); elsewhere the peak is the process's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def memory_peak() -> int:
    """Peak resident memory in bytes since `reset_memory_peak`, or of the whole process where it cannot be reset."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
