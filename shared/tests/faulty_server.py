"""A chat endpoint that misbehaves on request: the last message names the fault. Run as a script, it prints its port.

Not a test: the endpoint tests start it as a process of its own, so that its work delays none of the calls it answers.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections import Counter

GOOD = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "VERDICT: compliance"}}]})
HTML = b"<!doctype html><html><body>VERDICT: compliance</body></html>"
HUGE = b'{"choices": [{"message": {"content": "' + b"x" * 10_000_000 + b'"}}]}'
SPELLINGS = {
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
asked: Counter[str] = Counter()


def whole(status: str, body: bytes, kind: str = "application/json", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def answer(content: object) -> bytes:
    return whole("200 OK", json.dumps({"choices": [{"message": {"content": content}}]}).encode())


def chat(content: str, ascii_only: bool) -> bytes:
    """A reply's JSON, with other characters escaped or not."""
    made = {"choices": [{"message": {"content": content}}]}
    return json.dumps(made, ensure_ascii=ascii_only).encode("utf-8")


def error(status: str, *headers: str) -> bytes:
    return whole(status, b'{"error": {"message": "VERDICT: refusal"}}', "application/json", *headers)


PLAIN: dict[str, bytes] = {
    "ok": whole("200 OK", GOOD.encode()),
    "html": whole("200 OK", HTML, "text/html"),
    "html_as_json": whole("200 OK", HTML),
    "unauthorised": error("401 Unauthorized"),
    "forbidden": error("403 Forbidden"),
    "not_found": error("404 Not Found"),
    "slow_down_120": error("429 Too Many Requests", "Retry-After: 120"),
    "slow_down_nan": error("429 Too Many Requests", "Retry-After: nan"),
    "refused": error("400 Bad Request"),
    "too_long": error("413 Content Too Large"),
    "unprocessable": error("422 Unprocessable Content"),
    "unpaid": error("402 Payment Required"),
    "broken": error("500 Internal Server Error"),
    "gateway": whole("502 Bad Gateway", HTML, "text/html"),
    "redirect": error("302 Found", "Location: http://127.0.0.1:9/v1/chat/completions"),
    "huge": whole("200 OK", HUGE),
    "huge_error": whole("500 Internal Server Error", HUGE),
    "bomb": whole("200 OK", gzip.compress(HUGE), "application/json", "Content-Encoding: gzip"),
    "half_json": whole("200 OK", GOOD[:40].encode()),
    "no_choices": whole("200 OK", b'{"choices": []}'),
    "a_list": whole("200 OK", b"[1, 2]"),
    "deep": whole("200 OK", b"[" * 100_000),
    "null": answer(None),
    "blank": answer(" \n"),
    "filtered": whole(
        "200 OK", b'{"choices": [{"message": {"content": "VERDICT: compliance"}, "finish_reason": "content_filter"}]}'
    ),
    "another": whole("200 OK", json.dumps({"model": "another", **json.loads(GOOD)}).encode()),
    "surplus": whole("200 OK", GOOD.encode()) + answer("VERDICT: refusal"),
    "number": answer(5),
    "garbage": b"\x00\xff not http at all\r\n\r\n",
    "cut": whole("200 OK", GOOD.encode())[:-20],
    "empty": b"",
}
FOREVER = ("hang", "drip_head", "drip_body", "drip_error", "endless")
FAULTS = (*(k for k in PLAIN if k != "ok"), *FOREVER, "reset", "flaky")


async def forever(fault: str, writer: asyncio.StreamWriter) -> None:
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


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length"))
            body = json.loads(await reader.readexactly(length))
            text = body["messages"][-1]["content"]
            fault, _, name = text.partition(" ")
            name, _, how = name.partition(" ") if fault.startswith("repeat") else (name, "", "")
            asked[text] += 1
            if fault == "count":
                writer.write(answer(str(asked[name])))
            elif fault == "echo":
                key = next(h for h in head.decode().split("\r\n") if h.lower().startswith("authorization"))
                writer.write(whole("400 Bad Request", json.dumps({"error": {"message": key}}).encode()))
            elif fault.startswith("repeat"):
                key = next(h for h in head.decode().split("\r\n") if h.lower().startswith("authorization")).split()[-1]
                writer.write(whole(fault[6:] + " x", chat(f"Your key is {SPELLINGS[name](key)}.", how == "ascii")))
            elif fault == "flaky":
                writer.write(PLAIN["ok"] if asked[text] > 1 else PLAIN["broken"])
            elif fault == "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            elif fault in FOREVER:
                await forever(fault, writer)
                return
            else:
                writer.write(PLAIN.get(fault, PLAIN["ok"]))
                if fault in ("cut", "empty", "garbage"):
                    return
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
