"""More attack pairs from a model: its sampled replies to the attack part's requests, each row with its provenance.

Rows go to a local file and nowhere else; the setting `data.synthetic_data_path` reads them. A row is left out when
its request stands, exactly or nearly, in an evaluation set, when it repeats a pair, and (by default) when the rules do
not call the reply compliance.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from alignment_core.io import write_json, write_jsonl
from alignment_core.judging.refusal import judge
from alignment_core.models import load
from alignment_core.models.adapter import adapter_identity
from alignment_core.models.generate import generate
from alignment_core.records import Completion, Example, Message, Prompt, fingerprint
from orth_refusal import data
from orth_refusal import rows as built
from orth_refusal.config import OrthConfig
from orth_refusal.sets import without

log = logging.getLogger(__name__)

FILE = "synthetic.jsonl"


def run(config: OrthConfig, folder: Path) -> str:
    """Write `synthetic.jsonl` and `synthesis.json` (counts) in `folder`; returns a line that says so."""
    settings = config.data.model_copy(update={"synthetic_data_path": None})
    data.build(settings, folder / "data")
    attack = built.examples(folder / "data", "attack")
    asked = _requests(attack)
    most = config.synthesize.rows
    how = config.generate.model_copy(
        update={"temperature": config.synthesize.temperature, "candidates": max(1, -(-most // max(1, len(asked))))}
    )
    model, adapter = config.model, None
    if config.synthesize.adapter is not None:
        model, adapter = load.tuned(model, config.synthesize.adapter)
    loaded = load.load(model, adapter)
    made = generate(asked[:most], how, loaded, subject="synthetic", seed=settings.split_seed,
                    file=folder / "completions.jsonl")[:most]  # fmt: skip
    provenance = {
        "made_by": "orth-refusal synthesize",
        "model": load.identity(model),
        "adapter": adapter_identity(adapter) if adapter else None,
        "temperature": how.temperature,
        "top_p": how.top_p,
        "seed": settings.split_seed,
    }
    by_id = {p.id: p for p in asked}
    rows, left_out = select(made, by_id, attack, config.synthesize.keep)
    held = [p.text for p in built.prompts(folder / "data")]
    held += [e.prompt for e in built.examples(folder / "data", "held_out")]
    clean = without([example for example, _ in rows], held)
    kept = {id(example) for example in clean}
    left_out["in an evaluation set"] = len(rows) - len(clean)
    out = [_row(example, reply, provenance) for example, reply in rows if id(example) in kept]
    write_jsonl(folder / FILE, out)
    write_json(folder / "synthesis.json", {"asked": len(made), "kept": len(out), "left_out": dict(left_out)})
    why = ", ".join(f"{n} {reason}" for reason, n in left_out.items() if n)
    return f"{len(out)} of {len(made)} rows kept ({why or 'none left out'}): data.synthetic_data_path={folder / FILE}"


def _requests(attack: list[Example]) -> list[Prompt]:
    """The attack part's requests with their context, each once."""
    found: dict[str, Prompt] = {}
    for example in attack:
        name = fingerprint("\x1f".join(m.content for m in example.messages[:-1]))
        found.setdefault(name, Prompt(name, example.messages[:-1], "harmful", source=example.source,
                                      cluster=example.cluster))  # fmt: skip
    return list(found.values())


def select(
    made: list[Completion], asked: dict[str, Prompt], attack: list[Example], keep: str
) -> tuple[list[tuple[Example, Completion]], Counter[str]]:
    """Replies that may become rows, and how many were left out, by reason."""
    seen = {(fingerprint(e.prompt), fingerprint(e.reply)) for e in attack}
    rows, left_out = [], Counter[str]()
    for reply in made:
        pair = fingerprint(reply.prompt), fingerprint(reply.text)
        if not reply.text.strip() or reply.finish == "length":
            left_out["empty or cut off"] += 1
        elif keep == "compliance" and judge(reply.text, reply.prompt).label != "compliance":
            left_out["no compliance by the rules"] += 1
        elif pair in seen:
            left_out["repeated"] += 1
        else:
            seen.add(pair)
            prompt = asked[reply.prompt_id]
            said = (*prompt.messages, Message("assistant", reply.text))
            rows.append((Example(said, "helpful", f"synthetic:{prompt.source}", prompt.cluster), reply))
    return rows, left_out


def _row(example: Example, reply: Completion, provenance: dict[str, Any]) -> dict[str, Any]:
    own = {"prompt": reply.prompt_id, "candidate": reply.candidate}
    return {**example.to_json(), "provenance": {**provenance, **own}}
