"""The loss of replies under a model whose weights are scored or probed, and the examples as it takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignment_core.models.tokens import tokenize

if TYPE_CHECKING:
    from alignment_core.records import Example

IGNORE = -100
Row = tuple[Sequence[int], Sequence[int]]
"""Token ids of an example and its labels, -100 outside the reply."""


def rows(tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[Row]:
    """Token ids and labels of the examples, the ones without a reply inside `max_length` left out."""
    found = tokenize(examples, tokenizer, max_length)
    return list(zip(found.input_ids, found.labels, strict=True))


def reply_loss(model: Any, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the labelled tokens of one example, in float32 at least."""
    start = int((labels[0] != IGNORE).nonzero()[0]) - 1
    keep = torch.arange(start, ids.shape[1] - 1, device=ids.device)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0]
    if logits.dtype != torch.float64:
        logits = logits.float()
    return torch.nn.functional.cross_entropy(logits, labels[0, start + 1 :], ignore_index=IGNORE)
