"""Inspect's log (`.eval`, schema version 2): written for its readers, and read from evaluations people already ran.

The file is a zip: `_journal/start.json`, `samples/<id>_epoch_<n>.json`, `summaries.json`, `header.json` last. One file
holds one model state and seed. A verdict becomes a score whose value is the label, with the evidence as its answer and
the rule as its explanation; a missing verdict is NaN with the reason `grader_failed`, which Inspect leaves out of its
metrics. No task file and no scorer path is written: its tools would import them.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.data.zips import Zip
from alignment_core.errors import InputError
from alignment_core.records import KINDS, LABELS, Completion, Verdict
from alignment_core.stats.intervals import wilson

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OURS = "alignment_core"
_COMPLETION = {field.name for field in fields(Completion)}


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
        "metadata": {_OURS: about, "kind": c.kind, "category": c.category},
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
        "metadata": {_OURS: {"seed": seed}},
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


Sample = tuple[dict[str, Any], tuple[dict[str, Any], ...]]
"""A reply's fields under our names, and what each scorer said (`judge`, `label`, `rule`, `evidence`, `score`)."""


def read(path: Path) -> Iterator[tuple[str, Sample | str]]:
    """`(where, sample)` of every sample of a log, or the reason for none.

    An epoch becomes a candidate. Scores are verdicts only where they are our labels or missing, numbers where they are
    numbers; the kind of prompt is there only where the metadata says one of ours. A sample that ended in an error has
    no text and its reason as `failure`. Raises `InputError` for what is no log at all, `UserError` for no such file.
    """
    if path.suffix == ".json":
        log = io.read_json(path)
        samples = log.get("samples") if isinstance(log, dict) else None
        if not isinstance(samples, list):
            raise InputError(str(path), None, "not an Inspect log: it has no list of samples")
        evaluation = _evaluation(path, log)
        for i, sample in enumerate(samples):
            yield f"{path}#samples/{i}", _row(sample, evaluation)
        return
    with Zip(path) as archive:
        names = archive.names()
        head = next((n for n in ("header.json", "_journal/start.json") if n in names), None)
        if head is None:
            raise InputError(
                str(path), None, "not an Inspect log: neither header.json nor _journal/start.json is in it"
            )
        evaluation = _evaluation(path, _json(path, head, archive.read(head)))
        for name in names:
            if name.startswith("samples/") and name.endswith(".json"):
                try:
                    sample = _json(path, name, archive.read(name))
                except InputError as error:
                    yield f"{path}#{ascii(name)[1:-1]}", error.reason
                    continue
                yield f"{path}#{ascii(name)[1:-1]}", _row(sample, evaluation)


def _json(path: Path, name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), None, f"{ascii(name)[1:-1]}: not JSON") from error


def _evaluation(path: Path, header: Any) -> Mapping[str, Any]:
    found = header.get("eval") if isinstance(header, dict) else None
    if not isinstance(found, dict) or header.get("version", 2) != 2:
        raise InputError(str(path), None, "not an Inspect log of schema version 2; `inspect log convert` makes one")
    return found


def _row(sample: Any, evaluation: Mapping[str, Any]) -> Sample | str:
    try:
        return _fields(sample, evaluation), tuple(_verdicts(sample))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return f"missing {error}" if isinstance(error, KeyError) else str(error)


def _fields(sample: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    metadata = sample.get("metadata") or {}
    attachments = sample.get("attachments") or {}
    out = {"prompt": _prompt(sample, attachments), **_text_or_failure(sample, attachments)}
    ours = metadata.get(_OURS)
    if isinstance(ours, dict):
        return {**_numbers(sample), **ours, **out}
    output = sample.get("output") or {}
    stop = (output.get("choices") or [{}])[0].get("stop_reason", "stop")
    about = {
        "prompt_id": str(sample["id"]),
        "subject": str(evaluation.get("model") or "model"),
        "source": str((evaluation.get("dataset") or {}).get("name") or ""),
        "cluster": str(sample["id"]),
        "candidate": int(sample.get("epoch", 1)) - 1,
        "tokens": int((output.get("usage") or {}).get("output_tokens") or 0),
        "finish": "length" if stop in ("max_tokens", "model_length") else "stop",
    }
    about |= {key: metadata[key] for key in ("category", "cluster") if isinstance(metadata.get(key), str)}
    kind = {"kind": metadata["kind"]} if metadata.get("kind") in KINDS else {}
    further = {k: v for k, v in metadata.items() if k not in _COMPLETION and isinstance(v, str | int | float)}
    return {**further, **_numbers(sample), **about, **kind, **out}


def _text_or_failure(sample: Mapping[str, Any], attachments: Mapping[str, Any]) -> dict[str, Any]:
    error = sample.get("error")
    if not error:
        return {"text": _reply(sample, attachments)}
    said = error.get("message") if isinstance(error, dict) else None
    return {"text": None, "failure": f"the sample ended in an error: {' '.join(str(said).split())[:200]}"}


def _numbers(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Scores that are numbers, by scorer."""
    scores = {
        str(k): v["value"] for k, v in (sample.get("scores") or {}).items() if isinstance(v, dict) and "value" in v
    }
    return {k: v for k, v in scores.items() if isinstance(v, int | float)}


def _reply(sample: Mapping[str, Any], attachments: Mapping[str, Any]) -> str:
    output = sample.get("output") or {}
    choices = output.get("choices") or []
    if choices:
        return _text(choices[0]["message"]["content"], attachments)
    completion = output.get("completion")
    if not isinstance(completion, str):
        raise ValueError("the sample has no output")
    return _text(completion, attachments)


def _prompt(sample: Mapping[str, Any], attachments: Mapping[str, Any]) -> str:
    given = sample["input"]
    if isinstance(given, str):
        return _text(given, attachments)
    asked = [m for m in given if isinstance(m, dict) and m.get("role") == "user"]
    if not asked:
        raise ValueError("the input has no user message")
    return _text(asked[-1]["content"], attachments)


def _text(content: Any, attachments: Mapping[str, Any]) -> str:
    """Text of a message: written out, in parts (only text parts count), or moved to the attachments."""
    if isinstance(content, list):
        parts = [p for p in content if isinstance(p, dict) and p.get("type") == "text"]
        return "".join(_text(p["text"], attachments) for p in parts)
    if not isinstance(content, str):
        raise ValueError(f"a message's content is {type(content).__name__}, not text")
    found = attachments.get(content.removeprefix("attachment://")) if content.startswith("attachment://") else None
    return found if isinstance(found, str) else content


def _verdicts(sample: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Scores that are labels of ours, or missing. Another scorer's grades are on a scale we cannot know."""
    for judge, score in (sample.get("scores") or {}).items():
        if not isinstance(score, dict):
            continue
        value = score.get("value")
        missing = isinstance(value, float) and math.isnan(value)
        if value not in LABELS and not missing:
            continue
        about = score.get("metadata") or {}
        yield {
            "judge": str(judge),
            "label": None if missing else value,
            "rule": str(score.get("explanation") or score.get("reason") or ""),
            "evidence": about.get("evidence"),
            "score": about.get("score"),
        }


def file_name(subject: str, seed: int | None) -> str:
    """A file's name for a state: the letters, digits, `-` and `_` of its name, and a hash where that lost some."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", subject).strip("-")[:60] or "state"
    digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{plain}{'' if plain == subject else f'-{digest}'}{'' if seed is None else f'-s{seed}'}"
