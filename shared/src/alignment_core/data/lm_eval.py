"""lm-eval's samples (`samples_<task>_<time>.jsonl`, from `--log_samples`): written for its readers, and read.

Each judge is a metric `refusal_<judge>`: 1, 0, or null where the verdict is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.records import KINDS, Completion, Verdict, fingerprint

KEYS = {"doc_id", "arguments", "resps"}
"""What tells a row of lm-eval's from others."""
_OURS = {"prompt_id", "kind", "subject", "candidate"}


def write(path: Path, completions: Iterable[Completion], verdicts: Mapping[tuple[str, int], Sequence[Verdict]]) -> None:
    """Write one state's replies as samples; `verdicts` are by prompt id and candidate."""
    io.write_jsonl(
        path, (_sample(i, c, verdicts.get((c.prompt_id, c.candidate), ())) for i, c in enumerate(completions))
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _sample(number: int, c: Completion, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    doc = {k: v for k, v in c.to_json().items() if k != "text"}
    metrics = {f"refusal_{v.judge}": None if v.label is None else float(v.label == "refusal") for v in verdicts}
    return {
        "doc_id": number,
        "doc": doc,
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": c.prompt, "arg_1": {"until": []}}},
        "resps": [[c.text]],
        "filtered_resps": [c.text],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": _sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _sha256(c.prompt),
        "target_hash": _sha256(""),
        **metrics,
        "verdicts": [v.to_json() for v in verdicts],
    }


@dataclass(frozen=True, slots=True)
class Sample:
    """One reply of a row."""

    values: dict[str, Any]
    verdicts: tuple[Mapping[str, Any], ...] = ()
    no_text: str = ""


def read(row: Mapping[str, Any]) -> list[Sample]:
    """The replies of one row, several to one document as candidates; `ValueError` or `LookupError` for another shape.

    Metrics stand under their names. A multiple-choice row has metrics and no reply.
    """
    doc = row["doc"] if isinstance(row.get("doc"), Mapping) else {}
    prompt, asked_for_text = _asked(row["arguments"])
    named = row.get("metrics") or ()
    numbers = {name: row[name] for name in named if name in row}
    numbers |= {k: v for k, v in row.items() if k not in numbers and isinstance(v, int | float | str) and k != "doc_id"}
    if doc.keys() >= _OURS and asked_for_text:
        (text,) = _replies(row["resps"])
        return [Sample({**numbers, **doc, "text": text, "prompt": prompt}, tuple(row.get("verdicts", ())))]
    about = {
        **numbers,
        **{k: doc[k] for k in ("category", "cluster") if isinstance(doc.get(k), str)},
        **({"kind": doc["kind"]} if doc.get("kind") in KINDS else {}),
        "prompt_id": str(row["doc_id"]),
        "prompt": prompt,
        "source": "lm-eval",
    }
    about.setdefault("cluster", fingerprint(prompt))
    if not asked_for_text:
        return [Sample(about, (), "a multiple-choice row: the model was asked for likelihoods, not for a reply")]
    return [Sample({**about, "text": text, "candidate": i}) for i, text in enumerate(_replies(row["resps"]))]


def _asked(arguments: Any) -> tuple[str, bool]:
    """The prompt, and whether a text was asked for: `{"gen_args_0": {"arg_0": prompt, "arg_1": settings}}`, or
    `[[prompt, settings]]` before; a multiple-choice row has a text where the settings stand."""
    first = arguments["gen_args_0"] if isinstance(arguments, Mapping) else arguments[0]
    prompt, settings = (first["arg_0"], first.get("arg_1")) if isinstance(first, Mapping) else (first[0], first[1])
    if isinstance(prompt, str) and prompt.lstrip().startswith('[{"role"'):
        prompt = json.loads(prompt)
    if isinstance(prompt, list):
        asked = [m["content"] for m in prompt if m.get("role") == "user"]
        prompt = asked[-1] if asked else None
    if not isinstance(prompt, str):
        raise ValueError("the arguments hold no prompt")
    return prompt, not isinstance(settings, str)


def _replies(resps: Any) -> list[str]:
    """Replies of `[[text, ...]]`."""
    flat = [text for group in resps for text in ([group] if isinstance(group, str) else group)]
    if not flat or not all(isinstance(text, str) for text in flat):
        raise ValueError("resps holds no text")
    return flat
