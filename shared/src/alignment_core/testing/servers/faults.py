"""A chat endpoint that misbehaves on request: the last message names the fault.

`started()` runs it as a process of its own, so that its work delays none of the calls it answers.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from alignment_core.testing.servers.http import HOST, chat, error, header, read_request, response

GOOD = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "VERDICT: compliance"}}]})
HTML = b"<!doctype html><html><body>VERDICT: compliance</body></html>"
HUGE = b'{"choices": [{"message": {"content": "' + b"x" * 10_000_000 + b'"}}]}'
_SAID = "VERDICT: refusal"
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "zero_width": "\u200b".join,
    "joined": lambda key: key[:3] + "\u2060\u00ad\u034f" + key[3:],
    "newlines": "\n".join,
    "as_json": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "percent": lambda key: "".join(f"%{ord(c):02X}" for c in key),
    "percent_twice": lambda key: "".join(f"%25{ord(c):02x}" for c in key),
    "percent_zero_width": "%E2%80%8B".join,
    "escaped": lambda key: key.replace("/", "\\/"),
}
"""Ways in which a server may say the key that it was sent."""
PLAIN: dict[str, bytes] = {
    "ok": response("200 OK", GOOD),
    "html": response("200 OK", HTML, "text/html"),
    "html_as_json": response("200 OK", HTML),
    "unauthorised": error("401 Unauthorized", _SAID),
    "forbidden": error("403 Forbidden", _SAID),
    "not_found": error("404 Not Found", _SAID),
    "slow_down_120": error("429 Too Many Requests", _SAID, "Retry-After: 120"),
    "slow_down_nan": error("429 Too Many Requests", _SAID, "Retry-After: nan"),
    "refused": error("400 Bad Request", _SAID),
    "too_long": error("413 Content Too Large", _SAID),
    "unprocessable": error("422 Unprocessable Content", _SAID),
    "unpaid": error("402 Payment Required", _SAID),
    "broken": error("500 Internal Server Error", _SAID),
    "gateway": response("502 Bad Gateway", HTML, "text/html"),
    "redirect": error("302 Found", _SAID, "Location: http://127.0.0.1:9/v1/chat/completions"),
    "huge": response("200 OK", HUGE),
    "huge_error": response("500 Internal Server Error", HUGE),
    "bomb": response("200 OK", gzip.compress(HUGE), "application/json", "Content-Encoding: gzip"),
    "half_json": response("200 OK", GOOD[:40]),
    "no_choices": response("200 OK", '{"choices": []}'),
    "a_list": response("200 OK", "[1, 2]"),
    "deep": response("200 OK", "[" * 100_000),
    "null": chat(None),
    "blank": chat(" \n"),
    "filtered": response(
        "200 OK", '{"choices": [{"message": {"content": "VERDICT: compliance"}, "finish_reason": "content_filter"}]}'
    ),
    "another": response("200 OK", json.dumps({"model": "another", **json.loads(GOOD)})),
    "surplus": response("200 OK", GOOD) + chat("VERDICT: refusal"),
    "number": chat(5),
    "garbage": b"\x00\xff not http at all\r\n\r\n",
    "cut": response("200 OK", GOOD)[:-20],
    "empty": b"",
}
FOREVER = ("hang", "drip_head", "drip_body", "drip_error", "endless")
FAULTS = (*(k for k in PLAIN if k != "ok"), *FOREVER, "reset", "flaky")


class Misbehaving:
    """What was asked how often, and the answer to it."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is to end."""
        head, body = await read_request(reader)
        text = body["messages"][-1]["content"]
        fault, _, name = text.partition(" ")
        self.asked[text] += 1
        if fault == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if fault in FOREVER:
            await _forever(fault, writer)
            return False
        if fault == "count":
            writer.write(chat(str(self.asked[name])))
        elif fault == "echo":
            writer.write(error("400 Bad Request", f"authorization: {header(head, 'authorization')}"))
        elif fault.startswith("repeat"):
            spelling, _, how = name.partition(" ")
            said = f"Your key is {SPELLINGS[spelling](header(head, 'authorization').split()[-1])}."
            writer.write(response(f"{fault[6:]} x", json.dumps(_message(said), ensure_ascii=how == "ascii")))
        elif fault == "flaky":
            writer.write(PLAIN["ok"] if self.asked[text] > 1 else PLAIN["broken"])
        else:
            writer.write(PLAIN.get(fault, PLAIN["ok"]))
        return fault not in ("cut", "empty", "garbage")


def _message(content: str) -> dict[str, object]:
    return {"choices": [{"message": {"content": content}}]}


async def _forever(fault: str, writer: asyncio.StreamWriter) -> None:
    chunked = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    heads = {
        "drip_body": b"HTTP/1.1 200 OK\r\n" + chunked,
        "drip_error": b"HTTP/1.1 500 Internal Server Error\r\n" + chunked,
        "endless": b"HTTP/1.1 200 OK\r\n" + chunked,
        "drip_head": b"HTTP/1.1 200 OK\r\n",
        "hang": b"",
    }
    parts = {"drip_head": b"X-A: b\r\n", "hang": b"", "endless": b"2000\r\n" + b" " * 8192 + b"\r\n"}
    writer.write(heads[fault])
    while not writer.is_closing():
        writer.write(parts.get(fault, b"1\r\n \r\n"))
        await writer.drain()
        await asyncio.sleep(0.05)


async def _main() -> None:
    server = await asyncio.start_server(Misbehaving().talk, HOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def started() -> Iterator[str]:
    """The endpoint in a process of its own; yields its address."""
    command = [sys.executable, "-m", "alignment_core.testing.servers.faults"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://{HOST}:{int(process.stdout.readline())}/v1"
        process.kill()


if __name__ == "__main__":
    asyncio.run(_main())
