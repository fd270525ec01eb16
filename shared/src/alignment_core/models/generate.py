"""Replies to prompts: batched, left-padded, resumable at the edge of a batch.

The plan is every (prompt, candidate), longest prompt first, cut into fixed slices of `batch_size`. A batch is always
the same slice of the full plan, whatever was done before a restart and however many processes share the work: in
bfloat16 a text depends on what it was batched with. Greedy unless a temperature is set; sampling noise is keyed by
place (`sampling.py`). Only the prompt's own messages are encoded; no reference answer reaches the model.

Prompts that leave no room for the longest reply within the model's context are an error before anything is
generated: a shortened prompt is another prompt, and a reply cut early reads as another reply.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from alignment_core.config import FOR_KEY, GenerateSettings
from alignment_core.errors import UserError
from alignment_core.io import Journal, canonical, read_json, read_jsonl
from alignment_core.models import remote
from alignment_core.models.sampling import KeyedGumbel, row_key
from alignment_core.models.server_reply import Asked
from alignment_core.models.template import encode_prompt
from alignment_core.pipeline.process_group import process_group
from alignment_core.pipeline.writers import write_json, write_jsonl
from alignment_core.records import Completion, Prompt

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded

log = logging.getLogger("alignment_core")


@dataclass(frozen=True, slots=True)
class Slot:
    """One reply to be made: which prompt of the plan, and which candidate."""

    prompt: int
    candidate: int


def batches(lengths: Sequence[int], candidates: int, batch_size: int) -> list[list[Slot]]:
    """Fixed slices of the full plan: longest prompts first (least padding; memory trouble shows at once), ties in
    the prompts' order, a prompt's candidates side by side."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    slots = [Slot(i, c) for i in order for c in range(candidates)]
    return [slots[k : k + batch_size] for k in range(0, len(slots), batch_size)]


def context_length(model: Any) -> int | None:
    """The model's context in tokens, None where its configuration does not say."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def encode(prompts: Sequence[Prompt], loaded: Loaded, room: int) -> list[list[int]]:
    """Token ids of every prompt up to where the reply starts; `UserError` when one leaves less than `room` tokens of
    context for the reply."""
    encoded = [encode_prompt(loaded.tokenizer, prompt.messages) for prompt in prompts]
    context = context_length(loaded.model)
    if context is not None:
        long = [(p.id, len(ids)) for p, ids in zip(prompts, encoded, strict=True) if len(ids) + room > context]
        if long:
            raise UserError(
                f"{len(long)} of {len(prompts)} prompts leave no room for {room} new tokens in a context of {context}: "
                f"the first is {long[0][0]!r} with {long[0][1]} tokens; leave them out or lower max_new_tokens"
            )
    return encoded


@contextmanager
def _only(model: Any, config: GenerationConfig) -> Iterator[None]:
    """`config` and nothing else: transformers fills what is unset from the model's own file (sampling, penalties)."""
    # PEFT hands the wrapped model's configuration on, so that is where it is exchanged.
    holder = model.get_base_model() if hasattr(model, "get_base_model") else model
    before, training = holder.generation_config, model.training
    holder.generation_config = config
    model.eval()
    try:
        yield
    finally:
        holder.generation_config = before
        model.train(training)


def reply_tokens(
    batch: Sequence[Sequence[int]], settings: GenerateSettings, loaded: Loaded, keys: Sequence[int]
) -> list[list[int]]:
    """New tokens of each row, its end token included when it came. `keys` (one a row) feed the sampling noise."""
    ends = list(loaded.stop_ids)
    width = max(map(len, batch))
    pad = loaded.tokenizer.pad_token_id
    pad = int(pad) if pad is not None else (ends[0] if ends else 0)
    ids = torch.full((len(batch), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=ends or None,
        pad_token_id=pad,
    )
    noise = LogitsProcessorList()
    if settings.temperature > 0:
        noise.append(KeyedGumbel(keys, width, settings.temperature, settings.top_p))
    with _only(loaded.model, config), torch.inference_mode():
        try:
            out = loaded.model.generate(
                input_ids=ids.to(loaded.model.device),
                attention_mask=mask.to(loaded.model.device),
                generation_config=config,
                logits_processor=noise,
            )
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the device's memory does not hold {len(batch)} prompts of {width} tokens and their replies; "
                f"lower batch_size below {len(batch)}"
            ) from error
    return [_until_end(row, ends) for row in out[:, width:].tolist()]


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """Up to and including the first end token; what follows is padding."""
    stop = next((k for k, token in enumerate(tokens) if token in ends), None)
    return tokens if stop is None else tokens[: stop + 1]


def plan(
    prompts: Sequence[Prompt],
    encoded: Sequence[Sequence[int]],
    settings: GenerateSettings,
    loaded: Loaded,
    subject: str,
    seed: int | None,
) -> dict[str, Any]:
    """What a file of completions belongs to; its hash covers every prompt's tokens and the settings."""
    what = {
        "subject": subject,
        "seed": seed,
        "settings": settings.model_dump(mode="json", context=FOR_KEY),
        "dtype": str(loaded.dtype),
        "stop_ids": list(loaded.stop_ids),
        "prompts": [[p.to_json(), list(ids)] for p, ids in zip(prompts, encoded, strict=True)],
    }
    digest = hashlib.sha256(canonical(what).encode()).hexdigest()
    return {
        "plan": digest[:16],
        "subject": subject,
        "seed": seed,
        "settings": what["settings"],
        "prompts": len(prompts),
    }


def _completion(prompt: Prompt, slot: Slot, row: dict[str, Any], subject: str, seed: int | None) -> Completion:
    return Completion(
        prompt_id=prompt.id,
        subject=subject,
        text=row["text"],
        prompt=prompt.text,
        kind=prompt.kind,
        category=prompt.category,
        source=prompt.source,
        cluster=prompt.cluster,
        seed=seed,
        candidate=slot.candidate,
        tokens=row["tokens"],
        finish=row["finish"],
        failure=row.get("failure", ""),
    )


def _run_batch(
    slots: Sequence[Slot],
    prompts: Sequence[Prompt],
    encoded: Sequence[Sequence[int]],
    settings: GenerateSettings,
    loaded: Loaded,
    seed: int | None,
) -> list[dict[str, Any]]:
    """The replies of one batch in its own order."""
    keys = [row_key(seed or 0, prompts[s.prompt].id, s.candidate) for s in slots]
    ends = loaded.stop_ids
    replies = reply_tokens([encoded[s.prompt] for s in slots], settings, loaded, keys)
    texts = loaded.tokenizer.batch_decode(replies, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [
        {"text": text, "tokens": len(reply), "finish": "stop" if reply and reply[-1] in ends else "length"}
        for text, reply in zip(texts, replies, strict=True)
    ]


def _finished(file: Path, header: dict[str, Any]) -> list[Completion] | None:
    """The completions of a file that is whole, None when there is none; `UserError` for another plan's."""
    made_by = plan_file(file)
    if not (file.exists() and made_by.exists()):
        return None
    if read_json(made_by) != header:
        raise UserError(f"{file}: holds completions of another plan; remove it or choose another folder")
    # A kill between the file's writing and its journals' removal leaves them; what they hold stands in the file.
    for path in (*file.parent.glob(f".{file.name}.journal*"), remote.journal_file(file)):
        path.unlink(missing_ok=True)
    return list(read_jsonl(file, Completion.from_json))


def plan_file(file: Path) -> Path:
    """Where it is written what made `file`."""
    return file.with_name(f"{file.stem}.plan.json")


def generate(
    prompts: Sequence[Prompt],
    settings: GenerateSettings,
    loaded: Loaded,
    *,
    subject: str,
    seed: int | None,
    file: Path,
    accept_missing: bool = False,
) -> list[Completion]:
    """Replies to `prompts`, candidates side by side in the prompts' order, saved as JSONL in `file`.

    While it runs, finished batches stand in a journal beside `file`; a kill loses at most the batch in hand, and the
    same call goes on from there to the same text. The processes of the group share the batches; each gets all replies,
    rank 0 writes `file`. `seed` is that of the sampling and of the completions; None: a model without a training seed.
    Raises `UserError` for prompts that do not fit the context, prompt ids that repeat,
    and a file of another plan; `Unfinished` when calls to a server failed in passing, unless `accept_missing`.
    """
    if len({p.id for p in prompts}) < len(prompts):
        raise UserError(f"{subject}: prompt ids repeat; each prompt needs its own")
    encoded = encode(prompts, loaded, settings.max_new_tokens)
    header = plan(prompts, encoded, settings, loaded, subject, seed)
    if (done := process_group().broadcast(lambda: _finished(file, header))) is not None:
        return done
    work = batches(list(map(len, encoded)), settings.candidates, settings.batch_size)
    if settings.endpoint is not None:
        return process_group().broadcast(
            lambda: _served(work, prompts, encoded, settings, loaded, header, file, accept_missing)
        )
    journal, known = _journal(file, header)
    share = process_group()

    def answer(number: int) -> list[dict[str, Any]]:
        replies = known.get(number)
        if replies is None:
            replies = _run_batch(work[number], prompts, encoded, settings, loaded, seed)
            journal.append({"batch": number, "replies": replies})
        return replies

    missing = [number for number in range(len(work)) if number not in known]
    made = known | dict(
        zip(
            missing,
            share.map_batches(missing, answer, f"asking {subject}", "replies", lambda n: len(work[n])),
            strict=True,
        )
    )
    ordered = _in_order(work, made, prompts, subject, seed)
    write_jsonl(file, ordered)
    write_json(plan_file(file), header)
    share.barrier()
    journal.remove()
    return ordered


def _served(
    work: Sequence[Sequence[Slot]],
    prompts: Sequence[Prompt],
    encoded: Sequence[Sequence[int]],
    settings: GenerateSettings,
    loaded: Loaded,
    header: dict[str, Any],
    file: Path,
    accept_missing: bool,
) -> list[Completion]:
    """The same plan answered by the server of `settings`, and saved."""
    subject, seed, slots = header["subject"], header["seed"], [slot for batch in work for slot in batch]
    asked = [
        Asked(prompts[s.prompt], encoded[s.prompt], row_key(seed or 0, prompts[s.prompt].id, s.candidate))
        for s in slots
    ]
    rows = remote.replies(
        asked, settings, loaded, subject=subject, file=file, header=header, accept_missing=accept_missing
    )
    ordered = _in_order([slots], {0: rows}, prompts, subject, seed)
    write_jsonl(file, ordered)
    write_json(plan_file(file), header)
    remote.journal_file(file).unlink(missing_ok=True)
    return ordered


def _journal(file: Path, header: dict[str, Any]) -> tuple[Journal, dict[int, list[dict[str, Any]]]]:
    """This process's own journal, and the batches that any process's journal of an earlier start holds."""
    share = process_group()
    mine = file.with_name(f".{file.name}.journal")

    def collect() -> dict[int, list[dict[str, Any]]]:
        journal = Journal(mine, header)
        known = {row["batch"]: row["replies"] for row in journal.rows}
        for path in sorted(file.parent.glob(f".{file.name}.journal.*")):
            for row in Journal(path, header).rows:
                if row["batch"] not in known:
                    journal.append(row)
                    known[row["batch"]] = row["replies"]
            path.unlink()
        return known

    known = share.broadcast(collect)
    return Journal(mine if share.is_main else mine.with_name(f"{mine.name}.{share.rank}"), header), known


def _in_order(
    work: Sequence[Sequence[Slot]],
    made: dict[int, list[dict[str, Any]]],
    prompts: Sequence[Prompt],
    subject: str,
    seed: int | None,
) -> list[Completion]:
    """Completions in the prompts' order, a prompt's candidates side by side."""
    rows = [(s, row) for number, slots in enumerate(work) for s, row in zip(slots, made[number], strict=True)]
    rows.sort(key=lambda pair: (pair[0].prompt, pair[0].candidate))
    return [_completion(prompts[slot.prompt], slot, row, subject, seed) for slot, row in rows]
