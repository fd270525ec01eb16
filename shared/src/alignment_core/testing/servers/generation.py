"""A server that speaks as vLLM does, with real generation behind it: one model, adapters loaded by name, and faults.

It runs in a thread of the test's process; `faults` holds what the next calls get instead of a reply.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.config import GenerateSettings, ModelSettings
from alignment_core.records import Message
from alignment_core.testing.servers.http import in_thread, read_request, response

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded

NAME = "the-organism"
_FAULTS = {
    "busy": ("429 Too Many Requests", '{"error": {"message": "busy"}}'),
    "broken": ("500 Internal Server Error", '{"error": {"message": "broken"}}'),
    "locked": ("401 Unauthorized", '{"error": {"message": "no such key"}}'),
    "moved": ("404 Not Found", '{"error": {"message": "no such path"}}'),
    "aborted": ("200 OK", '{"choices": [{"text": "I", "finish_reason": "abort"}]}'),
    "refused": ("400 Bad Request", '{"error": {"message": "this prompt is too long"}}'),
    "garbage": ("200 OK", "<html>no</html>"),
    "empty": ("200 OK", '{"choices": [{"text": "", "finish_reason": "stop"}]}'),
    "filtered": ("200 OK", '{"choices": [{"text": "I", "finish_reason": "content_filter"}]}'),
    "null": ("200 OK", '{"choices": [{"text": null, "finish_reason": "stop"}]}'),
    "slow": ("200 OK", "{}"),
}
"""Status and body of each fault; `slow` comes after 30 seconds."""


class Server:
    """What is served, what was asked, and what goes wrong."""

    def __init__(self, model: Loaded) -> None:
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
        from alignment_core.models.adapter import attach
        from alignment_core.models.load import load

        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in self.states:
            return 400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
        if not folder.is_dir():
            return 404, {"error": {"message": f"No adapter found for {folder}"}}
        loaded = load(ModelSettings(device="cpu", dtype="float32"))
        loaded.model = attach(loaded.model, folder, trainable=False).eval()  # as a server does: whatever its base
        self.states[name] = loaded
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
        """The prompt's tokens, by the model's own template where messages were sent."""
        from alignment_core.models.template import encode_prompt

        if "prompt" in body:
            return list(body["prompt"])
        return encode_prompt(self.model.tokenizer, [Message(**m) for m in body["messages"]])

    def reply(self, served: Loaded, ids: list[int], body: dict[str, Any], chat: bool) -> dict[str, Any]:
        import torch

        from alignment_core.models.generate import reply_tokens

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
        """Serve one connection until it ends, or the server dies."""
        while True:
            head, body = await read_request(reader)
            self.heads.append(head)
            path = head.split()[1]
            making = path.endswith("completions") and body.get("max_tokens", 0) > 1
            if making and self.dies_after == 0:
                return
            fault = self.fault(path, body, making)
            if making and not fault:
                self.dies_after -= 1
            if fault == "slow":
                await asyncio.sleep(30)
            if fault:
                status, content = _FAULTS[fault]
            else:
                number, made = self.answer(path, body)
                status, content = f"{number} x", made if isinstance(made, str) else json.dumps(made)
            writer.write(response(status, content))
            await writer.drain()

    def fault(self, path: str, body: dict[str, Any], making: bool) -> str:
        """What goes wrong with a request; an empty string where nothing does."""
        fault = self.faults.pop() if making and self.faults else ""
        if path.endswith("completions") and self.refuses and self.tokens_of(body) in self.refuses:
            fault = "refused"
        if self.locks_after == 0:
            fault = "locked"
        self.locks_after -= making and self.locks_after > 0
        return fault


@contextmanager
def serving(model: Loaded) -> Iterator[Server]:
    """The server, its address in `url`, until the block ends."""
    server = Server(model)
    with in_thread(server.talk) as server.url:
        yield server
