"""pytest plugin: the embedded model, tiny random models of other families, an open run, data from outside.

Load it with `pytest_plugins = ["alignment_core.testing"]`. Importing it puts the process offline and keeps its threads
few, before torch is imported. This is the only package that imports pytest. Beside the fixtures it gives
`check_mapping`, process groups of threads and the families of the random models; the servers to test against are in
`alignment_core.testing.servers`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from alignment_core.config import Settings
from alignment_core.pipeline.run import Run
from alignment_core.testing.mapping import check_mapping
from alignment_core.testing.models import FAMILIES, build_tiny_model
from alignment_core.testing.processes import in_threads, thread_group

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded

__all__ = ["FAMILIES", "ToySettings", "build_tiny_model", "check_mapping", "in_threads", "thread_group"]

os.environ["HF_HUB_OFFLINE"] = "1"
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(_name, _value)


class ToySettings(Settings):
    """Settings of the run that the `run` fixture opens."""

    size: int = 3
    """A number."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shared-data",
        type=Path,
        default=None,
        help="folder with data from outside (or ALIGNMENT_SHARED_DATA); tests that need it are skipped without",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Captured output travels from pytest-xdist's workers as UTF-8, which has no lone surrogates: they are escaped."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """An open run folder under the test's own folder."""
    with Run.open(tmp_path / "run", "toy", "tiny", ToySettings(), (13,)) as opened:
        yield opened


@pytest.fixture(scope="session")
def shared_data(request: pytest.FixtureRequest) -> Path:
    """Folder with data from outside the repository; the test is skipped when there is none."""
    given = request.config.getoption("--shared-data") or os.environ.get("ALIGNMENT_SHARED_DATA")
    folder = Path(given) if given else request.config.rootpath.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no data from outside: give --shared-data PATH or set ALIGNMENT_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def organism() -> Loaded:
    """The embedded model and its tokenizer on the CPU in float32. Shared by the session: do not change it."""
    from alignment_core.config import ModelSettings
    from alignment_core.models.load import load

    return load(ModelSettings(device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_model("llama", seed=0, **config)`: folder of a random model of that family with the organism's tokenizer.

    The same arguments give the same folder: copy it before changing it.
    """
    made: dict[str, Path] = {}

    def make(family: str = "llama", seed: int = 0, **changes: Any) -> Path:
        key = f"{family}-{seed}-{sorted(changes.items())}"
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            build_tiny_model(folder, family, seed, **changes)
            made[key] = folder
        return made[key]

    return make
