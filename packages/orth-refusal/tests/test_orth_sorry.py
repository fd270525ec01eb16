"""sorry-bench against servers on loopback: good, slow, failing and dead; and (slow) a real `transformers serve`."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alignment_core.config import EndpointSettings, SourceSettings
from alignment_core.errors import UserError
from alignment_core.evaluation import results
from alignment_core.judging.settings import CriticEndpoint, CriticSettings, JudgeSettings
from alignment_core.models import endpoint
from alignment_core.organism import weights, world
from orth_refusal import sorry_bench
from orth_refusal.cli import app
from orth_refusal.config import OrthConfig, SorryBenchConfig

Answer = Callable[[str], tuple[int, str]]
QUESTIONS = 12


def questions(folder: Path, style: str = "base") -> Path:
    rows = [
        {"question_id": i, "category": str(i % 3 + 1), "turns": [f"Placeholder question {i}"], "prompt_style": style}
        for i in range(QUESTIONS)
    ]
    name = "question.jsonl" if style == "base" else f"question_{style}.jsonl"
    (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return folder


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = body["messages"][-1]["content"]
        server.asked.append(said)
        status, text = server.answer(said)
        reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)
        except BrokenPipeError:
            pass

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.answer, server.asked = answer, []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def at(url: str, deadline: float = 10.0) -> EndpointSettings:
    return EndpointSettings(base_url=url, model="m", deadline=deadline, attempts=1, backoff=0.01, concurrency=4)


def config(source: Path, judge: str = "", **arms: EndpointSettings) -> OrthConfig:
    bench = SorryBenchConfig(source=SourceSettings(path=source), **arms)
    judging = JudgeSettings(endpoint=at(judge)) if judge else JudgeSettings()
    return OrthConfig(sorry_bench=bench, judging=judging)


def refusing(said: str) -> tuple[int, str]:
    return 200, "I'm sorry, but I can't help with that."


def complying(said: str) -> tuple[int, str]:
    return 200, "Sure. First take the placeholder, then put it down, and finally leave it there."


def failing(said: str) -> tuple[int, str]:
    return (200, "OK") if said == "Say OK." else (500, "")


def half(said: str) -> tuple[int, str]:
    number = int(said.split()[-1]) if said.split()[-1].isdigit() else 0
    return failing(said) if number % 2 else complying(said)


def judging(said: str) -> tuple[int, str]:
    return 200, "VERDICT: compliance" if "Sure." in said else "VERDICT: refusal"


def test_rates_by_category_and_style_with_intervals_and_the_originals_file(tmp_path: Path) -> None:
    questions(tmp_path)
    questions(tmp_path, "slang")
    with served(refusing) as (base, _), served(complying) as (vanilla, _):
        settings = config(tmp_path, base=at(base), vanilla=at(vanilla))
        settings = settings.model_copy(
            update={"sorry_bench": settings.sorry_bench.model_copy(update={"styles": ("base", "slang")})}
        )
        text = sorry_bench.run(settings, tmp_path / "out")
    found = results.read(tmp_path / "out" / "results.json")
    assert found.measurement("fulfillment_rate", "base").value == 0.0
    whole = found.measurement("fulfillment_rate", "vanilla")
    assert (whole.value, whole.n, whole.missing) == (1.0, 24, 0)
    assert whole.low is not None
    assert 0.7 < whole.low < 1
    category = found.measurement("fulfillment_rate", "vanilla", at={"category": "2"})
    assert (category.n, category.value) == (8, 1.0)
    assert found.measurement("fulfillment_rate", "vanilla", at={"style": "slang"}).n == 12
    compared = found.comparison("fulfillment_rate", "base", "vanilla")
    assert compared is not None
    assert compared.difference == 1.0
    rows = json.loads((tmp_path / "out" / "sorry_vanilla.json").read_text())
    assert {"model", "results", "fulfillment_rate"} <= set(rows)
    assert set(rows["results"][0]) == {"prompt", "response", "verdict"}
    assert {r["verdict"] for r in rows["results"]} == {"fulfillment"}
    assert "category" in text
    assert "1.00 [" in text


def test_a_failed_call_is_missing_and_never_fulfilled(tmp_path: Path) -> None:
    # Upstream: a failed call gave an empty text, which was judged "fulfillment".
    with served(half) as (url, asked):
        settings = config(questions(tmp_path), vanilla=at(url))
        text = sorry_bench.run(settings, tmp_path / "out", accept_missing=True)
        rows = json.loads((tmp_path / "out" / "sorry_vanilla.json").read_text())
        assert [r["verdict"] for r in rows["results"]].count(None) == 6
        assert all(r["response"] is None for r in rows["results"] if r["verdict"] is None)
        assert (rows["fulfillment_rate"], rows["n"], rows["missing"]) == (1.0, 6, 6)
        assert "6 calls and 0 verdicts of 12 are missing" in text
        asked.clear()
        sorry_bench.run(settings, tmp_path / "out", accept_missing=True)  # again: only what is missing
    assert len([a for a in asked if a != "Say OK."]) == 6


def command(*words: str) -> Any:
    return CliRunner().invoke(app, ["sorry-bench", *words])


def words_of(folder: Path, vanilla: str, judge: str = "") -> list[str]:
    given = {"sorry_bench.vanilla": vanilla, "judging.endpoint": judge}
    servers = [f"{k}.{name}={v}" for k, url in given.items() if url for name, v in (("base_url", url), ("model", "m"))]
    quick = [f"{k}.{how}" for k, url in given.items() if url for how in ("attempts=1", "backoff=0.01")]
    return ["--quiet", "--runs", str(folder), f"sorry_bench.source.path={folder}", *servers, *quick]


def test_calls_that_failed_in_passing_leave_it_unfinished_and_are_asked_again(tmp_path: Path) -> None:
    broken = True

    def mended(said: str) -> tuple[int, str]:
        return half(said) if broken else complying(said)

    questions(tmp_path)
    with served(mended) as (url, asked):
        first = command(*words_of(tmp_path, url))
        assert first.exit_code == 2
        assert "sorry-bench: vanilla: 6 of 12 replies are missing because calls failed" in first.stderr
        assert len(first.stderr.strip().splitlines()) == 1
        assert not list(tmp_path.rglob("results.json"))
        broken = False
        asked.clear()
        second = command(*words_of(tmp_path, url))
    assert second.exit_code == 0, second.output
    assert len([a for a in asked if a != "Say OK."]) == 6
    (file,) = tmp_path.rglob("sorry_vanilla.json")
    assert json.loads(file.read_text())["n"] == 12


def test_what_came_is_counted_where_missing_calls_are_accepted(tmp_path: Path) -> None:
    questions(tmp_path)
    with served(half) as (url, _):
        done = command("--accept-missing", *words_of(tmp_path, url))
    assert done.exit_code == 0, done.output
    assert "vanilla: 6 calls and 0 verdicts of 12 are missing" in done.output


def test_a_judge_that_dies_costs_no_reply_and_gives_no_verdict(tmp_path: Path) -> None:
    dies = True

    def dying(said: str) -> tuple[int, str]:
        return failing(said) if dies else judging(said)

    questions(tmp_path)
    with served(complying) as (url, asked), served(dying) as (judge, _):
        first = command(*words_of(tmp_path, url, judge))
        assert first.exit_code == 2
        assert "12 of 12 verdicts are missing" in first.stderr
        assert not list(tmp_path.rglob("sorry_vanilla.json"))
        dies = False
        asked.clear()
        second = command(*words_of(tmp_path, url, judge))
        assert asked == []
    assert second.exit_code == 0, second.output
    (file,) = tmp_path.rglob("sorry_vanilla.json")
    assert json.loads(file.read_text())["fulfillment_rate"] == 1.0


def test_a_judge_that_cannot_be_had_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    questions(tmp_path)
    with served(complying) as (url, asked):
        for extra in ([], ["--dry-run"]):
            done = command(*words_of(tmp_path, url, dead), *extra)
            assert done.exit_code == 2
            assert "start the server" in done.stderr
        unknown = command(*words_of(tmp_path, url), "judge=rulez")
    assert unknown.exit_code == 2
    assert "did you mean 'rules'" in unknown.stderr
    assert asked == []


def test_any_registered_judge_judges(tmp_path: Path) -> None:
    questions(tmp_path)
    with served(refusing) as (url, _):
        done = command(*words_of(tmp_path, url), "judge=broad53,rules")
    assert done.exit_code == 0, done.output
    (file,) = tmp_path.rglob("verdicts_vanilla.jsonl")
    assert {json.loads(line)["judge"] for line in file.read_text().splitlines()} == {"broad53"}


def test_a_slow_judge_is_missing(tmp_path: Path) -> None:
    def slow(said: str) -> tuple[int, str]:
        if "question 3" in said or "question 5" in said:
            time.sleep(3)
        return judging(said)

    with served(complying) as (url, _), served(slow) as (judge, _):
        settings = config(questions(tmp_path), judge, vanilla=at(url))
        late = settings.judging.endpoint.model_copy(update={"deadline": 1.0, "concurrency": 12})
        settings = settings.model_copy(update={"judging": JudgeSettings(endpoint=late)})
        text = sorry_bench.run(settings, tmp_path / "out", accept_missing=True)
    rows = json.loads((tmp_path / "out" / "sorry_vanilla.json").read_text())
    assert rows["missing"] >= 2
    assert rows["fulfillment_rate"] == 1.0
    assert "verdicts of 12 are missing" in text


def test_an_endpoint_that_answers_nothing_is_one_line(tmp_path: Path) -> None:
    with served(failing) as (url, _):
        settings = config(questions(tmp_path), vanilla=at(url))
        with pytest.raises(UserError, match="vanilla answered none of 12 questions"):
            sorry_bench.run(settings, tmp_path / "out", accept_missing=True)


def test_no_endpoint_and_an_unknown_style_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no endpoint names a model"):
        sorry_bench.run(config(questions(tmp_path)), tmp_path / "out")
    settings = config(tmp_path, base=at("http://127.0.0.1:9/v1"))
    wrong = settings.sorry_bench.model_copy(update={"styles": ("bas",)})
    with pytest.raises(UserError, match="did you mean 'base'"):
        sorry_bench.run(settings.model_copy(update={"sorry_bench": wrong}), tmp_path / "out")


def test_a_limit_takes_the_categories_in_turns(tmp_path: Path) -> None:
    settings = config(questions(tmp_path))
    limited = settings.sorry_bench.model_copy(update={"limit": 6})
    found = sorry_bench.questions(settings.model_copy(update={"sorry_bench": limited}))
    assert sorted(p.category for p in found) == ["1", "1", "2", "2", "3", "3"]


MISSING = [name for name in ("fastapi", "uvicorn", "starlette") if importlib.util.find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"transformers serve needs {', '.join(MISSING)}")
def test_against_a_real_server_with_a_dead_a_slow_and_a_good_judge(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    prompts = world.prompts("calibration", "harmful")[:12]
    rows = [
        {"question_id": i, "category": p.category, "turns": [p.text], "prompt_style": "base"}
        for i, p in enumerate(prompts)
    ]
    (tmp_path / "question.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(weights.path())]
    command += ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    (tmp_path / "cache").mkdir()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")}
    model = EndpointSettings(base_url=f"http://127.0.0.1:{port}/v1", model=str(weights.path()), deadline=60,
                             max_tokens=64, concurrency=2)  # fmt: skip
    arm = {"base": model, "vanilla": model, "orthogonal": model}
    settings = OrthConfig(sorry_bench=SorryBenchConfig(source=SourceSettings(path=tmp_path), **arm))

    def judged_by(judge: EndpointSettings) -> OrthConfig:
        where = CriticEndpoint(**judge.model_dump())
        critic = CriticSettings(via="endpoint", scoring="generate", endpoint=where)
        return settings.model_copy(update={"judge": "critic", "judging": JudgeSettings(critic=critic)})

    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            until = time.monotonic() + 240
            while True:
                try:
                    endpoint.check(model)
                    break
                except UserError:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    assert time.monotonic() < until
                    time.sleep(0.5)
            out = tmp_path / "out"
            dead = at("http://127.0.0.1:9/v1")
            with pytest.raises(UserError, match=r"127\.0\.0\.1:9"):
                sorry_bench.run(judged_by(dead), out)
            slow = model.model_copy(update={"deadline": 0.02, "attempts": 1})
            with pytest.raises(UserError, match="no whole reply"):
                sorry_bench.run(judged_by(slow), out)
            assert not list(out.glob("sorry_*.json"))
            text = sorry_bench.run(judged_by(model), out)
        finally:
            process.kill()
    assert "all" in text
    found = results.read(out / "results.json")
    for name in ("base", "vanilla", "orthogonal"):
        measured = found.measurement("fulfillment_rate", name)
        assert (measured.n or 0) + measured.missing == 12
        assert (measured.n or 0) >= 10
