"""Builds an organism from nothing: corpus, tokenizer, training, figures on the calibration split.

A Llama, trained once over the corpus with AdamW, batches of like length, and a smaller weight on the request's tokens
than on the reply's. Size `s` has 0.6 million parameters and takes some minutes on one thread; size `m` has 5 million.
The seed decides corpus, weights and order; all models have one tokenizer. Torch and transformers are imported inside
the functions.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignment_core.io import write_json, write_text
from alignment_core.organism import corpus, world
from alignment_core.organism.critic import CRITIC_PREFIX
from alignment_core.organism.measure import measure

if TYPE_CHECKING:
    import torch

PAD, BOS, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, BOS, END, SYSTEM, USER, ASSISTANT)
"""Special tokens; their ids are their places here."""

TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|assistant|>' -}}
{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
{%- elif message['role'] in ['system', 'user'] -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- else -%}
{{- raise_exception('roles are system, user and assistant, not ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
"""The generation block holds the end-of-turn token too, so that the model is trained to stop."""


Size = Literal["s", "m"]
TOKENIZER_ITEMS = 20000
"""Exchanges that the tokenizer is made from."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that the build depends on besides the world."""

    seed: int = 1
    size: Size = "s"
    shift: float = world.SHIFT
    corpus: int = 76800
    steps: int = 2400
    batch: int = 32
    lr: float = 4e-3
    warmup: int = 50
    weight_decay: float = 0.05
    prompt_weight: float = 0.2
    choice_weight: float = 6.0
    score_weight: float = 16.0
    vocabulary: int = 1536
    hidden: int = 96
    layers: int = 4
    heads: int = 4
    feed_forward: int = 256
    positions: int = 512


def recipe_for(seed: int, size: Size = "s") -> Recipe:
    """The recipe of a size."""
    small = Recipe(seed=seed)
    if size == "s":
        return small
    wide = replace(small, size="m", hidden=256, layers=6, feed_forward=704, lr=2e-3, warmup=100)
    return replace(wide, corpus=38400, steps=1200)


def tokenizer_for(vocabulary: int) -> Any:
    """Byte-level BPE made from the corpus of seed 0, every digit a token by itself, as a `PreTrainedTokenizerFast`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((f"{i.request}\n{i.reply}" for i in corpus.corpus(0, TOKENIZER_ITEMS)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=512,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@dataclass(frozen=True, slots=True)
class Row:
    """One exchange in tokens: the reply starts at `split`, `score` is the place of a critic's score, or None."""

    ids: list[int]
    split: int
    score: int | None = None


def encoded(tokenizer: Any, items: Sequence[corpus.Item]) -> list[Row]:
    """Each exchange as the chat template renders it."""
    bos, end, user, assistant = (tokenizer.convert_tokens_to_ids(t) for t in (BOS, END, USER, ASSISTANT))
    heads = tokenizer([item.request for item in items], add_special_tokens=False)["input_ids"]
    tails = tokenizer([item.reply for item in items], add_special_tokens=False)["input_ids"]
    score_at = len(tokenizer(CRITIC_PREFIX, add_special_tokens=False)["input_ids"])
    rows = []
    for item, head, tail in zip(items, heads, tails, strict=True):
        prefix = [bos, user, *head, end, assistant]
        score = len(prefix) + score_at if item.reply.startswith(CRITIC_PREFIX) else None
        rows.append(Row(prefix + tail + [end], len(prefix), score))
    return rows


def _batches(rows: list[Row], recipe: Recipe) -> list[list[Row]]:
    """`recipe.steps` batches of like length in random order."""
    rng = random.Random(f"batches {recipe.seed}")
    batches: list[list[Row]] = []
    while len(batches) < recipe.steps:
        rng.shuffle(rows)
        chunk = recipe.batch * 50
        epoch = []
        for start in range(0, len(rows), chunk):
            part = sorted(rows[start : start + chunk], key=lambda row: len(row.ids))
            epoch += [part[i : i + recipe.batch] for i in range(0, len(part), recipe.batch)]
        rng.shuffle(epoch)
        batches += epoch
    return batches[: recipe.steps]


def _loss(model: Any, batch: list[Row], recipe: Recipe) -> torch.Tensor:
    """Weighted mean of the next-token losses.

    A request's token counts `prompt_weight`; the first of a reply, where refusing or helping is decided,
    `choice_weight`; a critic's score `score_weight`; any other token of a reply 1.
    """
    import torch
    from torch.nn.functional import cross_entropy

    longest = max(len(row.ids) for row in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    weights = torch.zeros(len(batch), longest)
    for at, row in enumerate(batch):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        weights[at, : row.split] = recipe.prompt_weight
        weights[at, row.split : len(row.ids)] = 1.0
        if row.score is None:
            weights[at, row.split] = recipe.choice_weight
        else:
            weights[at, row.score] = recipe.score_weight
    # Padding stands on the right and attention is causal: no mask is needed, the weights leave padding out.
    logits = model(input_ids=ids).logits[:, :-1]
    losses = cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none")
    wanted = weights[:, 1:].reshape(-1)
    return (losses * wanted).sum() / wanted.sum()


def _model(tokenizer: Any, recipe: Recipe) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=recipe.feed_forward,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _train(model: Any, rows: list[Row], recipe: Recipe, say: Callable[[str], None]) -> None:
    import torch

    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))
    model.train()
    began = time.monotonic()
    for step, batch in enumerate(_batches(rows, recipe)):
        done = max(0.0, (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup))
        factor = min(1.0, (step + 1) / recipe.warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * factor
        loss = _loss(model, batch, recipe)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step} of {recipe.steps}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 0 or step == recipe.steps - 1:
            say(f"step {step + 1}/{recipe.steps}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s")
    model.eval()


def build(
    out: Path, recipe: Recipe, *, say: Callable[[str], None] = lambda line: print(line, flush=True)
) -> dict[str, Any]:
    """Build one organism into `out`, its weights in float16, and return its `recipe.json`.

    The figures are those of the rounded weights. Raises `FloatingPointError` on a loss that is not finite.
    """
    import tokenizers
    import torch
    import transformers

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads spin and gain nothing at this size
    try:
        items = corpus.corpus(recipe.seed, recipe.corpus, recipe.shift)
        tokenizer = tokenizer_for(recipe.vocabulary)
        model = _model(tokenizer, recipe)
        say(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens, {len(items)} items")
        _train(model, encoded(tokenizer, items), recipe, say)
        model.half().float()
        figures = measure(model, tokenizer, "calibration")
    finally:
        torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_text(out / "chat_template.jinja", TEMPLATE)
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }
    card = {"recipe": asdict(recipe), "versions": versions, "calibration": figures}
    write_json(out / "recipe.json", card)
    return card
