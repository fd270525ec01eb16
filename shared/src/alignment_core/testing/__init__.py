"""pytest plugin: the embedded model, tiny random models of other families, an open run, data from outside,
and the check of a study's mapping.

Load it with `pytest_plugins = ["alignment_core.testing"]`. Importing it puts the process offline and keeps its threads
few, before torch is imported. This is the only room that imports pytest.
"""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import typer

from alignment_core.config import Settings
from alignment_core.evaluation import results
from alignment_core.pipeline.process_group import ProcessGroup, using
from alignment_core.pipeline.run import Run

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded

os.environ["HF_HUB_OFFLINE"] = "1"
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(_name, _value)

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2},
    "qwen3": {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8},
    "gemma": {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 8},
    "gemma2": {**_SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8},
    "phi": {**_SMALL, "intermediate_size": 64},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64,
                "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 512},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 512},
}  # fmt: skip
"""Shapes of the random models, by transformers' name of the family."""


T = TypeVar("T")


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


def build_tiny_model(folder: Path, family: str, seed: int = 0, **changes: Any) -> None:
    """Save a random model of `family` (a key of `FAMILIES`) as safetensors, with the organism's tokenizer files."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from alignment_core.organism import weights

    tokenizer = AutoTokenizer.from_pretrained(weights.path())
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = {**FAMILIES[family], "vocab_size": len(tokenizer), **ids, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape), dtype=torch.float32)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(weights.path() / name, folder / name)


def thread_group(size: int) -> list[ProcessGroup]:
    """A process group of threads, one each; values travel as pickles, as between processes."""
    barrier, given = threading.Barrier(size, timeout=60), [b""] * size

    def member(rank: int) -> ProcessGroup:
        def gather(value: Any) -> list[Any]:
            given[rank] = pickle.dumps(value)
            barrier.wait()
            values = [pickle.loads(one) for one in given]
            barrier.wait()  # no one gives the next value before all have read this one
            return values

        def all_reduce(tensor: Any) -> None:
            tensor.copy_(sum(gather(tensor)))

        return ProcessGroup(rank, size, gather, all_reduce)

    return [member(rank) for rank in range(size)]


def in_threads(size: int, work: Callable[[ProcessGroup], T]) -> list[T]:
    """What `work` gives in each of `size` threads that are a process group; the first error is raised."""

    def of(member: ProcessGroup) -> T:
        with using(member):
            return work(member)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(of, thread_group(size)))


def check_mapping(
    file: Path,
    config: Settings,
    app: typer.Typer,
    run_folder: Path,
    more: Mapping[str, Callable[[str], bool]] | None = None,
) -> None:
    """Every row `| original | kind | ours |` of a study's mapping holds: ours is there.

    `key`: a setting of `config`; `command`: of `app`; `file`: a file of the run; `metric`: measured in its
    results.json; `none`: left out, so ours is empty; `more`: the study's own kinds.
    """
    found = results.read(run_folder / "results.json")
    commands = {c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands}
    kinds: dict[str, Callable[[str], bool]] = {
        "key": lambda key: _has(config, key),
        "command": commands.__contains__,
        "file": lambda pattern: any(run_folder.rglob(pattern)),
        "metric": found.metrics.__contains__,
        "none": lambda nothing: not nothing,
        **(more or {}),
    }
    lines = [line.split("|")[1:4] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(lines) > 40, f"{file} maps almost nothing"
    for original, kind, ours in ([cell.strip() for cell in line] for line in lines[1:]):
        assert kind in kinds, f"{original}: no kind {kind!r}"
        assert kinds[kind](ours.strip("`")), f"{original}: no {kind} {ours}"


def _has(config: Settings, key: str) -> bool:
    """Whether a dotted key is a setting."""
    value: Any = config
    for part in key.split("."):
        if part not in getattr(type(value), "model_fields", {}):
            return False
        value = getattr(value, part)
    return True
