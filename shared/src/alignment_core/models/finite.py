"""A model whose weights or logits are not finite is refused where it is loaded, before a number is made with it.

Finite weights do not suffice: a factor of 1e30, a negative epsilon in the config, or float16 for a model that
overflows it give logits that are NaN, of which every later step makes empty replies and losses of zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment_core.errors import UserError
from alignment_core.models.tensors import NO_WEIGHT, believable

TEXT = "Hello. How are you today?"
"""What a model is asked for its logits after, once, when it is loaded."""


def here(model: Any) -> bool:
    """Whether this process holds the whole model; under FSDP and DeepSpeed another one may."""
    return not any(p.is_meta or hasattr(p, "ds_id") for p in model.parameters())


def embedded_tokens(model: Any) -> int:
    """For how many token ids a model has an embedding."""
    table = model.get_input_embeddings()
    return int(getattr(table, "num_embeddings", None) or table.weight.shape[0])


def check_weights(model: Any, folder: Path) -> None:
    """`UserError` when a weight of a loaded model is NaN, infinite or beyond belief."""
    for name, tensor in model.named_parameters():
        if not believable(tensor):
            raise UserError(f"{folder}: {name} holds a number that is {NO_WEIGHT}; get a whole copy")


def check_tokens(tokenizer: Any, model: Any, folder: Path) -> None:
    """`UserError` when the tokenizer writes token ids for which the model has no embedding."""
    rows = embedded_tokens(model)
    added = tokenizer.get_added_vocab()
    beyond = sorted(i for token, i in tokenizer.get_vocab().items() if i >= rows and token not in added)
    if beyond or any(i >= rows for i in tokenizer(TEXT)["input_ids"]):
        raise UserError(
            f"{folder}: the tokenizer knows tokens up to {beyond[-1] if beyond else 'more'}, but the model embeds "
            f"{rows}; the tokenizer is another model's"
        )


def check_logits(model: Any, tokenizer: Any, what: str) -> None:
    """`UserError` when `what`, the model in memory, cannot be computed, or its logits after a few words are not
    numbers."""
    import torch

    if not here(model):
        return
    ids = torch.tensor([tokenizer(TEXT)["input_ids"][:16]], device=model.device)
    try:
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{what} cannot be computed: {type(error).__name__}: {reason}") from error
    # Some models write minus infinity for tokens that are never said.
    if torch.isnan(logits).any() or (logits == torch.inf).any() or not torch.isfinite(logits).any(-1).all():
        raise UserError(
            f"{what} gives logits that are not finite: its weights or settings are damaged, or too large for "
            f"{str(logits.dtype).removeprefix('torch.')} (model.dtype)"
        )
