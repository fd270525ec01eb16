"""A run: a walk over a study's steps, each taken from the study's store or made, and the run's own folder.

    runs/<study>/steps/<step>[-s<seed>]-<key>/     the store, shared by the study's runs (`store.py`)
    runs/<study>/<preset>[-<short hash of overrides>]/
      run.json  config.json  env.json  log.txt  timings.json  and at the end states.json, results.json and the pages

A step's key hashes its name, settings, seed, the keys of the steps it reads, the identity of every model and file it
uses, and the digest of the code that its work can reach (`provenance.py`). The order of sealing (files to disk, then
step.json, then checkpoints away, then rename, then the folder entry to disk) is such that a crash between any two
calls leaves either a partial step or a whole one.

Several processes may work on one run: each step has one maker, the others wait for it or take up another seed (`Busy`).
Under torchrun the first rank (RANK=0) claims, writes and renames; the others wait, or work in the steps that all do
together (`process_group.py`, whose communication the caller passes in, so that this module needs no torch).
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignment_core import io, progress
from alignment_core.config import Settings
from alignment_core.pipeline import explain, runlist
from alignment_core.pipeline.environment import commit, environment, memory_peak, reset_memory_peak, versions
from alignment_core.pipeline.logfile import log_file
from alignment_core.pipeline.notes import noting
from alignment_core.pipeline.owner import Owner, at_work, beating
from alignment_core.pipeline.process_group import SINGLE, ProcessGroup, is_main_process, using, world_size
from alignment_core.pipeline.provenance import code_of, module_of
from alignment_core.pipeline.step import (
    STEP,
    Step,
    facts_of,
    inputs_of,
    label_of,
    made_of,
    parse_label,
    plain,
    step_key,
)
from alignment_core.pipeline.store import Changed, Lost, Store
from alignment_core.pipeline.writable import writable

__all__ = ["Busy", "Run", "Step", "changes", "plain", "run_folder"]

log = logging.getLogger("alignment_core")

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def changes(config: Settings, preset: Settings) -> dict[str, Any]:
    """The settings in which `config` differs from its preset, by dotted key."""

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(value, dict) and value:
            return {k: v for key, part in value.items() for k, v in flat(part, f"{prefix}{key}.").items()}
        return {prefix[:-1]: value}

    ours, theirs = flat(plain(config)), flat(plain(preset))
    return {k: ours.get(k) for k in sorted(ours.keys() | theirs.keys()) if ours.get(k) != theirs.get(k)}


def run_folder(root: Path, study: str, preset: str, config: Settings, preset_config: Settings) -> Path:
    """`root/study/preset`, with a short hash of the overrides when there are any."""
    different = changes(config, preset_config)
    suffix = f"-{hashlib.sha256(io.canonical(different).encode()).hexdigest()[:6]}" if different else ""
    return root / study / f"{preset}{suffix}"


class Busy(Exception):
    """Another process makes the step that this seed needs next."""

    def __init__(self, label: str, owner: Owner) -> None:
        self.label, self.owner = label, owner
        super().__init__(f"{label} is being made by {owner.named}")


@dataclass(frozen=True)
class Planned:
    """A step as a dry run finds it: what it would do, and whether it is made already."""

    name: str
    seed: int | None
    label: str
    about: str
    kept: bool
    why: str
    """Why it is made again; empty where it is kept or new."""
    seconds: float
    """How long it took when other code made or began it; 0 where nothing is lost."""
    opens: Callable[[], None] | None
    """Opens what the step needs from outside, and raises `UserError` where that cannot be had."""


@dataclass(frozen=True)
class Used:
    """A step that this run took or made."""

    step: Step
    facts: Mapping[str, Any]
    """Of its step.json."""
    other_code: str = ""
    """Where it was kept although its code changed: what changed."""


class Run:
    """A walk over a study's steps: `Run.open` takes or makes them, `Run.plan` only lists them."""

    def __init__(
        self,
        folder: Path,
        group: ProcessGroup = SINGLE,
        *,
        accept_missing: bool = False,
        keep_changed: bool = False,
        planning: bool = False,
    ) -> None:
        self.folder = folder
        self.store = Store(folder.parent)
        self.is_main = is_main_process()
        self.accept_missing = accept_missing
        """Whether calls that failed in passing are sealed as missing, instead of leaving their step open."""
        self.keep_changed = keep_changed
        """Whether trainings are kept although their code changed since."""
        self.planning = planning
        """Whether steps are only listed in `planned`: nothing is made, and no step's folder need be there."""
        self.waits = True
        """Whether to wait for a step that another process makes, instead of raising `Busy`."""
        self.planned: list[Planned] = []
        self.used: dict[str, Used] = {}
        """The steps that the run took or made, by label."""
        self._group = group
        self._checked: dict[str, str] = {}
        """Hash of step.json of the steps that this process made or checked, by label."""
        self._made_with: dict[str, Any] = {}

    @classmethod
    def plan(cls, folder: Path, *, keep_changed: bool = False) -> Run:
        """A run whose steps are listed and not made."""
        return cls(folder, planning=True, keep_changed=keep_changed)

    @classmethod
    @contextmanager
    def open(
        cls,
        folder: Path,
        study: str,
        preset: str,
        config: Settings,
        seeds: Sequence[int],
        *,
        group: ProcessGroup | None = None,
        accept_missing: bool = False,
        keep_changed: bool = False,
    ) -> Iterator[Run]:
        """Write config.json and env.json, log to log.txt, and work under a token of this process.

        Under torchrun `group` must be given: the processes of the run, this one's rank among them, and how they wait
        for each other. Raises `UserError` when the folder is read-only, full, or of an earlier version.
        """
        if group is None and world_size() > 1:
            raise RuntimeError("several processes, and no process group was given to Run.open")
        run = cls(folder, group or SINGLE, accept_missing=accept_missing, keep_changed=keep_changed)
        with ExitStack() as stack:
            if run.is_main:
                runlist.refuse_old(folder)
                with writable(folder, any_error=True):
                    folder.mkdir(parents=True, exist_ok=True)
                    run.store.steps.mkdir(exist_ok=True)
                    stack.enter_context(at_work(run.store.owner))
                    stack.enter_context(log_file(folder, study))
                    for place in (folder, *(p for p in folder.iterdir() if p.is_dir())):
                        io.sweep(place)
                    about = {"study": study, "preset": preset, "seeds": list(seeds), "config": plain(config)}
                    io.write_json(folder / "config.json", about)
                    io.write_json(folder / "env.json", environment())
                    runlist.update(folder, {}, [folder / "config.json", folder / "env.json"])
                    run._made_with = {"versions": versions(), "git": commit()}
            run.barrier()
            yield run

    def barrier(self) -> None:
        """Wait until every process of the run is here; at once when there is one."""
        self._group.barrier()

    def do(
        self,
        name: str,
        work: Callable[[Path], None],
        *,
        settings: Mapping[str, Any] | Settings | None = None,
        seed: int | None = None,
        reads: Sequence[Step] = (),
        identity: Mapping[str, Any] | None = None,
        code: Sequence[str] = (),
        trains: bool = False,
        together: bool = False,
        about: str = "",
        opens: Callable[[], None] | None = None,
    ) -> Step:
        """The step `name`: taken from the store, or made by `work(folder)`.

        `work` gets a partial folder that may hold what an earlier, killed attempt left: it continues there or writes
        over it. A `checkpoints` folder inside is deleted when the step is whole. With several processes rank 0 works
        and the others wait; with `together` all of them work, each sees the others as its `process_group()`, and what
        `work` writes by itself only rank 0 may write. `code` names modules that `work` reaches through a registry;
        `trains` says that the step is a training. `about` says in a phrase what the step does, for a dry run; `opens`
        tries what it needs from outside, before the first step of a run.
        Raises whatever `work` raises; a full or read-only disk becomes a `UserError`.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"step name {name!r}: lower case, digits and _ only")
        found = code_of(module_of(work), *code)
        key = step_key(name, settings, seed, [(s.name, s.key) for s in reads], identity, found.digest)
        question = step_key(name, settings, seed, [(s.name, s.question) for s in reads], identity, "")
        step = Step(name, key, self.store.path(label_of(name, seed, key)), seed, question)
        facts = {
            "name": name,
            "seed": seed,
            "key": key,
            "question": question,
            "code": {"digest": found.digest, "modules": dict(found.modules)},
            "settings": plain(settings),
            "identity": plain(identity),
            "reads": {s.folder.name: "" for s in reads} if self.planning else inputs_of(reads),
        }
        if self.planning:
            return self._plan(step, facts, reads, trains, about, opens)
        return self._take(step, facts, work, trains=trains, together=together)

    def _plan(
        self,
        step: Step,
        facts: dict[str, Any],
        reads: Sequence[Step],
        trains: bool,
        about: str,
        opens: Callable[[], None] | None,
    ) -> Step:
        other = self._other_code(step, trains)
        chosen = step if other is None else self._as_step(step, other)
        label = chosen.folder.name
        if label not in {one.label for one in self.planned}:
            wrong = self._wrong(chosen, reads) if chosen.folder.exists() else ""
            kept = chosen.folder.exists() and not wrong
            why = "" if kept else wrong or self._why(chosen, facts)
            lost = [] if kept or other else self.store.of_question(step.name, step.seed, step.question)
            seconds = max((one.seconds for one in lost), default=0.0)
            self.planned.append(Planned(step.name, step.seed, label, about, kept, why, seconds, opens))
        return chosen

    def _wrong(self, step: Step, reads: Sequence[Step]) -> str:
        """What is wrong with a step that is there; its inputs are looked at where they are there, too."""
        there = [one for one in reads if (one / STEP).exists()]
        return self.store.problem(step.folder.name, inputs_of(there))

    def _why(self, step: Step, facts: Mapping[str, Any]) -> str:
        """Why a step that this run had, or the same one of other code, is made again."""
        changed = [one.facts for one in self.store.of_question(step.name, step.seed, step.question) if one.whole]
        listed = runlist.read(self.folder)["steps"]
        labels = [label for label in listed if parse_label(label) == (step.name, step.seed)]
        before = [found for label in labels if (found := facts_of(self.store.path(label))) is not None]
        old = (before or changed)[:1]
        return explain.why(facts, old[0]) if old and old[0]["key"] != step.key else ""

    def _other_code(self, step: Step, trains: bool) -> Changed | None:
        """With `keep_changed` the training of other code that stands for the one that is not there."""
        if not (self.keep_changed and trains) or step.folder.exists():
            return None
        found = self.store.of_question(step.name, step.seed, step.question)
        return next((one for one in found if one.usable), None)

    def _as_step(self, step: Step, other: Changed) -> Step:
        label = self.store.label(other)
        return Step(step.name, str(other.facts["key"]), self.store.path(label), step.seed, step.question)

    def _take(
        self, step: Step, facts: dict[str, Any], work: Callable[[Path], None], *, trains: bool, together: bool
    ) -> Step:
        """The step from the store, or made; it waits for another maker, or raises `Busy`."""
        other = self._group.broadcast(partial(self._other_code, step, trains))
        changed = ""
        if other is not None:
            changed, step = explain.why(facts, other.facts), self._as_step(step, other)
            facts = other.kept(facts)
        while True:
            claimed = self._group.broadcast(partial(self._claim, step, facts))
            if claimed is None:
                progress.kept(step.name, step.seed, step.folder.name)
                break
            if isinstance(claimed, Owner):
                if not self.waits:
                    raise Busy(step.folder.name, claimed)
                self._group.broadcast(partial(self._wait, step, claimed))
            elif self._make(step, facts, work, claimed, together):
                break
        self._group.broadcast(partial(self._note_use, step, changed))
        return step

    def _claim(self, step: Step, facts: Mapping[str, Any]) -> Owner | Path | None:
        """None where the step is whole; the process that makes it now; or this process's folder to make it in."""
        label = step.folder.name
        if label in self._checked and step.folder.exists():
            return None
        with writable(self.folder):
            while (claimed := self.store.claim(label, facts)) is None:
                wrong = self.store.problem(label, facts["reads"])
                if not wrong:
                    return None
                log.warning("%s: %s; it is set aside and made again", progress.named(step.name, step.seed), wrong)
                self.store.set_aside(label)
            return claimed

    def _wait(self, step: Step, owner: Owner) -> None:
        log.info("%s: waits for %s", progress.named(step.name, step.seed), owner.named)
        self.store.wait(step.folder.name, owner)

    def _note_use(self, step: Step, other_code: str) -> None:
        """List the step in run.json, and remember it for the results."""
        label = step.folder.name
        if label not in self._checked:
            self._checked[label] = io.sha256_file(step / STEP)
            runlist.update(self.folder, {label: self._checked[label]})
        if label not in self.used:
            self.used[label] = Used(step, facts_of(step.folder) or {}, other_code)

    def _make(
        self, step: Step, facts: dict[str, Any], work: Callable[[Path], None], folder: Path, together: bool
    ) -> bool:
        """Make the step in `folder`, rank 0's partial one; False where another process took it over or was faster."""
        timed: AbstractContextManager[None] = nullcontext()
        if self.is_main:
            runlist.update(self.folder, {step.folder.name: None})
            timed = self._timed(step, self._why(step, facts))
        with writable(self.folder), timed, noting() as notes:
            done = self._group.broadcast(lambda: self.store.finished(step.folder.name, facts["reads"]))
            if (self.is_main or together) and not done:
                with using(self._group if together else SINGLE):
                    work(folder)
            self.barrier()
        said = {"notes": list(notes)} if notes else {}
        return self._group.broadcast(partial(self._publish, step, {**facts, **said}))

    def _publish(self, step: Step, facts: dict[str, Any]) -> bool:
        try:
            with writable(self.folder):
                return self.store.publish(step.folder.name, {**facts, **self._made_with})
        except Lost:
            log.warning("%s: another process took it over", progress.named(step.name, step.seed))
            return False

    @contextmanager
    def _timed(self, step: Step, why: str) -> Iterator[None]:
        """Show a heartbeat, and add the seconds and the peak memory of an attempt to made.json."""
        reset_memory_peak()
        start, label = time.monotonic(), step.folder.name
        again = self.store.begun(label)
        with progress.step(step.name, step.seed, label, again=again, why=why), beating(self.store.partial(label)):
            try:
                yield
            finally:
                self.store.spent(label, time.monotonic() - start, memory_peak())

    def timings(self) -> dict[str, Any]:
        """What timings.json holds: seconds, peak memory and attempts of every step that the run used."""
        return {"steps": {label: _timing(one.step) for label, one in self.used.items()}}


def _timing(step: Step) -> dict[str, Any]:
    made = made_of(step.folder)
    figures = {key: made.get(key, 0) for key in ("seconds", "peak_rss_bytes", "attempts")}
    return {"name": step.name, "seed": step.seed, **figures}
