"""The pipeline with an endpoint critic: `transformers serve` with the organism on loopback, killed and resumed."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.errors import Unfinished, UserError
from alignment_core.evaluation import results
from alignment_core.judging import critics
from alignment_core.judging.settings import CriticEndpoint, CriticSettings
from alignment_core.models import endpoint
from alignment_core.organism import corpus, grading, weights
from alignment_core.organism.principles import verdict
from alignment_core.records import Completion
from alignment_core.testing.runs import run_folders
from mini_cai.cli import app

MISSING = [name for name in ("fastapi", "uvicorn", "starlette") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"transformers serve needs {', '.join(MISSING)}"),
]
STARTS_WITHIN = 240.0


@contextmanager
def served(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The organism behind an OpenAI-compatible URL, ready for a completion; killed at the end."""
    (folder / "cache").mkdir(exist_ok=True)
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(weights.path())]
    command += ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "cache")}
    log = folder / "serve.log"
    with log.open("ab") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        try:
            until = time.monotonic() + STARTS_WITHIN
            where = CriticEndpoint(base_url=f"http://127.0.0.1:{port}/v1", model=str(weights.path()), attempts=1)
            while True:
                try:
                    endpoint.check(where)
                    break
                except UserError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < until, log.read_text()
                    time.sleep(0.5)
            yield process
        finally:
            process.kill()


def words(port: int) -> list[str]:
    """Settings of a small run whose critic, selecting and grading, is the server."""
    return [
        "critic.via=endpoint",
        "critic.scoring=generate",
        f"critic.endpoint.base_url=http://127.0.0.1:{port}/v1",
        f"critic.endpoint.model={weights.path()}",
        "critic.endpoint.max_tokens=40",
        "critic.endpoint.concurrency=2",
        "critic.endpoint.deadline=30",
        "critic.endpoint.attempts=2",
        "critic.endpoint.backoff=0.05",
        "critic.endpoint.give_up_after=4",
        "prompts.eval_split=calibration",
        "prompts.harmful=8",
        "prompts.benign=6",
        "prompts.borderline=2",
        "prompts.test_harmful=4",
        "prompts.test_benign=4",
        "prompts.test_borderline=2",
        "candidates.candidates=2",
        "compare.generate.candidates=1",
        "calibration.items=20",
        "calibration.attacks=2",
        "calibration.min_exact=0.6",
        "calibration.min_rank=0.3",
        "train.max_steps=3",
        "train.warmup_ratio=0",
    ]


def answers(run: Path) -> list[dict[str, Any]]:
    """What the critique step's journal holds, whole or not."""
    files = [
        *run.parent.glob("steps/critique-*/critiques.answers.jsonl"),
        *run.parent.glob("steps/.critique-*.partial/critiques.answers.jsonl"),
    ]
    rows = [json.loads(line) for f in files for line in f.read_text().splitlines() if line.endswith("}")]
    return [r for r in rows if "key" in r]


def test_the_pipeline_with_an_endpoint_critic_killed_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["run", "--runs", str(tmp_path / "runs"), *words(port)]
    run_folder = tmp_path / "runs" / "mini-cai"
    asked: list[str] = []
    real = endpoint.Endpoint.call

    async def counted(self: Any, messages: Any, max_tokens: Any = None) -> Any:
        asked.append(messages[-1].content)
        return await real(self, messages, max_tokens)

    monkeypatch.setattr(endpoint.Endpoint, "call", counted)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    mini_cai = str(Path(sys.executable).with_name("mini-cai"))
    with served(port, tmp_path):
        # The run itself is killed in the middle of the critique step: nothing of what was answered is lost.
        with subprocess.Popen([mini_cai, *command], env=environment, stdout=subprocess.DEVNULL) as first:
            until = time.monotonic() + STARTS_WITHIN
            while first.poll() is None and time.monotonic() < until:
                if (found := run_folders(run_folder)) and len(answers(found[0])) >= 10:
                    first.kill()
                time.sleep(0.01)
        run = run_folders(run_folder)[0]
        before = answers(run)
        assert 10 <= len(before) < 32
        assert not list(run.parent.glob("steps/critique-*"))
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert asked
    found = results.read(run / "results.json")
    assert {"baseline", "best", "random"} <= set(found.subjects)
    after = answers(run)
    assert after[: len(before)] == before
    finished = {row["key"] for row in before}
    assert len({r["key"] for r in after}) == len(after)
    assert finished <= {r["key"] for r in after}


def test_a_server_that_dies_leaves_missing_scores_and_the_rest_is_asked_again(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    items = corpus.critic_items("calibration", 60, 5)
    rows = [Completion(f"g{i}", "s", g.reply, g.prompt.text, g.prompt.kind) for i, g in enumerate(items)]
    where = CriticEndpoint(
        base_url=f"http://127.0.0.1:{port}/v1", model=str(weights.path()), deadline=30, concurrency=2, max_tokens=40,
        attempts=2, backoff=0.05, give_up_after=4,
    )  # fmt: skip
    critic = CriticSettings(via="endpoint", scoring="generate", style="organism", endpoint=where)
    journal = tmp_path / "critiques.answers.jsonl"
    with served(port, tmp_path) as process:

        def kill_halfway() -> None:
            while process.poll() is None:
                if journal.exists() and journal.read_text().count("\n") > len(rows) // 2:
                    process.kill()
                time.sleep(0.005)

        killer = threading.Thread(target=kill_halfway)
        killer.start()
        with pytest.raises(Unfinished, match=r"judge critic: \d+ of 60 verdicts are missing"):
            critics.criticise(rows, critic, critics.own_constitution(critic), tmp_path)
        killer.join()
    first = critics.criticise(rows, critic, critics.own_constitution(critic), tmp_path, accept_missing=True)
    done = [c for c in first if c.score is not None]
    assert len(rows) // 3 < len(done) < len(rows)
    assert all(c.why for c in first if c.score is None)
    with served(port, tmp_path):
        second = critics.criticise(rows, critic, critics.own_constitution(critic), tmp_path)
    assert [b for a, b in zip(first, second, strict=True) if a.score is not None] == done
    told = critics.own_constitution(critic).principles
    true = [verdict(told, grading.facts(g.prompt, g.reply))[0] for g in items]
    judged = [(c.score, score) for c, score in zip(second, true, strict=True) if c.score is not None]
    assert len(judged) > 0.9 * len(rows)
    assert sum(a == b for a, b in judged) > 0.7 * len(judged)
