"""Replies from a real `transformers serve`, which takes no prompts as tokens: killed halfway and asked again."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from alignment_core.config import EndpointSettings, GenerateSettings, LoraSettings, ModelSettings
from alignment_core.errors import Unfinished, UserError
from alignment_core.io import read_json
from alignment_core.models import endpoint, load, remote
from alignment_core.models.generate import generate
from alignment_core.models.lora import add_adapter
from alignment_core.organism import weights, world

MISSING = [name for name in ("fastapi", "uvicorn", "starlette") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"transformers serve needs {', '.join(MISSING)}"),
]
STARTS_WITHIN = 240.0


@contextmanager
def served(port: int, folder: Path):
    """`transformers serve` with the organism on a loopback port, ready for a completion; killed at the end."""
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(weights.path())]
    command += ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    where = EndpointSettings(base_url=f"http://127.0.0.1:{port}/v1", model=str(weights.path()))
    with (folder / "log").open("ab") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as run:
        try:
            until = time.monotonic() + STARTS_WITHIN
            while True:
                try:
                    endpoint.check(where)
                    break
                except UserError:
                    assert run.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < until, (folder / "log").read_text()
                    time.sleep(0.5)
            yield run
        finally:
            run.kill()


def test_a_real_server_killed_halfway(tmp_path, organism):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    prompts = world.prompts("calibration", "harmful")[:30] + world.prompts("calibration", "benign")[:30]
    how = GenerateSettings(max_new_tokens=24, batch_size=2)
    there = how.model_copy(update={"endpoint": f"http://127.0.0.1:{port}/v1", "endpoint_model": str(weights.path())})
    file = tmp_path / "there.jsonl"

    def ask(loaded: load.Loaded = organism, at: Path = file):
        return generate(prompts, there, loaded, subject="s", seed=1, file=at)

    with served(port, tmp_path) as process:
        journal = remote.journal_file(file)

        def kill_halfway() -> None:
            while process.poll() is None:
                if journal.exists() and journal.read_text().count("\n") > len(prompts) // 2:
                    process.kill()
                time.sleep(0.005)

        killer = threading.Thread(target=kill_halfway)
        killer.start()
        with pytest.raises(Unfinished, match=r"of 60 replies are missing .* the same command asks for the rest"):
            ask()
        killer.join()
    done = journal.read_text().count("\n") - 1
    assert len(prompts) // 3 < done < len(prompts)
    with served(port, tmp_path):
        rows = ask()
        tuned = load.load(ModelSettings(device="cpu", dtype="float32"))
        tuned.model = add_adapter(tuned.model, LoraSettings(r=2))
        with pytest.raises(UserError, match="it can answer for the base model alone"):
            ask(tuned, tmp_path / "tuned.jsonl")
    assert read_json(remote.served_file(file))["route"] == "chat"
    here = generate(prompts, how, organism, subject="s", seed=1, file=tmp_path / "here.jsonl")
    # The same weights, template and dtype, but another build of the prompt's text and a batch of one.
    same = sum(a.text == b.text for a, b in zip(rows, here, strict=True))
    assert same >= 0.95 * len(rows)
    assert all(row.text for row in rows)
