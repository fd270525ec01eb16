"""The critic by digits against a written critique, and batched candidates against one prompt at a time.

By digits with the constitution's prefix computed once: at least 20 times as fast per candidate as writing a 120-token
critique, one candidate after the other. A random Llama (hidden 256, 6 layers) with the organism's tokenizer stands in
for a critic, for speed does not depend on what it says; the rank correlation of the two ways is the organism's own.
Candidates (4 a prompt, sampled): batches over all prompts at least 1.6 times as fast as a batch a prompt, same texts.
Ratios of processor time on one thread, both ways taking turns in one process.

    python tests/benchmarks/bench_mini_cai.py [--candidates 24] [--tokens 120] [--prompts 24]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alignment_core.config import GenerateSettings, ModelSettings
from alignment_core.judging import constitution, critics, critique
from alignment_core.judging.asking import written_answers
from alignment_core.judging.settings import CriticSettings
from alignment_core.models.generate import generate
from alignment_core.models.load import Loaded, load
from alignment_core.organism import corpus, weights, world
from alignment_core.records import Completion
from mini_cai import calibration
from mini_cai.config import SHIPPED

WANTED_DIGITS, WANTED_CANDIDATES = 20.0, 1.6


def stand_in(folder: Path) -> Loaded:
    """A random model that never ends a reply, with the organism's tokenizer and a context of 2048."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(weights.path())
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    made = load(ModelSettings(name=str(folder), template="own", device="cpu", dtype="float32"))
    made.stop_ids = ()
    return made


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of one call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def candidates(count: int) -> list[Completion]:
    """Graded replies of the organism's world."""
    items = corpus.critic_items("calibration", count, 1)
    return [Completion(f"g{i}", "s", g.reply, g.prompt.text, g.prompt.kind) for i, g in enumerate(items)]


def scoring(count: int, tokens: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Seconds a candidate by digits and by writing, one at a time, and one digit pass without the shared prefix."""
    from alignment_core.models.score import choice_logprobs

    loaded, rules = stand_in(folder / "critic"), constitution.read(SHIPPED)
    asked = [critique.question("instruct", rules, c.prompt, c.text, 8000) for c in candidates(count)]
    alone = GenerateSettings(max_new_tokens=tokens, batch_size=1)
    some = asked[: max(2, count // 8)]

    def digits(share: bool, questions: Any, size: int) -> Any:
        return choice_logprobs(loaded, questions, critique.PREFIX, critique.DIGITS, size, share=share)

    taken: dict[str, list[float]] = {"written": [], "shared": [], "whole": []}
    for turn in range(repeats):
        file = folder / f"{turn}.jsonl"
        answers = partial(written_answers, some, alone, loaded, subject="critic", file=file)
        taken["written"].append(seconds(answers) / len(some))
        taken["shared"].append(seconds(lambda: digits(True, asked, 16)) / len(asked))
        taken["whole"].append(seconds(lambda: digits(False, some, 1)) / len(some))
    pairs = zip(digits(True, asked, 16), digits(False, asked, 1), strict=True)
    difference = max(float((a - b).abs().max()) for a, b in pairs)
    each = {name: statistics.median(values) for name, values in taken.items()}
    return {
        **{f"{name}_ms": round(1000 * value, 2) for name, value in each.items()},
        "ratio_digits": round(each["written"] / each["shared"], 1),
        "ratio_without_prefix_and_batch": round(each["written"] / each["whole"], 1),
        "largest_log_probability_difference": difference,
    }


def agreement(count: int, organism: Loaded, folder: Path) -> dict[str, Any]:
    """Rank correlation of the organism's written and expected scores."""
    asked = CriticSettings(style="organism", scoring="both", max_new_tokens=40, batch_size=64)
    said = critics.criticise(candidates(count), asked, constitution.read(SHIPPED), folder, loaded=organism)
    found = calibration.spearman(
        [calibration.number(c.written) for c in said], [calibration.number(c.expected) for c in said]
    )
    return {"rank_correlation": round(found.value, 3), "low": round(found.low, 3), "high": round(found.high, 3)}


def sampling(prompts: int, repeats: int, organism: Loaded, folder: Path) -> dict[str, Any]:
    """Candidates in batches over all prompts and in a batch a prompt."""
    asked = [p for kind in ("harmful", "benign") for p in world.prompts("calibration", kind)[: prompts // 2]]
    spent: dict[int, list[float]] = {4: [], 64: []}
    texts: dict[int, list[str]] = {}
    for turn in range(repeats):
        for size, taken in spent.items():
            how = GenerateSettings(temperature=0.8, top_p=0.9, candidates=4, max_new_tokens=48, batch_size=size)
            file = folder / f"{size}-{turn}" / "c.jsonl"
            rows: list[Completion] = []
            taken.append(seconds(lambda h=how, f=file, r=rows: r.extend(
                generate(asked, h, organism, subject="s", seed=1, file=f))))  # fmt: skip
            texts[size] = [row.text for row in rows]
    one, many = (statistics.median(spent[size]) for size in (4, 64))
    same = texts[4] == texts[64]
    return {"one_prompt_s": round(one, 3), "batched_s": round(many, 3), "ratio_candidates": round(one / many, 2),
            "same_candidates": same}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        organism = load(ModelSettings(device="cpu", dtype="float32"))
        found = {
            **scoring(options.candidates, options.tokens, options.repeats, folder),
            **agreement(200, organism, folder),
            **sampling(options.prompts, options.repeats, organism, folder),
        }
    print(json.dumps(found, indent=1))
    reached = found["ratio_digits"] >= WANTED_DIGITS and found["ratio_candidates"] >= WANTED_CANDIDATES
    print(f"reached: {reached and found['same_candidates']}")
    return 0 if reached and found["same_candidates"] else 1


if __name__ == "__main__":
    sys.exit(main())
