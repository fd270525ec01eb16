"""The endpoint judge against a real server: `transformers serve` with the organism, killed halfway and restarted."""

from __future__ import annotations

import importlib.util
import os
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from alignment_core.errors import Unfinished, UserError
from alignment_core.judging.critics import own_constitution
from alignment_core.judging.judges import make_judges
from alignment_core.judging.settings import CriticEndpoint, CriticSettings, JudgeSettings
from alignment_core.models import endpoint
from alignment_core.organism import weights, world
from alignment_core.organism.critic import critic_prompt
from alignment_core.records import Completion

MISSING = [name for name in ("fastapi", "uvicorn", "starlette") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"transformers serve needs {', '.join(MISSING)}"),
]
STARTS_WITHIN = 240.0


@contextmanager
def served(port: int, cache: Path, log: Path):
    """`transformers serve` with the organism on a loopback port, ready for a completion; killed at the end."""
    cache.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(weights.path())]
    command += ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    # Its model list fails where the hub's cache folder does not exist.
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    with log.open("ab") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        try:
            until = time.monotonic() + STARTS_WITHIN
            while True:
                try:
                    endpoint.check(settings(port).critic.endpoint)
                    break
                except UserError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < until, log.read_text()
                    time.sleep(0.5)
            yield process
        finally:
            process.kill()


def settings(port: int) -> JudgeSettings:
    where = CriticEndpoint(
        base_url=f"http://127.0.0.1:{port}/v1", model=str(weights.path()), deadline=30, concurrency=2, max_tokens=32,
        attempts=2, backoff=0.05, give_up_after=4,
    )  # fmt: skip
    return JudgeSettings(critic=CriticSettings(via="endpoint", scoring="generate", endpoint=where))


def completions() -> list[Completion]:
    rng = random.Random(7)
    return [
        Completion(f"{p.id}-{how}", "s", world.respond(p, how, rng), p.text, p.kind)
        for p in world.prompts("calibration", "harmful")[:30]
        for how in ("refuse", "comply")
    ]


def test_killed_halfway_and_restarted(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    asked: list[str] = []
    real = endpoint.Endpoint.call

    async def counted(self, messages, max_tokens=None):
        asked.append(messages[-1].content)
        return await real(self, messages, max_tokens)

    monkeypatch.setattr(endpoint.Endpoint, "call", counted)
    rows, file = completions(), tmp_path / "v.jsonl"
    (judge,) = make_judges("critic", settings(port))
    answers = tmp_path / "answers_v.answers.jsonl"

    with served(port, tmp_path / "cache", tmp_path / "log") as process:

        def kill_halfway() -> None:
            while process.poll() is None:
                if answers.exists() and answers.read_text().count("\n") > len(rows) // 2:
                    process.kill()
                time.sleep(0.005)

        killer = threading.Thread(target=kill_halfway)
        killer.start()
        with pytest.raises(Unfinished, match=r"judge critic: \d+ of 60 verdicts are missing"):
            judge.judge(rows, file)
        killer.join()
    first = judge.judge(rows, file, accept_missing=True)
    done = [v for v in first if not v.missing]
    assert len(rows) // 3 < len(done) < len(rows)
    assert all(v.label is None and v.rule for v in first if v.missing)

    with served(port, tmp_path / "cache", tmp_path / "log"):
        asked.clear()
        second = judge.judge(rows, file)
    told = own_constitution(CriticSettings()).principles
    finished = {critic_prompt(c.prompt, c.text, told) for c, v in zip(rows, first, strict=True) if not v.missing}
    assert asked
    assert finished.isdisjoint(asked)
    assert [b for a, b in zip(first, second, strict=True) if not a.missing] == done
    judged = [v for v in second if not v.missing]
    assert len(judged) > 0.9 * len(rows)
    right = sum(v.label == ("refusal" if v.prompt_id.endswith("refuse") else "compliance") for v in judged)
    assert right > 0.8 * len(judged)
