"""Every check of the doctor can fail, says what to do, and says when it was not made."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from alignment_core import doctor
from alignment_core.config import LoraSettings, ModelSettings, Settings, TrainSettings
from alignment_core.data.hub import HubError
from alignment_core.doctor import Check
from alignment_core.errors import UserError

REVISION = "0" * 40


class Config(Settings):
    model: ModelSettings = ModelSettings()
    lora: LoraSettings = LoraSettings()
    train: TrainSettings = TrainSettings()


def test_the_organism_needs_nothing_from_outside(tmp_path: Path) -> None:
    found = {c.name: c for c in doctor.examine(Config(), tmp_path / "runs" / "r")}
    assert found["hub"].state == "ok"
    assert found["torch"].state == "ok"
    assert found["device"].found == "cpu, float32" or "cuda" in found["device"].found or "mps" in found["device"].found
    assert not [c for c in found.values() if c.state == "fails"]
    assert not (tmp_path / "runs").exists()  # looking makes nothing


def test_an_old_python_fails() -> None:
    assert doctor.check_python((3, 10)).state == "fails"
    assert doctor.check_python().state == "ok"


def test_packages_are_held_against_their_floors() -> None:
    [fine] = doctor.check_packages(["numpy>=1.0", 'pytest>=1; extra == "dev"'])
    assert (fine.state, fine.found) == ("ok", "1 at or above their floors")
    absent, old = doctor.check_packages(["no-such-package-here>=1", "numpy>=999"])
    assert (absent.state, absent.found) == ("fails", "not installed")
    assert old.state == "fails"
    assert "needed >=999" in old.found
    assert '"numpy>=999"' in old.mend


def test_a_package_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_binary.py").write_text("raise OSError('libcuda.so: cannot open\\nshared object')")
    monkeypatch.syspath_prepend(str(tmp_path))
    check = doctor.check_import("broken_binary", "install it again")
    assert check.state == "fails"
    assert check.found == "does not import: OSError: libcuda.so: cannot open shared object"


def test_without_torch_the_rest_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_torch", lambda: Check("torch", "fails", "does not import", "install"))
    states = {c.name: c.state for c in doctor.examine(Config(), tmp_path)}
    assert (states["torch"], states["device"], states["memory"]) == ("fails", "not checked", "not checked")


def test_a_device_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from alignment_core.models import load

    def refuse(settings: ModelSettings) -> None:
        raise UserError("no CUDA device here")

    monkeypatch.setattr(load, "resolve", refuse)
    assert doctor.check_device(ModelSettings(device="cuda")).state == "fails"
    assert doctor.check_memory(Config(), ModelSettings()).state == "not checked"


def test_memory_is_held_against_the_need(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = ModelSettings(name="meta-llama/Llama-3.1-8B-Instruct", revision=REVISION)
    big = Config(model=pinned)
    # 8.03e9 weights at 2 or 4 bytes each, by the device; and training takes more than that.
    assert (doctor.needed_memory(big, big.model) or 0) > 16e9
    for free, state in ((1e9, "fails"), (1e12, "ok")):
        monkeypatch.setattr(doctor, "available_memory", lambda device, free=free: free)
        assert doctor.check_memory(big, big.model).state == state
    monkeypatch.setattr(doctor, "available_memory", lambda device: None)
    assert doctor.check_memory(big, big.model).state == "not checked"
    unknown = Config(model=ModelSettings(name="some/model", revision=REVISION))
    assert doctor.check_memory(unknown, unknown.model).state == "not checked"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_folder(tmp_path / "a" / "b").state == "ok"
    assert list(tmp_path.iterdir()) == []

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    check = doctor.check_folder(tmp_path)
    assert check.state == "fails"
    assert "Read-only file system" in check.found
    assert "--runs" in check.mend


def test_disk(tmp_path: Path) -> None:
    assert doctor.check_disk(tmp_path, 1.0, "disk", "--runs").state == "ok"
    full = doctor.check_disk(tmp_path, 1e18, "disk", "--runs")
    assert full.state == "fails"
    assert "--runs" in full.mend


def hub_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))


def test_offline_the_cache_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_cache(monkeypatch, tmp_path)

    def never(name: str, kind: str) -> None:
        raise AssertionError("the network was asked though HF_HUB_OFFLINE is set")

    absent = doctor.check_repository("model", "a/b", REVISION, offline=True, ask=never)
    assert absent.state == "fails"
    assert "hf download a/b --local-dir DIR" in absent.mend
    (tmp_path / "models--a--b" / "snapshots" / REVISION).mkdir(parents=True)
    assert doctor.check_repository("model", "a/b", REVISION, offline=True, ask=never).state == "ok"
    assert doctor.check_repository("model", "a/b", "1" * 40, offline=True, ask=never).state == "fails"
    assert doctor.check_repository("dataset", "a/b", REVISION, offline=True, ask=never).state == "fails"


@pytest.mark.parametrize("reason", ["network", "token", "access", "name"])
def test_the_four_reasons_are_told_apart(reason: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_cache(monkeypatch, tmp_path)

    def ask(name: str, kind: str) -> None:
        raise HubError(reason, f"model a/b: because of {reason}")

    check = doctor.check_repository("model", "a/b", REVISION, offline=False, ask=ask)
    assert check.state == "fails"
    assert check.found == f"{reason}: because of {reason}"
    (tmp_path / "models--a--b" / "snapshots" / REVISION).mkdir(parents=True)
    cached = doctor.check_repository("model", "a/b", REVISION, offline=False, ask=ask)
    assert cached.state == ("warns" if reason == "network" else "fails")


def test_no_network_is_recognised_from_the_error_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_cache(monkeypatch, tmp_path)

    def ask(name: str, kind: str) -> None:
        raise ConnectionError("Name or service not known")

    check = doctor.check_repository("model", "a/b", REVISION, offline=False, ask=ask)
    assert check.found.startswith("network: ")


def test_an_unpinned_repository_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_cache(monkeypatch, tmp_path)
    assert doctor.check_repository("model", "a/b", REVISION, offline=False, ask=lambda *_: None).state == "ok"
    check = doctor.check_repository("model", "a/b", None, offline=False, ask=lambda *_: None)
    assert check.state == "warns"
    assert "40 hex" in check.mend


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub_cache(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_topsecret")
    monkeypatch.setattr(doctor, "check_repository", lambda *_, **__: Check("model a/b", "ok", "can be read"))
    found = doctor.check_hub([("model", "a/b", REVISION)])
    assert {c.name: c.state for c in found}["token"] == "ok"
    assert "topsecret" not in "\n".join(doctor.lines(found))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert {c.name: c.state for c in doctor.check_hub([("model", "a/b", REVISION)])}["token"] == "warns"


def test_lines_show_the_mend_and_the_counts() -> None:
    found = [
        Check("a", "ok", "fine", "unused"),
        Check("b", "fails", "bad", "mend it"),
        Check("c", "not checked", "why"),
    ]
    assert list(doctor.lines(found)) == [
        "ok           a: fine",
        "fails        b: bad",
        "               mend it",
        "not checked  c: why",
        "1 ok, 1 fails, 1 not checked",
    ]
