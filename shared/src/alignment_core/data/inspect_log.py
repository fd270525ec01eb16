"""Inspect's log (`.eval`, schema version 2), written for its readers; `inspect_samples` reads one.

The file is a zip: `_journal/start.json`, `samples/<id>_epoch_<n>.json`, `summaries.json`, `header.json` last. One file
holds one model state and seed. A verdict becomes a score whose value is the label, with the evidence as its answer and
the rule as its explanation; a missing verdict is NaN with the reason `grader_failed`, which Inspect leaves out of its
metrics. No task file and no scorer path is written: its tools would import them.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.records import Completion, Verdict
from alignment_core.stats.intervals import wilson

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OURS = "alignment_core"
"""Where a sample's metadata holds what only our completions say."""


def write(
    path: Path,
    completions: Sequence[Completion],
    verdicts: Iterable[Verdict] = (),
    *,
    task: str,
    created: datetime | None = None,
) -> None:
    """Write one model state's replies, atomically. `created` fixes the time in the file (now by default).

    Raises `ValueError` when the replies are of several states or seeds, or two have one prompt and candidate.
    """
    states = {(c.subject, c.seed) for c in completions}
    keys = [(c.prompt_id, c.candidate) for c in completions]
    if len(states) != 1 or len(set(keys)) != len(keys):
        raise ValueError("an .eval file holds one state and seed, each prompt and candidate once")
    (subject, seed), *_ = states
    said: dict[tuple[str, int], list[Verdict]] = {}
    for v in verdicts:
        if (v.subject, v.seed) == (subject, seed):
            said.setdefault((v.prompt_id, v.candidate), []).append(v)
    samples = [_sample(c, said.get((c.prompt_id, c.candidate), [])) for c in completions]
    start = _start(samples, subject, seed, task, created or datetime.now(UTC))
    header = {**start, "status": "success", "results": _results(samples), "stats": _stats(start)}
    members: list[tuple[str, Any]] = [("_journal/start.json", start)]
    members += [(f"samples/{s['id']}_epoch_{s['epoch']}.json", s) for s in samples]
    members += [("summaries.json", [_summary(s) for s in samples]), ("header.json", header)]
    with io.atomic(path) as stream, zipfile.ZipFile(stream.buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members:
            # A fixed date: the same replies give the same bytes.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), json.dumps(value), zipfile.ZIP_DEFLATED)


def _identifier(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:22]


def _sample(c: Completion, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    known = _SAFE.fullmatch(c.prompt_id) is not None
    name = c.prompt_id if known else hashlib.sha256(c.prompt_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    stop = "stop" if c.finish == "stop" else "max_tokens"
    reply = {"role": "assistant", "content": c.text, "source": "generate", "model": c.subject}
    about = {k: v for k, v in c.to_json().items() if k not in ("text", "prompt")}
    return {
        "id": name,
        "epoch": c.candidate + 1,
        "input": c.prompt,
        "target": "",
        "messages": [{"role": "user", "content": c.prompt, "source": "input"}, reply],
        "output": {
            "model": c.subject,
            "choices": [{"message": reply, "stop_reason": stop}],
            "completion": c.text,
            "usage": {"input_tokens": 0, "output_tokens": c.tokens, "total_tokens": c.tokens},
        },
        "scores": {v.judge: _score(v, c.text) for v in verdicts},
        "metadata": {OURS: about, "kind": c.kind, "category": c.category},
        "store": {},
        "events": [],
        "model_usage": {},
        "attachments": {},
    }


def _score(v: Verdict, text: str) -> dict[str, Any]:
    evidence = list(v.evidence) if v.evidence is not None else None
    score: dict[str, Any] = {
        "value": float("nan") if v.label is None else v.label,
        "answer": None if v.evidence is None else text[v.evidence[0] : v.evidence[1]],
        "explanation": v.rule or None,
        "metadata": {"evidence": evidence, "score": v.score},
        "history": [],
    }
    return score if v.label is not None else {**score, "reason": "grader_failed"}


def _start(
    samples: Sequence[dict[str, Any]], subject: str, seed: int | None, task: str, at: datetime
) -> dict[str, Any]:
    ids = list(dict.fromkeys(s["id"] for s in samples))
    identity = _identifier(task, subject, seed, [[s["id"], s["epoch"], s["output"]["completion"]] for s in samples])
    judges = list(dict.fromkeys(j for s in samples for j in s["scores"]))
    evaluation = {
        "eval_id": identity,
        "run_id": _identifier("run", identity),
        "created": at.isoformat(timespec="seconds"),
        "task": task,
        "task_id": _identifier("task", task, subject, seed),
        "task_version": 0,
        "task_attribs": {},
        "task_args": {},
        "dataset": {"name": task, "samples": len(ids), "sample_ids": ids, "shuffled": False},
        "model": subject,
        "model_args": {},
        "model_generate_config": {},
        "config": {"epochs": max(s["epoch"] for s in samples)},
        "packages": {},
        "metadata": {OURS: {"seed": seed}},
        "scorers": [{"name": j} for j in judges],
    }
    return {"version": 2, "eval": evaluation, "plan": {"name": "plan", "steps": [], "config": {}}}


def _results(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The share of refusals of each judge; its Wilson interval is in the metric's metadata."""
    scores = []
    for judge in dict.fromkeys(j for s in samples for j in s["scores"]):
        values = [s["scores"][judge]["value"] for s in samples if judge in s["scores"]]
        labels = [v for v in values if isinstance(v, str)]
        share: float = float("nan")
        about: dict[str, Any] = {"n": len(labels)}
        if labels:
            found = wilson(sum(v == "refusal" for v in labels), len(labels))
            share = found.value
            about |= {"low": found.low, "high": found.high, "level": found.level, "method": found.method}
        metric = {"name": "refusal_rate", "value": share, "params": {}, "metadata": about}
        counted = {"scored_samples": len(labels), "unscored_samples": len(values) - len(labels)}
        scores.append({"name": judge, "scorer": judge, **counted, "params": {}, "metrics": {"refusal_rate": metric}})
    return {"total_samples": len(samples), "completed_samples": len(samples), "scores": scores}


def _stats(start: Mapping[str, Any]) -> dict[str, Any]:
    at = start["eval"]["created"]
    return {"started_at": at, "completed_at": at, "model_usage": {}}


def _summary(sample: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("id", "epoch", "input", "target", "metadata", "scores", "model_usage")
    return {**{k: sample[k] for k in kept}, "completed": True}


def file_name(subject: str, seed: int | None) -> str:
    """A file's name for a state: the letters, digits, `-` and `_` of its name, and a hash where that lost some."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", subject).strip("-")[:60] or "state"
    digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{plain}{'' if plain == subject else f'-{digest}'}{'' if seed is None else f'-s{seed}'}"
