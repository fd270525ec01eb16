"""Peak memory of short trainings beside what `alignment_core.models.memory` works out for them, on the CPU.

    .venv/bin/python tests/benchmarks/bench_memory.py            prints the table
    .venv/bin/python tests/benchmarks/bench_memory.py --write    puts it into docs/scale.md

Each training is a process of its own: a random model of at least 100M parameters with a real vocabulary, float32, two
steps at full rows. Measured is the most memory the process held (VmHWM) above what it held when the model, its adapter
and the trainer stood; worked out are gradients, moments and activations.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from alignment_core.config import LoraSettings, ModelSettings, TrainSettings
from alignment_core.models import memory, shape
from alignment_core.models.lora import targets
from alignment_core.records import Example, Message, PreferencePair
from drift_dpo.config import DpoSettings

DOCS = Path(__file__).parents[2] / "docs" / "scale.md"
START, END = "<!-- measured: tests/benchmarks/bench_memory.py -->", "<!-- end of measured -->"
WITHIN = 0.15
LENGTH = 512

_LLAMA = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6, "num_attention_heads": 16,
          "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True}  # fmt: skip
_QWEN3 = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 6, "num_attention_heads": 16,
          "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True}  # fmt: skip
_PHI = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6, "num_attention_heads": 16,
        "vocab_size": 51200}  # fmt: skip
CASES: tuple[tuple[str, dict[str, Any], str, int, bool], ...] = (
    ("llama", _LLAMA, "SFT", 2, False),
    ("llama", _LLAMA, "SFT", 2, True),
    ("llama", _LLAMA, "DPO", 1, False),
    ("qwen3", _QWEN3, "SFT", 3, True),
    ("qwen3", _QWEN3, "DPO", 1, True),
    ("phi", _PHI, "SFT", 2, False),
)
"""Family, shape, training, rows (or pairs) of a pass, checkpointing."""


def _kilobytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def _mark(out: dict[str, int]) -> Any:
    """A callback that takes the process's memory when all stands, and forgets the peak until then."""
    from transformers import TrainerCallback

    class Mark(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            for parameter in model.parameters():
                parameter.sum()  # weights still in the file are read
            Path("/proc/self/clear_refs").write_text("5")
            out["before"] = _kilobytes("VmRSS")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            out["peak"] = _kilobytes("VmHWM")

    return Mark()


def work(number: int) -> dict[str, float]:
    """One case in this process: bytes measured and worked out, and the model's parameters."""
    from alignment_core.models import load, lora
    from alignment_core.models.train import sft
    from alignment_core.testing import build_tiny_model
    from drift_dpo.dpo import dpo

    family, form, kind, rows, checkpointing = CASES[number]
    settings = LoraSettings()
    train = (DpoSettings if kind == "DPO" else TrainSettings)(
        batch_size=rows, accumulate=1, max_steps=2, max_length=LENGTH, gradient_checkpointing=checkpointing,
        warmup_ratio=0.0, logging_steps=1,
    )  # fmt: skip
    marked: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_tiny_model(folder / "model", family, **form)
        model = ModelSettings(name=str(folder / "model"), device="cpu", dtype="float32")
        shared = {"model": model, "lora": settings, "train": train, "seed": 13, "callbacks": [_mark(marked)]}
        prompt, replies = Message("user", "what is a lamp"), [" ".join([word] * 2 * LENGTH) for word in ("red", "blue")]
        if kind == "SFT":
            one = Example((prompt, Message("assistant", replies[0])), "helpful", "made")
            sft([one] * (2 * rows), folder=folder / "out", **shared)
        else:
            loaded = load.load(model, trainable=True)
            lora.save_adapter(
                lora.add_adapter(loaded.model, settings), folder / "start", load.identity(model)["weights"]
            )
            del loaded
            sides = [(prompt, Message("assistant", reply)) for reply in replies]
            dpo([PreferencePair(*sides, "made")] * (2 * rows), folder=folder / "out", start=folder / "start", **shared)
        values = shape.config_of(model)
        assert values is not None
        need = memory.training_memory(values, model, settings, train, "cpu")
        whole = shape.of(shape.build(values))
        standing = whole.adapter_parameters(settings, targets(shape.build(values), settings)) * 4.0 * train.sequences
    return {
        "parameters": whole.weights,
        "measured": 1024.0 * (marked["peak"] - marked["before"]),
        "worked out": need.adapter - standing + need.activations,
    }


def table() -> str:
    """Every case, each in a process whose allocator gives freed blocks back at once."""
    lines = [
        "| model | parameters | training | measured, GB | worked out, GB | ratio |",
        "| --- | --: | --- | --: | --: | --: |",
    ]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    for number, (family, _, kind, rows, checkpointing) in enumerate(CASES):
        command = [sys.executable, __file__, "--case", str(number)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        how = f"{kind}, {rows} x {LENGTH}{', checkpointing' if checkpointing else ''}"
        ratio = found["worked out"] / found["measured"]
        lines.append(
            f"| {family} | {found['parameters'] / 1e6:.0f}M | {how} | {found['measured'] / 1e9:.2f} | "
            f"{found['worked out'] / 1e9:.2f} | {ratio:.2f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
        if abs(ratio - 1) > WITHIN:
            print(f"off by more than {WITHIN:.0%}", file=sys.stderr)
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(work(int(sys.argv[2]))))
        return
    made = table()
    print(made)
    if "--write" in sys.argv:
        text = DOCS.read_text(encoding="utf-8")
        before, after = text.index(START) + len(START), text.index(END)
        DOCS.write_text(f"{text[:before]}\n\n{made}\n\n{text[after:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
