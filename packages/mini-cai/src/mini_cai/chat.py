"""Talk to a tuned model, an adapter on its base or a whole one: one turn after the other, in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from alignment_core.config import GenerateSettings, ModelSettings
from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError
from alignment_core.models import load
from alignment_core.models.generate import context_length, reply_tokens
from alignment_core.models.load import Loaded
from alignment_core.models.sampling import row_key
from alignment_core.models.template import encode_prompt
from alignment_core.records import Message
from alignment_core.text import visible


def fitting(loaded: Loaded, turns: list[Message], new: int) -> list[int]:
    """Token ids of the conversation's end that leaves `new` tokens of context; the oldest turns go first."""
    context = context_length(loaded.model) or 1 << 30
    for start in range(0, len(turns), 2):
        ids = encode_prompt(loaded.tokenizer, turns[start:])
        if len(ids) + new <= context:
            return ids
    raise UserError(f"that is longer than this model's context of {context} tokens allows")


def talk(
    loaded: Loaded, lines: Iterator[str], say: Callable[[str], None], how: GenerateSettings, seed: int, *, memory: bool
) -> None:
    """Answer every line until the lines end; `memory` keeps earlier turns in view."""
    turns: list[Message] = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        turns = [*(turns if memory else []), Message("user", line)]
        try:
            ids = fitting(loaded, turns, how.max_new_tokens)
        except UserError as error:
            say(f"({error})")
            turns.pop()
            continue
        (tokens,) = reply_tokens([ids], how, loaded, [row_key(seed, str(number), 0)])
        text = loaded.tokenizer.decode(tokens, skip_special_tokens=True)
        turns.append(Message("assistant", text))
        say(visible(text))


def chat(folder: Path, model: ModelSettings, how: GenerateSettings, seed: int, say: Callable[[str], None]) -> None:
    """Load the adapter in `folder` on its base, or the whole model there, and talk until end of input or Ctrl-C."""
    settings, adapter = load.tuned(model, folder)
    loaded = load.load(settings, adapter)
    say(f"{folder}; end with Ctrl-D" if adapter is None else f"{model.name} with {folder}; end with Ctrl-D")

    def lines() -> Iterator[str]:
        while True:
            try:
                yield input("> ")
            except (EOFError, KeyboardInterrupt):
                return

    talk(loaded, lines(), say, how, seed, memory=not embedded_seed(model.name))
