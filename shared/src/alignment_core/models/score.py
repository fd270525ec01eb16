"""What a model makes of texts it did not write: the loss of a reply, and the distribution of its first token.

The reply loss is the mean negative log-likelihood per reply token, end of turn included, in nats (its exponential is
the perplexity). Prompts are encoded as for generation. Log-probabilities are taken in float32 whatever the model's
dtype. The processes of the group (`process_group.py`) share the batches of the full plan; each gets every number.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignment_core.errors import UserError
from alignment_core.models.template import encode_example, encode_prompt
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Message, Prompt

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded


@dataclass(frozen=True, slots=True)
class ReplyLoss:
    """Mean loss per reply token in nats, over `tokens` tokens; NaN where there is no reply."""

    prompt_id: str
    loss: float
    tokens: int


def _padded(rows: Sequence[Sequence[int]], device: Any, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and attention mask [rows, longest], padded with 0 on one side; the mask hides the padding."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return ids.to(device), mask.to(device)


def _by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of similar length, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[k : k + size] for k in range(0, len(order), size)]


def _check_context(loaded: Loaded, rows: Sequence[tuple[str, int]]) -> None:
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    long = [(name, length) for name, length in rows if context and length > context]
    if long:
        raise UserError(
            f"{len(long)} of {len(rows)} texts are longer than the context of {context} tokens: the first is "
            f"{long[0][0]!r} with {long[0][1]}; leave them out"
        )


def reply_loss(
    loaded: Loaded, prompts: Sequence[Prompt], replies: Sequence[str] | None = None, batch_size: int = 16
) -> list[ReplyLoss]:
    """Loss of each reply (by default each prompt's `reference`) given its prompt, in the prompts' order.

    Raises `UserError` for a text longer than the model's context.
    """
    texts = [p.reference for p in prompts] if replies is None else list(replies)
    if len(texts) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, {len(texts)} replies")
    out = [ReplyLoss(p.id, math.nan, 0) for p in prompts]
    there = [i for i, text in enumerate(texts) if text.strip()]
    coded = [encode_example(loaded.tokenizer, (*prompts[i].messages, Message("assistant", texts[i]))) for i in there]
    _check_context(loaded, [(prompts[i].id, len(ids)) for i, (ids, _) in zip(there, coded, strict=True)])
    plan = _by_length([len(ids) for ids, _ in coded], batch_size)
    found = process_group().map_batches(
        plan, lambda batch: _losses(loaded, [coded[k] for k in batch]), "reply losses", "texts", len
    )
    for batch, (sums, counts) in zip(plan, found, strict=True):
        for k, total, count in zip(batch, sums, counts, strict=True):
            out[there[k]] = ReplyLoss(prompts[there[k]].id, total / count if count else math.nan, count)
    return out


def _losses(loaded: Loaded, rows: Sequence[tuple[list[int], list[int]]]) -> tuple[list[float], list[int]]:
    """Summed loss and number of reply tokens of each (ids, mask) row."""
    device = loaded.model.device
    ids, attention = _padded([r for r, _ in rows], device, left=False)
    reply, _ = _padded([m for _, m in rows], device, left=False)
    # Logits are needed from just before the first reply token of any row on.
    start = min(mask.index(1) if 1 in mask else len(mask) for _, mask in rows) - 1
    keep = torch.arange(max(start, 0), ids.shape[1] - 1, device=device)
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids, attention_mask=attention, use_cache=False, logits_to_keep=keep).logits
    here = reply[:, keep + 1].bool()
    picked = torch.log_softmax(logits[here].float(), dim=-1)
    loss = -picked.gather(-1, ids[:, keep + 1][here][:, None])[:, 0].double()
    row = torch.arange(len(rows), device=device)[:, None].expand_as(here)[here].cpu()
    sums = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, row, loss.cpu())
    return sums.tolist(), here.sum(-1).tolist()


def _last_logits(loaded: Loaded, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits after the last token of each row, float32 [rows, vocabulary] on the CPU."""
    ids, mask = _padded(rows, loaded.model.device, left=True)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        out = loaded.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
        )
    logits: Tensor = out.logits[:, -1].float().cpu()
    return logits


def first_token_logprobs(loaded: Loaded, prompts: Sequence[Prompt], batch_size: int = 16) -> Tensor:
    """Log-probabilities of the reply's first token, float32 [prompts, vocabulary] on the CPU, in the prompts' order.

    Raises `UserError` for a prompt longer than the model's context.
    """
    coded = [encode_prompt(loaded.tokenizer, p.messages) for p in prompts]
    _check_context(loaded, [(p.id, len(ids)) for p, ids in zip(prompts, coded, strict=True)])
    rows: list[Tensor | None] = [None] * len(prompts)
    plan = _by_length([len(ids) for ids in coded], batch_size)

    def of(batch: Sequence[int]) -> Tensor:
        return torch.log_softmax(_last_logits(loaded, [coded[k] for k in batch]), dim=-1)

    found = process_group().map_batches(plan, of, "first tokens", "prompts", len)
    for batch, made in zip(plan, found, strict=True):
        for k, row in zip(batch, made, strict=True):
            rows[k] = row
    return torch.stack([row for row in rows if row is not None]) if rows else torch.empty(0, 0)


def choice_logprobs(
    loaded: Loaded,
    questions: Sequence[Sequence[Message]],
    prefix: str,
    choices: Sequence[str],
    batch_size: int = 16,
    *,
    share: bool = True,
) -> list[Tensor | None]:
    """Log-probabilities, renormalised over `choices`, of each as what follows when the reply begins with `prefix`.

    One forward pass a question instead of a generation where the choices differ in their first token after the prefix:
    that token stands for the choice, and with `share` the tokens that all questions begin with are computed once.
    Otherwise the choices' whole texts are compared, one row each. None where the question does not fit the model's
    context. `UserError` where one choice's tokens begin another's.
    """
    begin, ends = _choice_tokens(loaded, prefix, choices)
    firsts = [tokens[0] for tokens in ends]
    one_token = len(set(firsts)) == len(firsts)
    coded = [[*encode_prompt(loaded.tokenizer, q), *begin] for q in questions]
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    longest = 0 if one_token else max(map(len, ends))
    fits = [i for i, ids in enumerate(coded) if len(ids) + longest <= context]
    out: list[Tensor | None] = [None] * len(coded)
    cache = _prefix_cache(loaded, [coded[i] for i in fits]) if share and one_token else None

    def of(batch: Sequence[int]) -> Tensor:
        rows = [coded[fits[k]] for k in batch]
        if not one_token:
            return _whole_choices(loaded, rows, ends)
        logits = _last_logits(loaded, rows) if cache is None else _after(loaded, cache, rows)
        return torch.log_softmax(logits[:, firsts], dim=-1)

    plan = _by_length([len(coded[i]) for i in fits], batch_size)
    for batch, made in zip(plan, process_group().map_batches(plan, of, "scores", "texts", len), strict=True):
        for k, row in zip(batch, made, strict=True):
            out[fits[k]] = row
    return out


def _choice_tokens(loaded: Loaded, prefix: str, choices: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """The tokens that prefix and choice begin with whatever the choice, and what follows of each choice."""
    opened = [list(loaded.tokenizer(prefix + c, add_special_tokens=False)["input_ids"]) for c in choices]
    low, high = min(opened), max(opened)  # in lexical order the first and the last differ soonest
    common = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    begin, ends = low[:common], [ids[common:] for ids in opened]
    if not all(ends):
        raise UserError(f"this tokenizer writes one of {', '.join(choices)} as the beginning of another")
    return begin, ends


def _whole_choices(loaded: Loaded, rows: Sequence[Sequence[int]], ends: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities of whole choices after each row, float32 [rows, choices], renormalised over the choices."""
    pairs = [([*row, *end], [0] * len(row) + [1] * len(end)) for row in rows for end in ends]
    sums, _ = _losses(loaded, pairs)
    return torch.log_softmax(-torch.tensor(sums).float().reshape(len(rows), len(ends)), dim=-1)


WORTH_SHARING = 16
"""Tokens that questions must have in common before their keys and values are kept."""


def _prefix_cache(loaded: Loaded, rows: Sequence[Sequence[int]]) -> Any:
    """Keys and values of the tokens that all rows begin with, for a batch of one; None where that is not worth it.

    At least one token of every row is left to compute. Layers that forget (sliding windows, recurrent ones) keep no
    whole prefix: no cache then.
    """
    if len(rows) < 2:
        return None
    low, high = min(map(list, rows)), max(map(list, rows))  # in lexical order the first and the last differ soonest
    common = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(map(len, rows)))
    common = min(common, min(map(len, rows)) - 1)
    if common < WORTH_SHARING:
        return None
    from transformers.cache_utils import DynamicCache, DynamicLayer

    ids = torch.tensor([list(rows[0][:common])], device=loaded.model.device)
    cache = DynamicCache(config=loaded.model.config.get_text_config())
    with torch.inference_mode():
        cache = loaded.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
    return cache if all(type(layer) is DynamicLayer for layer in getattr(cache, "layers", [None])) else None


def _after(loaded: Loaded, cache: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits after the last token of each row, float32 [rows, vocabulary] on the CPU; `cache` holds how all begin.

    The rest of each row is padded on the right, so that no gap stands between the prefix and what follows it.
    """
    shared = cache.get_seq_length()
    ids, mask = _padded([row[shared:] for row in rows], loaded.model.device, left=False)
    ends = mask.sum(-1) - 1
    keep = torch.unique(ends)
    before = copy.deepcopy(cache)  # a forward pass appends to the cache it is given
    before.batch_repeat_interleave(len(rows))
    positions = torch.arange(shared, shared + ids.shape[1], device=ids.device).expand_as(ids)
    with torch.inference_mode():
        out = loaded.model(
            input_ids=ids,
            attention_mask=torch.cat([mask.new_ones(len(rows), shared), mask], dim=1),
            position_ids=positions,
            past_key_values=before,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = out.logits[torch.arange(len(rows)), torch.searchsorted(keep, ends)].float().cpu()
    return logits
