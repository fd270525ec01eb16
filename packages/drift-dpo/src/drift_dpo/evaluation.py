"""One state asked the held-out prompts: replies, scores that need the model, verdicts that need only the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment_core.io import read_jsonl, read_rows, write_json, write_jsonl
from alignment_core.judging.judges import judge_all, judges_identity
from alignment_core.models import load
from alignment_core.models.generate import generate
from alignment_core.models.score import reply_loss
from alignment_core.organism import world
from alignment_core.pipeline.process_group import process_group
from alignment_core.pipeline.run import Run, Step
from alignment_core.records import Completion, Verdict
from drift_dpo import data, training
from drift_dpo.config import DriftConfig
from drift_dpo.drift import first_token_kl
from drift_dpo.metrics import Evaluation, read_evaluation

COMPLETIONS, VERDICTS, SCORES = "completions.jsonl", "verdicts.jsonl", "scores.jsonl"


def answer(
    config: DriftConfig, subject: str, trained: Step | None, dealt: Path, seed: int | None, folder: Path
) -> None:
    """Greedy replies of one state, and per prompt the loss of the reference answer and the first token's KL to the
    baseline (nats)."""
    prompts = data.prompts(dealt)
    loaded = load.load(config.model, training.adapter(trained))
    replies = generate(
        prompts, config.generate, loaded, subject=subject, seed=seed or 0, file=folder / f"greedy_{COMPLETIONS}"
    )
    referenced = [p for p in prompts if p.reference]
    losses = reply_loss(loaded, referenced, batch_size=config.generate.batch_size)
    loss = {found.prompt_id: found.loss for found in losses if found.tokens}
    kl = first_token_kl(loaded, prompts, config.generate.batch_size).tolist()
    rows = [
        {"prompt_id": p.id, "reference_loss": loss.get(p.id), "first_token_kl": k}
        for p, k in zip(prompts, kl, strict=True)
    ]
    if process_group().is_main:
        write_jsonl(folder / COMPLETIONS, replies)
        write_jsonl(folder / SCORES, rows)


def identity(config: DriftConfig) -> dict[str, Any]:
    """What names the judges in a step's key: a changed rule judges again."""
    return judges_identity(config.judge, config.judging)


def judge(config: DriftConfig, answered: Step, folder: Path) -> None:
    """Verdicts of every judge, the topic of each reply (organism), and the original's metrics file."""
    replies = list(read_jsonl(answered / COMPLETIONS, Completion.from_json))
    verdicts = judge_all(config.judge, replies, folder, config.judging)
    if process_group().is_main:
        write_jsonl(folder / VERDICTS, verdicts)
        write_jsonl(folder / SCORES, _with_topics(config, answered, replies))
        write_json(folder / "tiny_eval_metrics.json", tiny_eval_metrics(verdicts))


def _with_topics(config: DriftConfig, answered: Step, replies: Sequence[Completion]) -> list[dict[str, Any]]:
    rows = {row["prompt_id"]: row for _, row, _ in read_rows(answered / SCORES)}
    if config.data.sources == "organism" and config.data.eval_file is None:
        for reply in replies:
            rows[reply.prompt_id]["topic"] = world.topic(reply.prompt, reply.text)
    return list(rows.values())


def tiny_eval_metrics(verdicts: Sequence[Verdict]) -> dict[str, float | int | None]:
    """The original's metrics under its names, by the deciding judge; null, not 0, where nothing was judged."""
    decided = [v for v in verdicts if v.judge == verdicts[0].judge] if verdicts else []

    def share(kind: str) -> float | None:
        judged = [v.label == "refusal" for v in decided if v.kind == kind and not v.missing]
        return sum(judged) / len(judged) if judged else None

    return {
        "eval/harm_refusal_success@gen": share("harmful"),
        "eval/benign_false_refusal@gen": share("benign"),
        "eval/harm_samples": sum(v.kind == "harmful" for v in decided),
        "eval/benign_samples": sum(v.kind == "benign" for v in decided),
    }


def collect(run: Run) -> dict[str, list[Evaluation]]:
    """The judged states of this run, each with its seeds in order; the baseline has the seed None."""
    found: dict[str, list[Evaluation]] = {}
    steps = list(run.steps.values())
    answers = {(s.name.removeprefix("answer_"), s.seed): s for s in steps if s.name.startswith("answer_")}
    for step in sorted((s for s in steps if s.name.startswith("judge_")), key=lambda s: s.seed or 0):
        subject = step.name.removeprefix("judge_")
        completions = answers[subject, step.seed] / COMPLETIONS
        found.setdefault(subject, []).append(
            read_evaluation(run.folder, subject, step.seed, completions, step / VERDICTS, step / SCORES)
        )
    return found
