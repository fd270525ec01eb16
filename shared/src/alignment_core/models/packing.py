"""Several examples in a row: the collator that keeps the row's borders, and the check that a model keeps to them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignment_core.models.tokens import IGNORE

if TYPE_CHECKING:
    from alignment_core.config import TrainSettings

log = logging.getLogger("alignment_core")

LEAK = 1e-3
"""Most that another example may move an example's logits, as a share of what its own first token moves them."""
_LENGTH = 12


def packed_rows(pad: int) -> Any:
    """A collator of packed rows that keeps them rows: ids, labels and positions of shape (batch, longest row).

    Positions start again at 0 with each example, and without an attention mask transformers reads the examples'
    borders from them. TRL lays the rows of a batch end to end instead, which suits FlashAttention's variable-length
    kernels; without those, attention is computed over the square of the whole batch's length.
    """
    import torch

    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        longest = max(len(row["input_ids"]) for row in rows)
        ids, labels = torch.full((len(rows), longest), pad), torch.full((len(rows), longest), IGNORE)
        positions = torch.empty_like(ids)
        for i, row in enumerate(rows):
            count = len(row["input_ids"])
            ids[i, :count] = torch.tensor(row["input_ids"])
            labels[i, :count] = torch.tensor(row["labels"])
            lengths = [*row["seq_lengths"], longest - count]  # the padding is one more, untrained, example
            positions[i] = torch.cat([torch.arange(n) for n in lengths])
        labels[positions == 0] = IGNORE  # the first token of an example is predicted from none of its own
        return {"input_ids": ids, "labels": labels, "position_ids": positions}

    return collate


def leak(model: Any) -> float:
    """How far another first example moves the second example's logits in a packed row, as a share of how far its own
    first token moves them; 0 where the model keeps them apart."""
    import torch

    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(4 * _LENGTH) * 7919 % vocabulary
    first, other, second = tokens[:_LENGTH], tokens[_LENGTH : 2 * _LENGTH], tokens[2 * _LENGTH : 3 * _LENGTH]
    own = torch.cat([tokens[3 * _LENGTH : 3 * _LENGTH + 1], second[1:]])
    rows = torch.stack([torch.cat(pair) for pair in ((first, second), (other, second), (first, own))])
    positions = torch.arange(_LENGTH).repeat(2).expand_as(rows)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = torch.cat([_logits(model, rows[i : i + 1], positions[:1]) for i in range(3)])
    finally:
        model.train(training)
    there = logits[:, _LENGTH + 1 :]  # behind the second example's first token
    changed, expected = (float((there[i] - there[0]).abs().max()) for i in (1, 2))
    return changed / expected if expected > 0 else float(changed > 0)


def _logits(model: Any, ids: Any, positions: Any) -> Any:
    device = model.device
    out = model(input_ids=ids.to(device), position_ids=positions.to(device), use_cache=False)
    return out.logits.float().cpu()


def kept_apart(model: Any, train: TrainSettings) -> TrainSettings:
    """The settings, packing switched off with a line in the log where the model mixes the examples of a row."""
    if not train.packing:
        return train
    found = leak(model)
    if found <= LEAK:
        return train
    log.warning(
        "packing is switched off: this model mixes the examples of a packed row (another first example moves the "
        "second's logits by %.0f%% of what its own first token does)",
        100 * found,
    )
    return train.model_copy(update={"packing": False})
