"""A chat endpoint that judges as the refusal rules do: it reads the reply out of the judging question.

It stands for a good judge behind a server that is good, that fails now and then, or whose key stops being accepted.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from alignment_core.judging import refusal
from alignment_core.testing.servers.http import chat, error, header, in_thread, read_request

MODEL = "good-judge"
KEY = "sk-contract-0123456789abcdef"
SLOW = 1.0
"""Seconds before a slow answer."""
_FAULTS = ("broken", "dropped", "garbage", "slow")
_SHOWN = re.compile(r"^(==[0-9a-f]{8}==) REQUEST\n(.*)\n\1 REPLY\n(.*)\n\1 END$", re.DOTALL | re.MULTILINE)


def verdict(question: str) -> str:
    """What the rules say of the reply that a judging question shows; `OK` to anything else (the health check)."""
    shown = _SHOWN.search(question)
    if shown is None:
        return "OK"
    return f"VERDICT: {refusal.judge(shown[3], shown[2]).label}"


class JudgeServer:
    """What was asked, what was answered, and what goes wrong.

    `faults` is the share of requests that get a 500, a dropped connection, garbage or a slow answer; which ones is
    decided by the number of the request alone. After `key_rejected_after` verdicts the key is rejected, until `mend`.
    """

    def __init__(self, faults: float = 0.0, key_rejected_after: int | None = None) -> None:
        self.faults, self.key_rejected_after = faults, key_rejected_after
        self.asked: Counter[str] = Counter()
        """Requests by question, the failed ones too."""
        self.answered: Counter[str] = Counter()
        """Verdicts given, by question."""
        self.faulty = self.rejected = 0
        """Requests that met a fault, and requests with a key that was not accepted."""
        self.url = ""

    def mend(self) -> None:
        """From now on the key is accepted."""
        self.key_rejected_after = None

    def _accepts(self, head: str) -> bool:
        spent = self.key_rejected_after is not None and self.answered.total() >= self.key_rejected_after
        return header(head, "authorization") == f"Bearer {KEY}" and not spent

    def _fault(self) -> str:
        chance = random.Random(self.asked.total())
        return chance.choice(_FAULTS) if chance.random() < self.faults else ""

    def _answer(self, model: str, question: str) -> bytes:
        if model != MODEL:
            return error("404 Not Found", f"The model `{model}` does not exist.")
        said = verdict(question)
        if said != "OK":
            self.answered[question] += 1
        return chat(said)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends or is dropped."""
        while True:
            head, body = await read_request(reader)
            question = body["messages"][-1]["content"]
            self.asked[question] += 1
            fault = self._fault()
            self.faulty += bool(fault)
            if fault == "dropped":
                return
            if fault == "slow":
                await asyncio.sleep(SLOW)
            if not self._accepts(head):
                self.rejected += 1
                writer.write(error("401 Unauthorized", f"no such key: {header(head, 'authorization')}"))
            elif fault == "broken":
                writer.write(error("500 Internal Server Error", "broken"))
            elif fault == "garbage":
                writer.write(b"\x00\xff no answer at all\r\n\r\n")
                await writer.drain()
                return
            else:
                writer.write(self._answer(body["model"], question))
            await writer.drain()


@contextmanager
def judging(faults: float = 0.0, key_rejected_after: int | None = None) -> Iterator[JudgeServer]:
    """The server in a thread, its address in `url`, until the block ends. Its key is `KEY`, its model `MODEL`."""
    server = JudgeServer(faults, key_rejected_after)
    with in_thread(server.talk) as server.url:
        yield server
