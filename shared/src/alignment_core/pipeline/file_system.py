"""Do the locks of a folder's file system reach other machines? By its type and options in the system's mount table.

The store's locks save work alone: where they do not cross machines, two machines may make one step twice, and one of
the two is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_ACROSS = {"nfs", "nfs4", "lustre", "gpfs", "ceph", "gfs2", "ocfs2", "beegfs", "cifs", "smb3"}
"""Shared by machines, with locks that cross them unless an option says otherwise."""
_SWITCHED_OFF = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"local_lock=all", "local_lock=flock"},
    "lustre": {"noflock", "localflock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
}
_UNTOLD = {"beegfs": "its tuneUseGlobalFileLocks decides, which the mount table does not show"}


@dataclass(frozen=True)
class Mount:
    """Where a folder lies."""

    point: Path
    kind: str
    options: frozenset[str]

    @property
    def no_locks(self) -> str:
        """Why locks do not cross machines, in a phrase; empty where they do, or where one machine alone uses it."""
        off = sorted(self.options & _SWITCHED_OFF.get(self.kind, set()))
        if off:
            return f"mounted with {off[0]}"
        if self.kind == "lustre" and "flock" not in self.options:
            return "mounted without flock"
        if self.kind in _UNTOLD:
            return _UNTOLD[self.kind]
        if self.kind.startswith("fuse.") or self.kind in ("9p", "virtiofs"):
            return "its locks may stay on this machine"
        return ""

    @property
    def shared(self) -> bool:
        """Whether other machines may use it, too."""
        return self.kind in _ACROSS or self.kind.startswith("fuse.") or self.kind in ("9p", "virtiofs")


def mount_of(folder: Path, table: Path = Path("/proc/self/mounts")) -> Mount | None:
    """The mount that holds a folder; None where the system has no such table."""
    try:
        rows = [line.split() for line in table.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return None
    place = folder.resolve()
    mounts = [
        Mount(Path(row[1].encode().decode("unicode_escape")), row[2], frozenset(row[3].split(",")))
        for row in rows
        if len(row) >= 4
    ]
    around = [mount for mount in mounts if place.is_relative_to(mount.point)]
    return max(around, key=lambda mount: len(mount.point.parts), default=None)
