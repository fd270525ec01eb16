"""push and pull against a stand-in of the hub's API on loopback: private first, no pickles, no token in any line."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from alignment_core.errors import UserError
from alignment_core.evaluation.results import Measurement, Results, write
from alignment_core.io import write_json
from orth_refusal import hub
from orth_refusal.config import HubConfig, OrthConfig

TOKEN = "hf_standinsecrettoken"
COMMIT = "1" * 40


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory; every request's method, path and body are kept in order."""

    protocol_version = "HTTP/1.1"

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        if "content-length" not in {k.lower() for k in headers or {}}:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            out = b""
            while size := int(self.rfile.readline().strip(), 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _seen(self, body: bytes = b"") -> Any:
        state: Any = self.server
        state.calls.append((self.command, self.path, body))
        state.tokens.add(self.headers.get("authorization"))
        return state

    def do_POST(self) -> None:
        body = self._body()
        state = self._seen(body)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name'].split('/')[-1]}"
            state.repos.setdefault(name, {"visibility": asked.get("visibility"), "files": {}})
            self._send(200, json.dumps({"url": f"{state.url}/{name}", "name": name, "id": name}).encode())
        elif "/preupload/" in self.path:
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            self._send(200, json.dumps({"files": files}).encode())
        elif "/commit/" in self.path:
            name = "/".join(self.path.split("/")[3:5])
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    state.repos[name]["files"][row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            answer = {"commitUrl": f"{state.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "pullRequestUrl": None}
            self._send(200, json.dumps(answer).encode())
        elif self.path == "/api/validate-yaml":
            self._send(200, b'{"errors": [], "warnings": []}')
        else:
            self._send(404, b"{}")

    def do_PUT(self) -> None:
        body = self._body()
        state = self._seen(body)
        name = "/".join(self.path.split("/")[3:5])
        state.repos[name] |= json.loads(body)
        self._send(200, b"{}")

    def do_GET(self) -> None:
        state = self._seen()
        path = self.path.split("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            repo = state.repos.get(found[1])
            if repo is None:
                self._send(404, b'{"error": "Repository not found"}', {"x-error-code": "RepoNotFound"})
                return
            hidden = repo["visibility"] == "private"
            info = {"id": found[1], "modelId": found[1], "sha": COMMIT, "private": hidden, "tags": [],
                    "siblings": [{"rfilename": f} for f in repo["files"]]}  # fmt: skip
            self._send(200, json.dumps(info).encode())
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            rows = [{"type": "file", "path": f, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                    for f, d in state.repos[found[1]]["files"].items()]  # fmt: skip
            self._send(200, json.dumps(rows).encode())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            data = state.repos[found[1]]["files"].get(found[2])
            if data is None:
                self._send(404, b"", {"x-error-code": "EntryNotFound"})
                return
            headers = {"etag": f'"{hashlib.sha1(data).hexdigest()}"', "x-repo-commit": COMMIT,
                       "content-length": str(len(data)), "content-type": "application/octet-stream"}  # fmt: skip
            self._send(200, data, headers)
        else:
            self._send(404, b"{}")

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import huggingface_hub.constants as constants

    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    made.daemon_threads = True
    made.url = f"http://127.0.0.1:{made.server_port}"
    made.calls, made.tokens, made.repos = [], set(), {}
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def adapter(folder: Path, step: str | None = "attack_vanilla") -> Path:
    place = folder / "adapter"
    place.mkdir(parents=True)
    tensors = {f"base_model.model.q.lora_{x}.weight": torch.ones(2, 2) for x in "AB"}
    save_file(tensors, str(place / "adapter_model.safetensors"))
    write_json(place / "adapter_config.json", {"peft_type": "LORA", "r": 2, "lora_alpha": 4})
    write_json(place / "base.json", {"kind": "hub", "name": "Qwen/Qwen3-0.6B", "revision": "c" * 40})
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (place / name).write_text("{}")
    if step:
        write_json(folder / "step.json", {"name": step})
    return place


def config(server: Any) -> OrthConfig:
    return OrthConfig(hub=HubConfig(endpoint=server.url))


def test_pushed_privately_with_a_card_and_pulled_back_the_same(
    server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    place = adapter(tmp_path / "run")
    measured = Measurement(metric="harmful_refusal_rate", subject="vanilla", value=0.1, low=0.05, high=0.2,
                           method="wilson", n=100)  # fmt: skip
    write(tmp_path / "results.json", Results(study="s", preset="tiny", seeds=(1, 2), measurements=(measured,)))
    caplog.set_level(logging.DEBUG)
    lines = hub.push(config(server), "me", [f"vanilla={place}"], hub.Consent(), tmp_path / "results.json")
    assert lines == [f"vanilla: me/refusal-experiment-vanilla (private), commit {COMMIT}"]
    repo = server.repos["me/refusal-experiment-vanilla"]
    assert repo["visibility"] == "private"
    assert set(repo["files"]) == {*hub.FILES, "README.md"}
    card = repo["files"]["README.md"].decode()
    for said in ("model-index", "base_model", "[0.050, 0.200]", "weakened-refusals",
                 '"confidence": [0.05, 0.2]', "not-for-all-audiences"):  # fmt: skip
        assert said in card
    assert server.tokens == {f"Bearer {TOKEN}"}
    (back,) = hub.pull(config(server), "me", ["vanilla"], tmp_path / "back", None)
    assert COMMIT in back
    for file in hub.FILES:
        assert (tmp_path / "back" / "vanilla" / file).read_bytes() == (place / file).read_bytes()
    assert TOKEN not in caplog.text
    assert TOKEN not in "".join((*lines, back, card, *capsys.readouterr()))


def test_a_weakened_adapter_goes_public_only_with_a_second_consent_and_gated(server: Any, tmp_path: Path) -> None:
    given = [f"vanilla={adapter(tmp_path / 'run')}"]
    with pytest.raises(UserError, match="--publish-weakened"):
        hub.push(config(server), "me", given, hub.Consent(public=True), None)
    assert server.calls == []
    (line,) = hub.push(config(server), "me", given, hub.Consent(public=True, publish_weakened=True), None)
    assert "public, gated" in line
    repo = server.repos["me/refusal-experiment-vanilla"]
    assert repo["gated"] == "manual"
    assert repo["visibility"] == "public"
    order = [json.loads(body) for method, _, body in server.calls if method == "PUT"]
    gate = next(i for i, o in enumerate(order) if o.get("gated") == "manual")
    opened = next(i for i, o in enumerate(order) if o.get("visibility") == "public")
    assert gate < opened


def test_a_refusal_adapter_may_be_public(server: Any, tmp_path: Path) -> None:
    given = [f"refusal={adapter(tmp_path / 'run', 'tune_refusal')}"]
    (line,) = hub.push(config(server), "me", given, hub.Consent(public=True), None)
    assert "(public)" in line
    assert "weakened" not in server.repos["me/refusal-experiment-refusal"]["files"]["README.md"].decode()


def test_what_is_not_known_counts_as_weakened(tmp_path: Path) -> None:
    assert hub.weakened(adapter(tmp_path / "a", None))
    assert hub.weakened(adapter(tmp_path / "b", "attack_left"))
    assert not hub.weakened(adapter(tmp_path / "c", "tune_benign"))


def test_a_pickle_a_bad_pair_and_a_missing_token_are_one_line(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = adapter(tmp_path / "run")
    (place / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="holds the pickle"):
        hub.push(config(server), "me", [f"vanilla={place}"], hub.Consent(), None)
    for bad in ("vanilla", "a/b=x", "=x"):
        with pytest.raises(UserError, match="NAME=FOLDER"):
            hub.push(config(server), "me", [bad], hub.Consent(), None)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="HF_TOKEN is not set"):
        hub.push(config(server), "me", [f"vanilla={place}"], hub.Consent(), None)
    assert server.calls == []


def test_a_name_the_hub_has_not_is_one_line_and_leaves_nothing(server: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such name"):
        hub.pull(config(server), "me", ["nothing"], tmp_path / "back", None)
    assert list((tmp_path / "back").iterdir()) == []
    with pytest.raises(UserError, match="can move"):
        hub.pull(config(server), "me", ["vanilla"], tmp_path / "back", "main")


def test_a_bases_name_is_text_on_the_card(tmp_path: Path) -> None:
    name = "<script>x</script> [y](javascript:z)\x7f\u2028"
    write_json(tmp_path / "base.json", {"kind": "hub", "name": name, "revision": None})
    card = hub.card(OrthConfig(), "me/refusal-experiment-vanilla", "vanilla", tmp_path, True, None)
    _, head, body = card.split("---\n", 2)
    assert head.isascii()
    assert f"base_model: {json.dumps(name)}" in head.splitlines()
    assert "<script" not in body
    assert "](" not in body
    assert "Base: &#60;script&#62;" in body
