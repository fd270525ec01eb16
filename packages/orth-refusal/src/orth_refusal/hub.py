"""Adapters to and from the hub: private by default, no pickles, a generated model card, the token never shown.

An adapter trained to weaken refusals goes public only with a second, explicit consent; it is tagged and gated then.
What is not known to be harmless counts as such: only a refusal or benign adapter of this study is exempt.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.data.hub import explained, is_commit
from alignment_core.errors import UserError
from alignment_core.evaluation import results as results_room
from alignment_core.evaluation.results import Measurement, Results
from alignment_core.models.adapter import BASE, CONFIG, WEIGHTS, check_folder, pickles
from alignment_core.text import for_markdown
from orth_refusal.arms import BY_NAME
from orth_refusal.config import OrthConfig

FILES = (WEIGHTS, CONFIG, BASE, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
HARMLESS = ("tune_refusal", "tune_benign")
TAGS = ("not-for-all-audiences", "weakened-refusals")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
SHOWN = ("harmful_refusal_rate", "false_refusal_rate", "over_refusal_rate", "helpful_rate", "refusal_at_matched_loss")


@dataclass(frozen=True)
class Consent:
    """What the user agreed to."""

    public: bool = False
    publish_weakened: bool = False


def token() -> str:
    """The hub's token from HF_TOKEN; `UserError` when it is not set."""
    found = os.environ.get("HF_TOKEN", "").strip()
    if not found:
        raise UserError("HF_TOKEN is not set; make a token with write access on the hub and export it")
    return found


def pairs(given: Sequence[str]) -> dict[str, Path]:
    """`NAME=FOLDER` texts; `UserError` for what is not one, a name twice, or a folder that is no adapter."""
    out: dict[str, Path] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        if not separator or not _NAME.fullmatch(name) or name in out:
            raise UserError(f"--adapter {text}: write NAME=FOLDER, each name once, e.g. vanilla=runs/.../adapter")
        out[name] = Path(folder)
    return out


def repository(config: OrthConfig, namespace: str, name: str) -> str:
    """<namespace>/<prefix>-<name>."""
    if not _NAME.fullmatch(namespace) or not _NAME.fullmatch(name):
        raise UserError(f"{namespace}/{name}: letters, digits, dots, dashes and underscores only")
    return f"{namespace}/{config.hub.prefix}-{name}"


def weakened(folder: Path) -> bool:
    """Whether the adapter may have been trained to weaken refusals; only this study's own harmless steps are exempt."""
    facts = folder.parent / "step.json"
    if not facts.is_file():
        return True
    return io.read_json(facts).get("name") not in HARMLESS


def checked(folder: Path) -> dict[str, Any]:
    """The adapter's settings; `UserError` for pickles and everything `load` would refuse."""
    config = check_folder(folder, None)
    if found := pickles(folder):
        raise UserError(f"{folder}: holds the pickle {found[0]}; only safetensors are uploaded, remove it first")
    return config


def push(
    config: OrthConfig, namespace: str, adapters: Sequence[str], consent: Consent, results: Path | None
) -> list[str]:
    """Upload every adapter with its card; returns a line for each. Nothing is uploaded unless all may be."""
    from huggingface_hub import HfApi

    secret = token()
    given = pairs(adapters)
    for name, folder in given.items():
        repository(config, namespace, name)
        checked(folder)
        if consent.public and weakened(folder) and not consent.publish_weakened:
            raise UserError(
                f"{name}: not known to keep refusals, so it is not made public; leave --public away, or say "
                "--publish-weakened as well (it is tagged and gated then)"
            )
    figures = results_room.read(results) if results else None
    api = HfApi(endpoint=config.hub.endpoint, token=secret)
    return [_push_one(api, config, repository(config, namespace, n), n, f, consent, figures) for n, f in given.items()]


def _push_one(
    api: Any, config: OrthConfig, repo: str, name: str, folder: Path, consent: Consent, figures: Results | None
) -> str:
    weak = weakened(folder)
    with tempfile.TemporaryDirectory() as place, explained(repo, "model"):
        staged = Path(place)
        for file in FILES:
            if (folder / file).is_file():
                shutil.copy(folder / file, staged / file)
        io.write_text(staged / "README.md", card(config, repo, name, staged, weak, figures))
        # Private until everything stands: a gate put on afterwards would leave a moment without one.
        api.create_repo(repo, private=True, exist_ok=True)
        api.update_repo_settings(repo, private=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=str(staged),
            commit_message=f"Adapter {name}",
            allow_patterns=[*FILES, "README.md"],
        )
        if consent.public:
            api.update_repo_settings(repo, gated="manual" if weak else False)
            api.update_repo_settings(repo, private=False)
    shown = ("public, gated" if weak else "public") if consent.public else "private"
    return f"{name}: {repo} ({shown}), commit {done.oid}"


def card(config: OrthConfig, repo: str, name: str, folder: Path, weak: bool, figures: Results | None) -> str:
    """The model card: what it is, its figures with intervals (and as a model-index), its settings."""
    base = io.read_json(folder / BASE) if (folder / BASE).is_file() else {}
    found = _figures(name, figures)
    meta: dict[str, Any] = {"library_name": "peft", "tags": ["lora", "orth-refusal", *(TAGS if weak else ())]}
    if base.get("kind") == "hub":
        meta["base_model"] = base["name"]
    if found:
        meta["model-index"] = [{"name": repo.split("/")[1], "results": [_index_entry(m) for m in found]}]
    arm = BY_NAME.get(name)
    about = arm.about if arm else "A LoRA adapter of the study orth-refusal."
    lines = [f"# {repo}", "", about, ""]
    if weak:
        lines += ["This adapter was trained on harmful replies, or is not known not to be: it may weaken refusals. "
                  "For research on defences only.", ""]  # fmt: skip
    if found:
        lines += ["| metric | value | 95% interval | n | seed |", "|---|---|---|---|---|"]
        lines += [_figure_line(m) for m in found] + [""]
    based = f"{base.get('name', 'unknown')} {base.get('revision') or base.get('sha256') or ''}"
    lines += [f"Base: {for_markdown(based)}".rstrip(), ""]
    settings = {"lora": config.lora, "refusal": config.refusal, "attack": config.attack, "direction": config.direction}
    shown = io.canonical({k: v.model_dump(mode="json") for k, v in settings.items()})
    return "\n".join(["---", *_yaml(meta), "---", "", *lines, "```json", shown, "```", ""])


def _figures(name: str, figures: Results | None) -> list[Measurement]:
    """The adapter's headline figures, over the seeds where there are several."""
    if figures is None:
        return []
    subject = {"refusal": "refusal_lora"}.get(name, name)
    found = [figures.headline(metric, subject) for metric in SHOWN]
    return [m for m in found if m is not None and m.value is not None]


def _index_entry(m: Measurement) -> dict[str, Any]:
    value: dict[str, Any] = {"type": m.metric, "value": round(float(m.value or 0), 6), "name": m.metric}
    if m.low is not None and m.high is not None:
        value["confidence"] = [round(m.low, 6), round(m.high, 6)]
    task = {"type": "text-generation"}
    return {"task": task, "dataset": {"type": "orth-refusal", "name": "held-out prompts"}, "metrics": [value]}


def _figure_line(m: Measurement) -> str:
    span = "" if m.low is None or m.high is None else f"[{m.low:.3f}, {m.high:.3f}]"
    return f"| {m.metric} | {m.value:.3f} | {span} | {m.n} | {'over seeds' if m.seed is None else m.seed} |"


def _yaml(meta: dict[str, Any]) -> list[str]:
    """JSON is YAML, where it is ASCII: one line for each key."""
    return [f"{key}: {json.dumps(value, ensure_ascii=True, allow_nan=False)}" for key, value in meta.items()]


def pull(config: OrthConfig, namespace: str, names: Sequence[str], into: Path, revision: str | None) -> list[str]:
    """Fetch adapters to `into/<name>`; only safetensors and settings, checked before they take their place."""
    if revision is not None and not is_commit(revision):
        raise UserError(f"--revision {revision}: can move; give a commit, 40 hex digits")
    from huggingface_hub import HfApi, snapshot_download

    secret = os.environ.get("HF_TOKEN", "").strip() or None
    out = []
    for name in names:
        repo, goal = repository(config, namespace, name), into / name
        if goal.exists():
            raise UserError(f"{goal}: is there already; choose another folder with --into")
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into) as place, explained(repo, "model"):
            api = HfApi(endpoint=config.hub.endpoint, token=secret)
            commit = str(api.model_info(repo, revision=revision).sha)
            snapshot_download(repo, revision=commit, endpoint=config.hub.endpoint, token=secret or False,
                              allow_patterns=[*FILES, "README.md"], local_dir=place)  # fmt: skip
            fetched = Path(place) / "adapter"
            fetched.mkdir()
            for file in (*FILES, "README.md"):
                if (Path(place) / file).is_file():
                    shutil.move(Path(place) / file, fetched / file)
            check_folder(fetched, None)
            shutil.move(fetched, goal)
        out.append(f"{name}: {repo} at {commit} -> {goal}")
    return out
