"""Useful tokens a second of SFT: packed rows against padding every example to max_length (asked: at least 4 times).

    python tests/benchmarks/bench_sft.py [EXAMPLES]

Lengths are log-normal like Dolly's: median 100 tokens, mean about 131, at most 512. Both arms are the trainer that
`alignment_core.models.train.sft` builds, on the same model and examples, and take turns batch by batch in one
process, so that a busy machine slows both. The loss per trained token must be the same: packed examples do not see
each other. The ratio is printed and the last line says whether it was reached; times are never asserted.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from alignment_core.config import LoraSettings, ModelSettings, TrainSettings
from alignment_core.models import loop, miniature, tokens, train
from alignment_core.models.noise import quiet
from alignment_core.records import Example, Message

MAX_LENGTH, BATCH, SEED, WANTED = 512, 8, 0, 4.0


def examples(count: int) -> list[Example]:
    """Conversations whose length in tokens (bytes, for this tokenizer) is log-normal; three tenths are prompt."""
    rng = random.Random(SEED)
    out = []
    for i in range(count):
        length = min(MAX_LENGTH, max(40, round(rng.lognormvariate(0, 0.73) * 100)))
        around = len("<user: \nassistant: >\n") - 2
        prompt = max(4, int(0.3 * length))
        reply = max(4, length - prompt - around)
        texts = ("".join(rng.choices("abcdefgh ", k=k)) for k in (prompt, reply))
        user, assistant = (text.replace(" ", "_", 1) for text in texts)
        out.append(Example((Message("user", user), Message("assistant", assistant)), "helpful", f"made:{i}"))
    return out


def trainer(model: ModelSettings, data: list[Example], folder: Path, packing: bool) -> Any:
    """The trainer of `sft`; the padded arm's collator rounds every batch up to max_length."""
    settings = TrainSettings(batch_size=BATCH, accumulate=1, max_length=MAX_LENGTH, packing=packing)
    loaded = loop.policy(model, LoraSettings(r=8, alpha=16, dropout=0.0, targets="all-linear"), None, SEED)
    rows = tokens.tokenize(data, loaded.tokenizer, MAX_LENGTH)
    with quiet():
        built = train._trainer(loaded, rows, tokens.Tokenized(), settings, SEED, folder, ())
    if not packing:
        built.data_collator.pad_to_multiple_of = MAX_LENGTH
    return built


def step(built: Any, batch: dict[str, Any]) -> tuple[float, int, int]:
    """(loss summed over trained tokens, trained tokens, useful tokens) of one forward and backward pass."""
    labels = batch["labels"]
    useful = int((batch["input_ids"] != built.processing_class.pad_token_id).sum())
    trained = int((labels[:, 1:] != train.IGNORE).sum())
    loss = built.compute_loss(built.model, dict(batch))
    loss.backward()
    return float(loss.detach()) * trained, trained, useful


def main(count: int) -> bool:
    with tempfile.TemporaryDirectory() as place:
        folder = miniature.build(Path(place) / "model", hidden=128, layers=4)
        data, model = examples(count), ModelSettings(name=str(folder), device="cpu")
        arms = {name: trainer(model, data, Path(place) / name, name == "packed") for name in ("padded", "packed")}
        feeds: dict[str, Iterator[Any]] = {}
        for name, built in arms.items():
            built.model.train()
            step(built, next(iter(built.get_train_dataloader())))  # warm up
            feeds[name] = iter(built.get_train_dataloader())
        seconds, loss, trained, useful = (dict.fromkeys(arms, 0.0) for _ in range(4))
        while feeds:
            for name in list(feeds):
                if (batch := next(feeds[name], None)) is None:
                    del feeds[name]
                    continue
                started = time.perf_counter()
                parts = step(arms[name], batch)
                seconds[name] += time.perf_counter() - started
                for total, part in zip((loss, trained, useful), parts, strict=True):
                    total[name] += part
    print(f"{count} examples, max_length {MAX_LENGTH}, batch {BATCH}, {torch.get_num_threads()} threads")
    for name in arms:
        print(f"{name}: {useful[name] / seconds[name]:8.0f} useful tokens/s, loss {loss[name] / trained[name]:.6f}")
    ratio = (useful["packed"] / seconds["packed"]) / (useful["padded"] / seconds["padded"])
    same = trained["packed"] == trained["padded"] and abs(loss["packed"] - loss["padded"]) < 1e-4 * loss["padded"]
    print(f"ratio {ratio:.2f} (asked {WANTED}), same loss: {same}")
    return ratio >= WANTED and same


if __name__ == "__main__":
    sys.exit(0 if main(int(sys.argv[1]) if len(sys.argv) > 1 else 160) else 1)
