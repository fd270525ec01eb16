"""The little of HTTP/1.1 that the test servers speak, and the thread that they run in."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

HOST = "127.0.0.1"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, Any]]:
    """Head and JSON body (empty where there is none) of the next request; `IncompleteReadError` at the end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = header(head, "content-length")
    return head, json.loads(await reader.readexactly(int(length))) if length else {}


def header(head: str, name: str) -> str:
    """A header's value, or an empty string."""
    found = [line.partition(":")[2].strip() for line in head.split("\r\n") if line.lower().startswith(f"{name}:")]
    return found[0] if found else ""


def response(status: str, body: bytes | str, kind: str = "application/json", *headers: str) -> bytes:
    """A whole response; `status` is for example `200 OK`."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def chat(content: object) -> bytes:
    """A chat completion whose message holds `content`."""
    return response("200 OK", json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}))


def error(status: str, message: str, *headers: str) -> bytes:
    """An error response in OpenAI's form."""
    return response(status, json.dumps({"error": {"message": message}}), "application/json", *headers)


@contextmanager
def in_thread(talk: Talk) -> Iterator[str]:
    """A server on a free loopback port, each of whose connections `talk` serves; yields `http://127.0.0.1:PORT/v1`."""
    loop, stop, ready, address = asyncio.new_event_loop(), asyncio.Event(), threading.Event(), [""]

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await talk(reader, writer)
        finally:
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(connection, HOST, 0)
        address[0] = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    ready.wait()
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
