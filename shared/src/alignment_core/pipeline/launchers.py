"""Where a sweep's jobs run: as processes of this machine, or in Slurm's queue; submitit starts them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.errors import UserError, nearest
from alignment_core.pipeline.environment import usable_cpus
from alignment_core.pipeline.sweep import Command, Job, cancel, command_of

if TYPE_CHECKING:
    import submitit

log = logging.getLogger("alignment_core")

_NO_LIMIT = 60 * 24 * 3650
"""Minutes that submitit gives a job on this machine."""
_PATIENCE = 3.0
"""Seconds that a command gets to end after an interrupt."""
_ASKED_EVERY, _LOST_AFTER = 60.0, 600.0
"""Seconds between two questions to Slurm, and after which a job that nothing knows of counts as lost."""


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(i) for i, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


@dataclass
class Local:
    """Jobs as processes of this machine, `limit` at a time, which share its cores and its GPUs."""

    limit: int
    gpus: int = 0
    """GPUs of a job; 0: one, which several jobs share where there are fewer."""
    pause: float = 0.2
    _places: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        there = len(visible_gpus())
        if self.limit * self.gpus > there:
            raise UserError(
                f"local:{self.limit} with --gpus {self.gpus} needs {self.limit * self.gpus} GPUs and sees {there}; "
                "run fewer jobs at a time, or leave --gpus out"
            )

    def _environment(self, place: int) -> list[str]:
        """What stands before the command in place 0, 1, ... of `limit`: submitit would hide the GPUs from it."""
        gpus, number = visible_gpus(), max(self.gpus, 1)
        mine = [gpus[i % len(gpus)] for i in range(place * number, (place + 1) * number)] if gpus else []
        hidden = "CUDA_VISIBLE_DEVICES" in os.environ
        words = [f"CUDA_VISIBLE_DEVICES={','.join(mine)}"] if mine or hidden else ["-u", "CUDA_VISIBLE_DEVICES"]
        if "OMP_NUM_THREADS" not in os.environ:
            words.append(f"OMP_NUM_THREADS={max(1, usable_cpus() // self.limit)}")
        return ["env", *words]

    def ready(self, job: Job) -> bool:
        return command_of(job) is None

    def start(self, job: Job) -> submitit.Job[int]:
        import submitit

        shutil.rmtree(job.folder, ignore_errors=True)
        executor = submitit.LocalExecutor(job.folder)
        executor.update_parameters(timeout_min=_NO_LIMIT)
        place = min(set(range(self.limit)) - set(self._places.values()))
        started = executor.submit(Command(), [*self._environment(place), *job.words])
        self._places[started.job_id] = place
        log.info("%s: starts; log: %s", job.label, started.paths.stderr)
        return started

    def ended(self, running: submitit.Job[int]) -> bool:
        over = running.done()
        if over:
            self._places.pop(running.job_id, None)
        return over

    def leave(self, running: Mapping[Job, submitit.Job[int]]) -> None:
        """End the commands: an interrupt, and after a few seconds no more requests."""
        for job in running:
            cancel(job)
        began, asked = time.monotonic(), set[int]()
        while live := [job for job, one in running.items() if not one.done() or command_of(job) is not None]:
            spent = time.monotonic() - began
            for pid in {command_of(job) or 0 for job in live} - {0} - (set() if spent > _PATIENCE else asked):
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL if spent > _PATIENCE else signal.SIGINT)
                asked.add(pid)
            if spent > 2 * _PATIENCE:
                return
            time.sleep(0.05)


class Slurm:
    """Jobs in Slurm's queue, with submitit's parameters for them."""

    limit = 1_000_000
    pause = 2.0

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        """Raises `UserError` where there is no Slurm, or for a parameter that submitit does not have."""
        import submitit

        absent = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
        if absent:
            raise UserError(
                f"--launcher slurm: no {absent[0]} on PATH; start it where Slurm is, or use local:N or print"
            )
        known = sorted(submitit.SlurmExecutor._valid_parameters())
        for name in set(parameters) - set(known):
            raise UserError(f"--slurm {name}: submitit has no such parameter{nearest(name, known)}")
        if not isinstance(parameters.get("time"), int):
            raise UserError("--launcher slurm needs the longest time of a job in minutes: --slurm time=240")
        self.parameters = dict(parameters)
        self._asked = float("-inf")
        self._known: dict[str, float] = {}

    def ready(self, job: Job) -> bool:
        return True

    def start(self, job: Job) -> submitit.Job[int]:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        found = self._queued(job)
        if found is not None:
            log.info("%s: in the queue already, job %s", job.label, found.job_id)
            return found
        shutil.rmtree(job.folder, ignore_errors=True)
        executor = submitit.SlurmExecutor(job.folder)
        executor.update_parameters(**self.parameters)
        try:
            started = executor.submit(Command(), list(job.words))
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"sbatch refused the job: {' '.join(str(error).split())}") from error
        log.info("%s: job %s; log: %s", job.label, started.job_id, started.paths.stderr)
        return started

    def _queued(self, job: Job) -> submitit.Job[int] | None:
        """The job as an earlier sweep submitted it, if it is not over."""
        import submitit

        ids = [file.name.removesuffix("_submitted.pkl") for file in job.folder.glob("*_submitted.pkl")]
        for name in ids:
            found: submitit.SlurmJob[int] = submitit.SlurmJob(job.folder, name)
            if not found.done(force_check=True) and not (found.state.upper() == "UNKNOWN" and not _listed(name)):
                return found
        return None

    def ended(self, running: submitit.Job[int]) -> bool:
        now = time.monotonic()
        if now - self._asked > _ASKED_EVERY:
            self._asked = now
            running.watcher.update()
        if running.done():
            return True
        if running.state.upper() != "UNKNOWN" or _listed(running.job_id):
            self._known[running.job_id] = now
        return now - self._known.setdefault(running.job_id, now) > _LOST_AFTER

    def leave(self, running: Mapping[Job, submitit.Job[int]]) -> None:
        """The jobs stay in the queue."""
        if running:
            ids = " ".join(one.job_id for one in running.values())
            log.warning("%d jobs stay in the queue; to end them: scancel %s", len(running), ids)


def _listed(job_id: str) -> bool:
    """Whether Slurm's queue has the job: of use where accounting (sacct) is off."""
    if shutil.which("squeue") is None:
        return False
    asked = subprocess.run(["squeue", "-h", "-j", job_id], capture_output=True, text=True, check=False)
    return asked.returncode == 0 and bool(asked.stdout.strip())
