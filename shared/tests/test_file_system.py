"""Which file systems' locks reach other machines, by lines of mount tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment_core import doctor
from alignment_core.pipeline import file_system
from alignment_core.pipeline.file_system import mount_of


@pytest.mark.parametrize(
    ("line", "shared", "why"),
    [
        ("/dev/sda1 {at} ext4 rw,relatime 0 0", False, ""),
        ("server:/home {at} nfs4 rw,vers=4.2,local_lock=none 0 0", True, ""),
        ("server:/home {at} nfs rw,vers=3,nolock 0 0", True, "mounted with nolock"),
        ("server:/home {at} nfs rw,vers=3,local_lock=flock 0 0", True, "mounted with local_lock=flock"),
        ("mds@tcp:/scratch {at} lustre rw,flock,lazystatfs 0 0", True, ""),
        ("mds@tcp:/scratch {at} lustre rw,localflock 0 0", True, "mounted with localflock"),
        ("mds@tcp:/scratch {at} lustre rw,lazystatfs 0 0", True, "mounted without flock"),
        ("me@host:/data {at} fuse.sshfs rw 0 0", True, "its locks may stay on this machine"),
        ("//server/share {at} cifs rw,nobrl 0 0", True, "mounted with nobrl"),
    ],
)
def test_locks_by_type_and_options(tmp_path: Path, line: str, shared: bool, why: str) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    table = tmp_path / "mounts"
    at = str(place).replace(" ", "\\040")
    table.write_text(f"overlay / overlay rw 0 0\n{line.format(at=at)}\ntmpfs {tmp_path}/other tmpfs rw 0 0\n")
    mount = mount_of(place / "runs", table)
    assert mount is not None
    assert (mount.point, mount.shared, mount.no_locks) == (place, shared, why)


def test_doctor_names_a_file_system_whose_locks_do_not_cross_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.check_locks(tmp_path).state in ("ok", "not checked")
    mount = file_system.Mount(tmp_path, "nfs", frozenset({"nolock"}))
    monkeypatch.setattr(file_system, "mount_of", lambda _: mount)
    check = doctor.check_locks(tmp_path)
    assert check.state == "warns"
    assert "is nfs: locks do not cross machines (mounted with nolock)" in check.found
    assert doctor.check_locks(tmp_path).mend.startswith("several machines may make one step twice")
