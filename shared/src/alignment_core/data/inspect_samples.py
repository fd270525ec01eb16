"""The samples of an Inspect log (`.eval` or `.json`, schema version 2), as fields under our names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.data.inspect_log import OURS
from alignment_core.data.zips import Zip
from alignment_core.errors import InputError
from alignment_core.records import KINDS, LABELS, Completion

_COMPLETION = {field.name for field in fields(Completion)}
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
    ours = metadata.get(OURS)
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
