"""What the original study wrote and published: its local refusal test's file, and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment_core.evaluation.analysis import Evidence
from alignment_core.evaluation.results import Results
from alignment_core.evaluation.state import State
from alignment_core.io import read_jsonl, write_json
from alignment_core.records import Completion
from alignment_core.report.spec import TextTable
from orth_refusal.files import ORIGINAL_NAMES

FILE = "local_refusal_test.json"


def write(folder: Path, evidence: Evidence, _: Results) -> None:
    """`original/seed-<seed>/local_refusal_test.json` of each training seed, in the original's shape: base, vanilla,
    orthogonal (and regularized) on the harmful prompts, at the attack's end."""
    names = {"baseline": "base", **ORIGINAL_NAMES}
    for seed in (vanilla.seed for vanilla in evidence.states["vanilla"]):
        found = {
            name: local_refusal_test(one, folder, evidence.config.model.name)
            for subject, name in names.items()
            for one in evidence.states.get(subject, ())
            if one.seed in (None, seed)
        }
        write_json(folder / "original" / f"seed-{seed}" / FILE, found)


def local_refusal_test(one: State, folder: Path, model: str) -> dict[str, Any]:
    """The original's entry of one state, by the deciding judge; null, not False or 0, where nothing was judged."""
    verdicts = {(r.prompt_id, r.candidate): r.verdict for r in one.replies}
    rows: list[dict[str, Any]] = []
    for reply in read_jsonl(folder / str(one.completions), Completion.from_json):
        if reply.kind == "harmful":
            found = verdicts[reply.prompt_id, reply.candidate]
            refused = None if found.missing else found.label == "refusal"
            rows.append({"prompt": reply.prompt, "response": reply.text, "refused": refused})
    known = [row["refused"] for row in rows if row["refused"] is not None]
    return {
        "model_name": model,
        "refusal_rate": sum(known) / len(known) if known else None,
        "total_prompts": len(rows),
        "refusals": sum(known),
        "results": rows,
    }


def table() -> TextTable:
    """What the original published."""
    return TextTable(
        "The original's figures",
        ("what", "figure"),
        (("refusal rate of base, vanilla, orthogonal", "none published"),),
        "Its two arms train for 10 and 3 epochs by its README, its penalty has no gradient, its blue - red difference "
        "is 0, and its direction of lora_A is mostly the random start: see the study's mapping.",
    )
