"""The steps of a study, kept by their keys and shared by all its runs: `runs/<study>/steps/<name>[-s<seed>]-<key>/`.

A step is made in `.<label>.<owner>.partial`, which survives a kill, so that the work can go on inside it. Processes and
machines on one disk share the store. The lock only saves work: what keeps a step right without it is that each maker
has a folder of its own, that it seals only what still carries its token, and that a rename replaces nothing. Of two
who made one step the second throws its own away.

A step that was changed after it was made, or whose inputs were made again with other bytes, is set aside
(`.<label>.<random>.set-aside`) and made again.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.errors import UserError
from alignment_core.pipeline.locks import locked
from alignment_core.pipeline.owner import Owner
from alignment_core.pipeline.step import (
    MADE,
    damage,
    drop_checkpoints,
    facts_of,
    made_of,
    outdated,
    parse_label,
    seal,
    seconds_of,
)

UNFINISHED_KEPT = 14 * 86400.0
"""Seconds for which an unfinished step that nobody works on is kept by `prune`."""


class Lost(Exception):
    """Somebody else took over the step that this process was making."""


@dataclass(frozen=True)
class Changed:
    """A step of the same question, made or begun by other code."""

    folder: Path
    facts: Mapping[str, Any]
    """Of its step.json, or of what it was to be."""
    seconds: float
    whole: bool

    @property
    def usable(self) -> bool:
        """Whether it can stand for the step: whole, on inputs that are as they were, or begun with checkpoints."""
        if self.whole:
            return not (damage(self.folder) or outdated(self.folder))
        return any(self.folder.rglob("checkpoints"))

    def kept(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Its own facts; those of an unfinished one say which code goes on with it, and from which inputs."""
        if self.whole:
            return dict(self.facts)
        return {**self.facts, "reads": facts["reads"], "continued_by": facts["code"]["digest"]}


class Store:
    """The steps under `folder`."""

    def __init__(self, folder: Path, owner: Owner | None = None) -> None:
        self.folder = folder
        self.steps = folder / "steps"
        self.owner = owner or Owner.here()

    def path(self, label: str) -> Path:
        """Where the whole step lies."""
        return self.steps / label

    def problem(self, label: str, inputs: Mapping[str, str]) -> str:
        """Why a step that is there cannot be used, in a phrase; empty when it can. `inputs`: the hash of each input's
        step.json."""
        folder = self.path(label)
        wrong = damage(folder)
        if wrong:
            return wrong
        recorded = (facts_of(folder) or {}).get("reads", {})
        other = [name for name, digest in inputs.items() if recorded.get(name) != digest]
        return f"its input {other[0]} was made again with other content" if other else ""

    def set_aside(self, label: str) -> None:
        """Move a step out of the way, so that it is made again."""
        aside = self.steps / f".{label}.{secrets.token_hex(4)}.set-aside"
        try:
            os.rename(self.path(label), aside)
        except FileNotFoundError:
            return  # another process was faster
        io.fsync_dir(self.steps)

    def claim(self, label: str, about: Mapping[str, Any]) -> Path | Owner | None:
        """This process's partial folder of a step, with what a maker who is gone left of it; or who makes it now; or
        None where the step is there by now.

        `about` is what the step is to be, kept in made.json while it is unfinished.
        """
        with locked(self.steps / ".lock"):
            if self.path(label).exists():
                return None
            if (maker := self._maker(label)) is not None:
                return maker
            if self.path(label).exists():
                return None  # its maker has ended while this process looked for it
            mine = self.partial(label)
            begun = made_of(mine).get("about") if mine.exists() else None
            if isinstance(begun, dict) and begun.get("reads") != about.get("reads"):
                shutil.rmtree(mine)  # begun on inputs that were made again with other content
            mine.mkdir(exist_ok=True)
        seconds, attempts = seconds_of(mine), int(made_of(mine).get("attempts", 0))
        self._note(mine, about=dict(about), seconds=round(seconds, 3), attempts=attempts + 1, begun=time.time())
        return mine

    def partial(self, label: str) -> Path:
        """Where this process makes a step."""
        return self.steps / f".{label}.{self.owner}.partial"

    def _partials(self, label: str = "*") -> list[tuple[Path, Owner]]:
        found = ((p, Owner.parse(p.name.split(".")[-2])) for p in sorted(self.steps.glob(f".{label}.*.partial")))
        return [(path, owner) for path, owner in found if owner is not None]

    def _maker(self, label: str) -> Owner | None:
        """Who makes a step now; where nobody does, what one who is gone left of it becomes this process's."""
        mine = self.partial(label)
        for folder, owner in self._partials(label):
            if owner == self.owner:
                continue
            state = owner.state(folder, self.clock)
            if state == "at work":
                return owner
            if not mine.exists():
                try:
                    self._take_over(folder, mine, sure=state == "gone")
                except FileNotFoundError:
                    return self._maker(label)  # it was put in its place, or another process was faster: look again
        return None

    def _take_over(self, theirs: Path, mine: Path, *, sure: bool) -> None:
        """What is left of a maker who is gone; a copy where it may come back, so that two never write in one place."""
        if sure:
            os.rename(theirs, mine)
            return
        copy = mine.with_name(f".{secrets.token_hex(4)}.copy")
        try:
            shutil.copytree(theirs, copy)
        except (OSError, shutil.Error):
            shutil.rmtree(copy, ignore_errors=True)
            return  # it is still being written: begin anew
        os.rename(copy, mine)

    def clock(self) -> float:
        """The disk's time now, which need not be this machine's."""
        path = self.steps / f".{self.owner.random}.clock"
        path.write_bytes(b"")
        try:
            return path.stat().st_mtime
        finally:
            path.unlink(missing_ok=True)

    def publish(self, label: str, facts: Mapping[str, Any]) -> bool:
        """Seal this process's partial folder and put it in its place; False where another maker was faster.

        Raises `Lost` where another process took the folder over."""
        mine, final = self.partial(label), self.path(label)
        self._note(mine, about=None)
        try:
            if self.finished(label, facts["reads"]):
                drop_checkpoints(mine)
            else:
                seal(mine, facts)
            os.rename(mine, final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                shutil.rmtree(mine, ignore_errors=True)
                return False
            if not mine.exists():
                raise Lost(label) from error
            raise
        io.fsync_dir(self.steps)
        return True

    def spent(self, label: str, seconds: float, memory: int) -> None:
        """Add this attempt's time and peak memory to the made.json of a step in the making."""
        mine = self.partial(label)
        if mine.exists():
            old = made_of(mine)
            total, peak = float(old.get("seconds", 0.0)) + seconds, int(old.get("peak_rss_bytes", 0))
            self._note(mine, seconds=round(total, 3), peak_rss_bytes=max(peak, memory), begun=None)

    def _note(self, folder: Path, **changed: Any) -> None:
        values = {**made_of(folder), **changed, "by": self.owner.named}
        try:
            io.write_json(folder / MADE, {key: value for key, value in values.items() if value is not None})
        except UserError:
            if folder.exists():
                raise
            raise Lost(folder.name) from None

    def finished(self, label: str, inputs: Mapping[str, str]) -> bool:
        """Whether the work in this process's partial folder ended and only the rename is missing."""
        facts = facts_of(self.partial(label))
        return facts is not None and facts["reads"] == inputs and not damage(self.partial(label))

    def wait(self, label: str, owner: Owner) -> None:
        """Return when the step is whole or its maker is gone."""
        folder = self.steps / f".{label}.{owner}.partial"
        while folder.exists() and owner.state(folder, self.clock) == "at work":
            time.sleep(0.2)

    def of_question(self, name: str, seed: int | None, question: str) -> list[Changed]:
        """Steps that differ from a step at most by the code that made them; the whole ones first, then the newest."""
        found = []
        for folder in self._named(name, seed):
            whole = not folder.name.startswith(".")
            facts = facts_of(folder) if whole else made_of(folder).get("about")
            if isinstance(facts, dict) and facts.get("question") == question:
                with suppress(FileNotFoundError):  # its maker puts it in its place just now
                    modified = folder.stat().st_mtime
                    found.append((whole, modified, Changed(folder, facts, seconds_of(folder), whole)))
        return [changed for *_, changed in sorted(found, key=lambda one: one[:2], reverse=True)]

    def _named(self, name: str, seed: int | None) -> Iterator[Path]:
        """Folders of steps of that name and seed, whole or unfinished."""
        start = name if seed is None else f"{name}-s{seed}"
        for folder in [*self.steps.glob(f"{start}-*"), *self.steps.glob(f".{start}-*.partial")]:
            if parse_label(folder.name.lstrip(".").partition(".")[0]) == (name, seed):
                yield folder

    def label(self, changed: Changed) -> str:
        """The label of a step of other code; the next `claim` of an unfinished one's continues it."""
        return changed.folder.name.lstrip(".").partition(".")[0]

    def begun(self, label: str) -> bool:
        """Whether an earlier attempt left something in this process's partial folder."""
        return int(made_of(self.partial(label)).get("attempts", 0)) > 1


@dataclass(frozen=True)
class Leftover:
    """A folder of the store that no run needs."""

    folder: Path
    why: str
    bytes: int


def leftovers(store: Store, held: set[str]) -> list[Leftover]:
    """What `prune` may delete: whole steps that no run's list holds, steps set aside, and unfinished steps that nobody
    works on, that no list holds, and that were not touched for 14 days."""
    found = []
    now = store.clock() if store.steps.is_dir() else 0.0
    for folder in sorted(store.steps.glob("*")):
        name, label = folder.name, folder.name.lstrip(".").partition(".")[0]
        if not folder.is_dir() or parse_label(label) is None:
            continue
        if name.endswith(".set-aside"):
            why = "set aside: it was changed after it was made, or its input was made again"
        elif label in held:
            continue
        elif name.endswith(".partial"):
            owner = Owner.parse(name.split(".")[-2])
            newest = max(p.stat().st_mtime for p in [folder, *folder.rglob("*")])
            if (owner and owner.state(folder, lambda: now) == "at work") or now - newest < UNFINISHED_KEPT:
                continue
            why = f"unfinished, untouched for {(now - newest) / 86400:.0f} days"
        else:
            why = "no run's list holds it"
        found.append(Leftover(folder, why, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())))
    return found
