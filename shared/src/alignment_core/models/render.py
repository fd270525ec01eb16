"""A conversation as the text that a chat template makes of it; a template that came with a model never hangs us.

A chat template is a program. Jinja's sandbox keeps it from files and code, but not from computing without end
(`{{ 10 ** (10 ** 9) }}`) or from filling the memory. So templates that came with a model are rendered in one child
process under the system's limits on processor time and memory; ours and the embedded models' are rendered here. Both go
through transformers' own `render_jinja_template`. Today's date is held at `DATE`: a prompt is the same on every day.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from alignment_core.errors import UserError
from alignment_core.records import Message

DATE = datetime(2024, 7, 26)
"""Today, to a template that asks for the date: the day that Llama 3.1's own template names without being asked."""
SECONDS = 5
"""Processor time for one rendering in the child."""
MEMORY = 1 << 30
"""Bytes that a rendering may take in the child, beyond what it had at its start."""
LONGEST = 1_000_000
"""Characters of one rendering, beyond a hundred times the conversation's."""
# What a template that came with a model may raise: its own mistakes, in Python's words.
_TEMPLATES_OWN = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
_CANNOT = "the chat template cannot take this conversation"


class Endless(UserError):
    """A template does not come to an end within its limits."""


class Rendered(NamedTuple):
    """Text, and the spans (code points, end exclusive) between generation markers."""

    text: str
    spans: list[tuple[int, int]]


def marked(template: str) -> bool:
    """True when the template marks what the model says."""
    return _MARKER.search(template) is not None


def render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> Rendered:
    """The text of a conversation by the tokenizer's chat template; `prompt` adds the opening of the reply to come.

    Raises `UserError` with the template's own reason where it cannot take the conversation, or takes too long.
    """
    from alignment_core.models.template import is_ours

    template, tokens = str(tokenizer.chat_template), dict(tokenizer.special_tokens_map)
    plain = [{"role": m.role, "content": m.content} for m in messages]
    if is_ours(template):
        return _render(template, plain, tokens, prompt)
    return _child(os.getpid()).render(template, plain, tokens, prompt)


def _render(template: str, messages: list[dict[str, str]], tokens: Mapping[str, Any], prompt: bool) -> Rendered:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    marks = marked(template)
    try:
        texts, spans = render_jinja_template(
            conversations=[messages],
            chat_template=template,
            return_assistant_tokens_mask=marks,
            add_generation_prompt=prompt,
            **tokens,
        )
    except (TemplateError, *_TEMPLATES_OWN) as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{_CANNOT}: {why}") from error
    if len(texts[0]) > LONGEST + 100 * sum(len(m["content"]) for m in messages):
        raise UserError(f"{_CANNOT}: it makes {len(texts[0]):,} characters of it")
    return Rendered(texts[0], [(start, end) for start, end in spans[0]] if marks else [])


class _Child:
    """A process that renders templates, one at a time, until its input ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def _start(self) -> subprocess.Popen[str]:
        code = "from alignment_core.models.render import serve; serve()"
        return subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def render(
        self, template: str, messages: list[dict[str, str]], tokens: Mapping[str, Any], prompt: bool
    ) -> Rendered:
        asked = json.dumps([template, messages, {k: str(v) for k, v in tokens.items()}, prompt])
        with self._lock:
            if self._process is None:
                self._process = self._start()
            told = self._ask(self._process, asked)
            if told is None:
                self.end()
        if told is None:
            raise Endless(
                f"the chat template that came with the model takes more than {SECONDS} s of processor time, or more "
                "memory than it may, for one conversation; set model.template to another"
            )
        if "error" in told:
            raise UserError(told["error"])
        return Rendered(told["text"], [(start, end) for start, end in told["spans"]])

    @staticmethod
    def _ask(process: subprocess.Popen[str], asked: str) -> dict[str, Any] | None:
        """The child's answer; None where the system ended it."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(asked + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            return None
        return json.loads(line) if line.endswith("\n") else None

    def end(self) -> None:
        """End the process, if there is one; the next rendering starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@lru_cache(maxsize=1)
def _child(process: int) -> _Child:
    """The child of this process; a forked process gets its own."""
    child = _Child()
    atexit.register(lambda: child.end() if os.getpid() == process else None)
    return child


class _Held:
    """`datetime`, to transformers' renderer in the child: it asks for nothing but `now`."""

    @staticmethod
    def now() -> datetime:
        return DATE


def _limit_memory() -> None:
    """Hold the process to `MEMORY` more than it has now, where the system tells how much that is."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))


def serve() -> None:
    """What the child does: render each line's request under limits that the system keeps, and write the answer."""
    import resource

    from transformers.utils import chat_template_utils

    chat_template_utils.datetime = _Held
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; the child ends with its input
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory()
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + SECONDS, resource.RLIM_INFINITY))
        try:
            found: dict[str, Any] = _render(*json.loads(line))._asdict()
        except UserError as error:
            found = {"error": str(error)}
        print(json.dumps(found), flush=True)
