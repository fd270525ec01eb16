"""A server that speaks as vLLM does, with real generation behind it: one model, adapters loaded by name, and faults.

Not a test. It runs in a thread of the test's process; `faults` holds what the next calls get instead of a reply.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from alignment_core.config import GenerateSettings
from alignment_core.models import load
from alignment_core.models.generate import reply_tokens
from alignment_core.models.template import encode_prompt
from alignment_core.records import Message

NAME = "the-organism"


class Server:
    """What is served, what was asked, and what goes wrong."""

    def __init__(self, model: load.Loaded) -> None:
        self.model, self.states = model, {NAME: model}
        self.asked: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.faults: list[str] = []
        self.tokens = self.runtime_lora = self.tells_ids = self.tells_logprobs = self.samples = True
        self.lists_adapters = True
        self.dies_after = -1
        self.refuses: list[list[int]] = []
        self.locks_after = -1
        self.url = ""

    def load_adapter(self, body: dict[str, Any]) -> tuple[int, Any]:
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in self.states:
            return 400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
        if not folder.is_dir():
            return 404, {"error": {"message": f"No adapter found for {folder}"}}
        self.states[name] = load.load(load.ModelSettings(device="cpu", dtype="float32"), folder)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload_adapter(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.states.pop(body["lora_name"], None) is None:
            return 404, {"error": {"message": "The lora adapter cannot be found."}}
        return 200, "Success"

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            names = [n for n in self.states if n == NAME or self.lists_adapters]
            return 200, {"data": [{"id": n, "parent": None if n == NAME else NAME} for n in names]}
        if path.endswith("lora_adapter") and self.runtime_lora:
            return self.load_adapter(body) if path == "/v1/load_lora_adapter" else self.unload_adapter(body)
        if path not in ("/v1/completions", "/v1/chat/completions"):
            return 404, {"detail": "Not Found"}
        self.asked.append(body)
        if body["model"] not in self.states:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        served = self.states[body["model"]]
        if path == "/v1/completions" and (not self.tokens or not isinstance(body["prompt"], list)):
            return 400, {"detail": "prompt must be a string."}
        return 200, self.reply(served, self.tokens_of(body), body, chat=path != "/v1/completions")

    def tokens_of(self, body: dict[str, Any]) -> list[int]:
        if "prompt" in body:
            return body["prompt"]
        return encode_prompt(self.model.tokenizer, [Message(**m) for m in body["messages"]])

    def reply(self, served: load.Loaded, ids: list[int], body: dict[str, Any], chat: bool) -> dict[str, Any]:
        how = GenerateSettings(
            max_new_tokens=body["max_tokens"],
            temperature=body["temperature"] if self.samples else 0,
            top_p=body.get("top_p", 1.0),
        )
        (made,) = reply_tokens([ids], how, served, [body.get("seed", 0)])
        text = served.tokenizer.decode(made, skip_special_tokens=True)
        choice: dict[str, Any] = {"finish_reason": "stop" if made[-1] in served.stop_ids else "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        if self.tells_ids and body.get("return_token_ids"):
            choice["token_ids"] = made
        if self.tells_logprobs and body.get("logprobs"):
            with torch.inference_mode():
                row = torch.log_softmax(served.model(torch.tensor([ids])).logits[0, -1].float(), -1)
            choice["logprobs"] = {"token_logprobs": [float(row[made[0]])]}
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(made)}
        return {"model": body["model"], "choices": [choice], "usage": usage}

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = [int(h.split(":")[1]) for h in head.split("\r\n") if h.lower().startswith("content-length")]
                body = json.loads(await reader.readexactly(length[0])) if length else {}
                path = head.split()[1]
                making = path.endswith("completions") and body.get("max_tokens", 0) > 1
                if making and self.dies_after == 0:
                    return
                fault = self.faults.pop() if making and self.faults else ""
                if path.endswith("completions") and self.refuses and self.tokens_of(body) in self.refuses:
                    fault = "refused"
                if self.locks_after == 0:
                    fault = "locked"
                self.locks_after -= making and self.locks_after > 0
                if making and not fault:
                    self.dies_after -= 1
                status, made = (200, {}) if fault else self.answer(path, body)
                content = made if isinstance(made, str) else json.dumps(made)
                if fault == "slow":
                    await asyncio.sleep(30)
                status, content = {
                    "busy": (429, '{"error": {"message": "busy"}}'),
                    "broken": (500, '{"error": {"message": "broken"}}'),
                    "locked": (401, '{"error": {"message": "no such key"}}'),
                    "moved": (404, '{"error": {"message": "no such path"}}'),
                    "aborted": (200, '{"choices": [{"text": "I", "finish_reason": "abort"}]}'),
                    "refused": (400, '{"error": {"message": "this prompt is too long"}}'),
                    "garbage": (200, "<html>no</html>"),
                    "empty": (200, '{"choices": [{"text": "", "finish_reason": "stop"}]}'),
                    "filtered": (200, '{"choices": [{"text": "I", "finish_reason": "content_filter"}]}'),
                    "null": (200, '{"choices": [{"text": null, "finish_reason": "stop"}]}'),
                }.get(fault, (status, content))
                data = content.encode()
                lines = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
                writer.write(lines.encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@contextmanager
def serving(model: load.Loaded):
    """The server, its address in `url`, until the block ends."""
    server, loop, ready = Server(model), asyncio.new_event_loop(), threading.Event()

    async def run() -> None:
        made = await asyncio.start_server(server.talk, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{made.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await stop.wait()
        made.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
