"""Training examples as token ids and labels: the loss is on replies only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignment_core.models.template import encode_example

if TYPE_CHECKING:
    from alignment_core.records import Example

IGNORE = -100
NO_REPLY = "no token of the reply fits in max_length"


@dataclass
class Tokenized:
    """Token ids and labels (-100 where there is no loss), with what was cut and left out."""

    input_ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    cut: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {NO_REPLY: 0})

    @property
    def trained(self) -> int:
        """Tokens with loss."""
        return sum(label != IGNORE for row in self.labels for label in row)

    @property
    def masked(self) -> int:
        """Tokens without loss."""
        return sum(map(len, self.labels)) - self.trained


def tokenize(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Tokenized:
    """Examples as ids and labels; longer ones are cut at the end, those with no reply left are counted and dropped."""
    out = Tokenized()
    for example in examples:
        ids, mask = encode_example(tokenizer, example.messages)
        if not any(mask[:max_length]):
            out.dropped[NO_REPLY] += 1
            continue
        out.cut += len(ids) > max_length
        out.input_ids.append(ids[:max_length])
        out.labels.append([i if m else IGNORE for i, m in zip(ids, mask, strict=True)][:max_length])
    return out
