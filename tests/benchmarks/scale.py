"""The tables of docs/scale.md, and README.md's of the real models: what the presets take, worked out on paper.

    .venv/bin/python tests/benchmarks/scale.py            prints the tables
    .venv/bin/python tests/benchmarks/scale.py --write    puts them into docs/scale.md and README.md

Another price, GPU, share of a peak or length of an example: change it here, in `scale_work.py` or in `Assumed`, and
run it again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from scale_work import (
    H100,
    MODELS,
    PAIRS,
    STUDIES,
    TOKENS,
    USABLE,
    Work,
    beside,
    drift_dpo,
    fitted,
    needs,
    parts,
    shape_of,
    works,
)

from alignment_core.config import LoraSettings, ModelSettings
from alignment_core.data.catalogue import SOURCES
from alignment_core.models import scale
from alignment_core.models.catalogue import CATALOGUE
from alignment_core.models.memory import held_bytes

ROOT = Path(__file__).parents[2]
START, END = "<!-- tables: tests/benchmarks/scale.py -->", "<!-- end of tables -->"
GPUS = (1, 8, 64)
PRICE = 3.0
"""US dollars for an hour of one H100, taken; put your own."""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _held(size: str, work: Work) -> str:
    held = "NF4" if work.model.quantize == "nf4" else "bf16"
    return f"{size} {held}{'' if fitted(work) is work else ', checkpointed'}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"


def memory_table() -> str:
    """GB of one process by part, and the smallest GPU that holds it."""
    head = [
        "study",
        "model",
        "weights",
        "adapter, AdamW",
        "activations",
        "SNIP sums",
        "cache of a batch",
        "at most",
        "GPU",
    ]
    rows = []
    for size, asked in works():
        work = fitted(asked)
        part = {k: f"{v / 1e9:.1f}" for k, v in work.memory.items()}
        fits = [d.name for d in scale.DEVICES if work.peak() <= USABLE * d.memory]
        sums = part["sums"] if work.sums else ""
        if work.passes > 1:
            sums += f" in {work.passes} passes"
        rows.append([work.study, _held(size, asked), part["weights"], part["adapter"], part["activations"], sums,
                     part["cache"], f"{work.peak() / 1e9:.0f}", fits[0] if fits else "none"])  # fmt: skip
    return _table(head, rows)


def time_table() -> str:
    """Wall time of one seed on 1, 8 and 64 H100s, the processes used, GPU-hours and dollars."""
    machine, rows = scale.Machine(H100), []
    for size, asked in works():
        work = fitted(asked)
        row = [work.study, _held(size, asked)]
        for gpus in GPUS:
            share, seconds = work.processes(gpus), sum(parts(work, machine, gpus).values())
            hours = share * seconds / 3600
            row.append(f"{_hours(seconds)} on {share}; {hours:.1f} GPU-h, ${PRICE * hours:,.0f}")
        rows.append(row)
    return _table(["study", "model", *(f"{g} GPU{'s' if g > 1 else ''}" for g in GPUS)], rows)


def share_table() -> str:
    """Where the time goes on one H100."""
    machine, rows = scale.Machine(H100), []
    for size, asked in works():
        work = fitted(asked)
        found = parts(work, machine, 1)
        whole = sum(found.values())
        rows.append([work.study, size, *(f"{seconds / whole:.0%}" for seconds in found.values())])
    return _table(["study", "model", "training", "replies", "scores", "loading"], rows)


def device_table() -> str:
    """drift-dpo's own paper preset (8B, NF4) on one of each GPU."""
    work = drift_dpo(MODELS["8B"], False)
    rows = []
    for device in scale.DEVICES:
        machine = scale.Machine(device)
        train = work.trainings[0]
        tokens = train.train.batch_size * train.length
        one = scale.train_step_seconds(
            machine, work.shape, work.model, work.lora, train.train.batch_size, train.length, True
        )
        batch = work.answers[0]
        size, new = batch.generate.batch_size, batch.generate.max_new_tokens
        reply = scale.reply_seconds(machine, work.shape, work.model, size, batch.prompt, new)
        fits = work.peak() <= USABLE * device.memory
        seconds = sum(parts(work, machine, 1).values())
        peaks = [f"{device.flops / 1e12:.0f}", f"{device.bandwidth / 1e12:.2f}"]
        rates = [f"{tokens / one:,.0f}", f"{size * new / reply:,.0f}"]
        rows.append([device.name, *peaks, *rates, "yes" if fits else "no", _hours(seconds)])
    head = ["GPU", "peak TFLOP/s", "peak TB/s", "training tokens/s", "reply tokens/s", "holds it", "one seed"]
    return _table(head, rows)


def kernel_table() -> str:
    """Bytes and FLOPs of the single kernels, which depend on no assumption but the formulae."""
    rows, lora = [], LoraSettings()
    for size, name in MODELS.items():
        shape = shape_of(name)
        flops = [
            scale.training_flops(shape, 1, 2048, kind, again) / 1e9
            for kind, again in ((None, False), (lora, False), (lora, True))
        ]
        kinds = [ModelSettings(name=name, dtype="bfloat16", quantize=q) for q in ("none", "nf4")]
        held = [held_bytes(shape, kind) / 1e9 for kind in kinds]
        moved = [scale.pass_bytes(shape, kind) / 1e9 for kind in kinds]
        adapter = 4e-6 * shape.adapter_parameters(lora)
        row = [size, " / ".join(f"{v:.0f}" for v in flops)]
        row += [" / ".join(f"{v:.1f}" for v in two) for two in (held, moved)]
        rows.append([*row, f"{scale.kv_bytes(shape) / 1024:.0f}", f"{4e-9 * shape.linear:.1f}", f"{adapter:.0f}",
                     f"{6e-9 * shape.linear:.0f}"])  # fmt: skip
    head = [
        "model",
        "GFLOP a trained token: full / LoRA / LoRA, checkpointed",
        "GB held: bf16 / NF4",
        "GB moved a decoding step: bf16 / NF4",
        "KiB of cache a token",
        "GB of SNIP sums",
        "MB of gradient reduced a step (r=16)",
        "GB gathered by FSDP a micro-batch",
    ]
    return _table(head, rows)


def assumptions() -> str:
    """What is taken, in one table."""
    taken = scale.Assumed()
    rows = [[f"tokens of {what}", str(count)] for what, count in TOKENS.items()]
    rows += [
        ["pairs that reach DPO", f"{PAIRS:,}"],
        ["share of the peak FLOP/s reached", f"{taken.flops_share:.0%}"],
        ["share of the peak bytes/s reached", f"{taken.bytes_share:.0%}"],
        ["least time of a layer's pass, kernels launched from Python", f"{taken.launch * 1e3:.1f} ms"],
        ["reading weights from disk", f"{taken.disk / 1e9:.0f} GB/s"],
        ["price of an H100", f"${PRICE:.0f} an hour"],
    ]
    return _table(["taken", "value"], rows)


def real_table() -> str:
    """For the README: what the small and paper presets take as they stand, and what is to be accepted first."""
    gpus = [d for d in scale.DEVICES if d.name.startswith(("RTX", "H100"))]
    rows = []
    for study in STUDIES:
        for preset in ("small", "paper"):
            work, asked = study(preset=preset), needs(study, preset)
            models = [name for kind, name, _ in asked if kind == "model"]
            others = [held_bytes(shape_of(m.name), m) for m in beside(study, preset)]
            peak = max(work.peak(), *others, 0.0)
            download = sum(CATALOGUE[name].download for name in models)
            rows.append(
                [
                    f"{work.study} `{preset}`",
                    "<br>".join(name.split("/")[1] for name in models),
                    f"{peak / 1e9:.0f} GB",
                    f"{(download + work.groups) / 1e9 + 3:.0f} GB",
                    *(
                        _hours(sum(parts(work, scale.Machine(d), 1).values())) if peak <= USABLE * d.memory else "no"
                        for d in gpus
                    ),
                    "<br>".join(f"[{name}]({page(kind, name)})" for kind, name, _ in asked if gated(name)) or "nothing",
                ]
            )
    head = ["study, preset", "models", "GPU memory", "disk", "one seed, RTX 4090", "H100", "accept first"]
    return _table(head, rows)


def page(kind: str, name: str) -> str:
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"


def gated(name: str) -> bool:
    """Whether the hub asks to accept terms before a repository can be read."""
    known = CATALOGUE.get(name)
    return known.gated if known else any(s.gated for s in SOURCES.values() if s.repo == name)


def tables() -> str:
    """Everything between the page's markers."""
    sections = [
        ("Assumed", assumptions()),
        ("Memory of one process, GB", memory_table()),
        ("Time and cost of one seed on H100s", time_table()),
        ("Where the time goes on one H100", share_table()),
        ("drift-dpo's paper preset on one GPU", device_table()),
        ("The kernels", kernel_table()),
    ]
    return "\n\n".join(f"### {title}\n\n{table}" for title, table in sections)


MADE: dict[Path, Callable[[], str]] = {ROOT / "docs" / "scale.md": tables, ROOT / "README.md": real_table}
"""Pages and what stands between their markers."""


def placed(text: str, made: str) -> str:
    """A page with `made` between its markers."""
    before, rest = text.split(START)
    return f"{before}{START}\n\n{made}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    for path, make in MADE.items():
        if "--write" in sys.argv[1:]:
            path.write_text(placed(path.read_text(), make()))
        else:
            print(make(), end="\n\n")
