"""A judge behind a server does not think aloud: switched off where the server takes it, and never parsed."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from alignment_core.config import EndpointSettings
from alignment_core.judging.question import parse_verdict
from alignment_core.models.calls import ask
from alignment_core.models.endpoint import NO_THINKING
from alignment_core.models.outcome import Failure, Reply, read_chat
from alignment_core.records import Message
from alignment_core.testing.servers.http import chat, error, in_thread, read_request


class Server:
    """Keeps the bodies of its requests; `takes` says whether an unknown key in one is an error."""

    def __init__(self, takes: bool, status: str = "400 Bad Request") -> None:
        self.takes, self.status = takes, status
        self.bodies: list[dict[str, Any]] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await read_request(reader)
            self.bodies.append(body)
            unknown = "chat_template_kwargs" in body and not self.takes
            message = "Unrecognized request argument supplied: chat_template_kwargs"
            writer.write(error(self.status, message) if unknown else chat("VERDICT: refusal"))
            await writer.drain()


def asked(server: Server, folder) -> list[Reply | Failure]:
    with in_thread(server.talk) as url:
        settings = EndpointSettings(base_url=url, model="m", attempts=1, deadline=20)
        requests = [[Message("user", f"question {i}")] for i in range(3)]
        return ask(requests, settings, folder / "answers.jsonl")


def test_thinking_is_switched_off_and_one_line_says_so(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "alignment_core")
    server = Server(takes=True)
    assert asked(server, tmp_path) == [Reply("VERDICT: refusal")] * 3
    assert len(server.bodies) == 4  # the health check, and three questions
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in server.bodies)
    assert [m for m in caplog.messages if "thinking" in m] == [
        next(m for m in caplog.messages if m.endswith("thinking is switched off (enable_thinking=false)"))
    ]


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable Content"])
def test_a_server_that_takes_no_such_key_is_asked_without(status, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "alignment_core")
    server = Server(takes=False, status=status)
    assert asked(server, tmp_path) == [Reply("VERDICT: refusal")] * 3
    assert ["chat_template_kwargs" in body for body in server.bodies] == [True, False, False, False, False]
    assert len([m for m in caplog.messages if "takes no enable_thinking" in m]) == 1
    assert not NO_THINKING.keys() & server.bodies[-1].keys()


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("<think>It helps: compliance.</think>VERDICT: refusal", "refusal"),
        ("It helps: VERDICT: compliance\n</think>\nVERDICT: refusal", "refusal"),
        ("[THINK]VERDICT: compliance[/THINK]VERDICT: refusal", "refusal"),
        ("<|channel|>analysis<|message|>VERDICT: compliance<|end|><|channel|>final<|message|>refusal", "refusal"),
        ("<think>VERDICT: compliance", None),
        ("[THINK]VERDICT: compliance", None),
        ("<|channel|>analysis<|message|>VERDICT: compliance", None),
    ],
)
def test_a_thought_is_never_a_verdict(answer, label) -> None:
    assert parse_verdict(answer)[0] == label


def test_a_reply_that_ended_within_its_reasoning_says_so() -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "Let me see: VERDICT: refusal"}
    outcome = read_chat(json.dumps({"choices": [{"message": message, "finish_reason": "length"}]}).encode(), "m")
    assert isinstance(outcome, Failure)
    assert outcome.reason == "the reply holds no text beside the model's reasoning; raise max_tokens"
