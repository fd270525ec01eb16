"""Every evaluated step of every arm asked the same held-out prompts, on one base with the arms' adapters exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment_core.config import GenerateSettings, ModelSettings
from alignment_core.io import read_jsonl, read_rows, write_json, write_jsonl
from alignment_core.judging.judges import judge_all, judges_identity
from alignment_core.models import load
from alignment_core.models.generate import generate
from alignment_core.models.load import Loaded
from alignment_core.models.score import reply_loss
from alignment_core.organism import world
from alignment_core.pipeline.process_group import process_group
from alignment_core.pipeline.run import Run, Step
from alignment_core.records import Completion, Prompt, Verdict
from orth_refusal import attack, data
from orth_refusal.arms import ORIGINAL_NAMES
from orth_refusal.config import OrthConfig
from orth_refusal.metrics import COMPLETIONS, SCORES, VERDICTS, Trajectory, read_trajectory
from orth_refusal.steering import METER, SNAPSHOTS


class Bench:
    """One loaded base on which adapters are exchanged; loaded when the first step asks."""

    def __init__(self, model: ModelSettings, adapter: Path) -> None:
        self.model, self.adapter = model, adapter
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        if self._loaded is None:
            self._loaded = load.load(self.model, self.adapter)
        return self._loaded

    def put(self, weights: Path) -> None:
        """Exchange the adapter's weights for those in a snapshot of the same shapes."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        from alignment_core.models.lora import adapter_state

        state = load_file(str(weights))
        wanted = adapter_state(self.loaded.model)
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in wanted.items()}:
            raise RuntimeError(f"{weights}: not a snapshot of this run's adapters")
        set_peft_model_state_dict(self.loaded.model, state)


def how(config: OrthConfig) -> GenerateSettings:
    """How replies are made. A merged start is made by the run itself, so no server holds it: those, and all that is
    compared with them, are made here."""
    return config.generate if config.setup == "base" else config.generate.here()


def snapshots(trained: Step) -> list[tuple[int, Path]]:
    """(step, file) of an arm's snapshots after the start, in order."""
    found = sorted((int(f.stem), f) for f in (trained / SNAPSHOTS).glob("*.safetensors"))
    return [(step, file) for step, file in found if step > 0]


def answer(
    config: OrthConfig,
    bench: Bench,
    subject: str,
    trained: Step | None,
    dealt: Path,
    seed: int | None,
    folder: Path,
) -> None:
    """Replies and losses at every snapshot of `trained`, or of the base for None; the last step's replies stand in
    the folder itself, too, where readers of a run look for them."""
    prompts, replies = data.prompts(dealt), list[Completion]()
    if trained is None:
        with bench.loaded.model.disable_adapter():
            replies = _at(config, bench, subject, 0, prompts, dealt, seed, folder)
    for step, file in [] if trained is None else snapshots(trained):
        bench.put(file)
        replies = _at(config, bench, subject, step, prompts, dealt, seed, folder)
    if process_group().is_main:
        write_jsonl(folder / COMPLETIONS, replies)


def _at(
    config: OrthConfig,
    bench: Bench,
    subject: str,
    step: int,
    prompts: Sequence[Prompt],
    dealt: Path,
    seed: int | None,
    folder: Path,
) -> list[Completion]:
    """Greedy replies, the loss of held-out attack replies and of benign reference answers, in `folder/<step>/`."""
    place, size = folder / str(step), config.generate.batch_size
    replies = generate(prompts, how(config), bench.loaded, subject=subject, seed=seed or 0, file=place / "greedy.jsonl")
    held_out = data.examples(dealt, "held_out")
    asked = [Prompt(f"held-out/{i}", e.messages[:-1], "harmful", cluster=e.cluster) for i, e in enumerate(held_out)]
    attacked = reply_loss(bench.loaded, asked, [e.reply for e in held_out], size)
    referenced = [p for p in prompts if p.kind == "benign" and p.reference]
    useful = reply_loss(bench.loaded, referenced, batch_size=size)
    rows = [
        {"set": name, "id": loss.prompt_id, "cluster": prompt.cluster, "loss": loss.loss}
        for name, losses, those in (("attack", attacked, asked), ("benign", useful, referenced))
        for loss, prompt in zip(losses, those, strict=True)
        if loss.tokens
    ]
    if process_group().is_main:
        write_jsonl(place / COMPLETIONS, replies)
        write_jsonl(place / SCORES, rows)
    return replies


def identity(config: OrthConfig) -> dict[str, Any]:
    """What names the judges in a step's key: a changed rule judges again."""
    return judges_identity(config.judge, config.judging)


def judge(config: OrthConfig, answered: Step, folder: Path) -> None:
    """Verdicts of every judge at every step, and (organism) whether each reply is on the topic; the last step's
    verdicts stand in the folder itself, too."""
    for place in sorted((p for p in answered.folder.iterdir() if p.is_dir()), key=lambda p: int(p.name)):
        replies = list(read_jsonl(place / COMPLETIONS, Completion.from_json))
        here = folder / place.name
        here.mkdir(exist_ok=True)
        verdicts = judge_all(config.judge, replies, here, config.judging)
        if not process_group().is_main:
            continue
        write_jsonl(here / VERDICTS, verdicts)
        write_jsonl(folder / VERDICTS, verdicts)
        if config.data.sources == "organism":
            topics = [{"prompt_id": r.prompt_id, "topic": world.topic(r.prompt, r.text)} for r in replies]
            write_jsonl(here / "topics.jsonl", topics)


def local_refusal_test(config: OrthConfig, judged: Mapping[str, tuple[Step, Step]], folder: Path) -> None:
    """`local_refusal_test.json` as the original wrote it: base, vanilla, orthogonal (and regularized) on the harmful
    prompts, at the attack's end."""
    out = {}
    for subject, name in {"baseline": "base", **ORIGINAL_NAMES}.items():
        if subject not in judged:
            continue
        answers, given = judged[subject]
        last = max((p for p in answers.folder.iterdir() if p.is_dir()), key=lambda p: int(p.name))
        verdicts = _decided(list(read_jsonl(given / last.name / VERDICTS, Verdict.from_json)))
        rows: list[dict[str, Any]] = []
        for reply in read_jsonl(last / COMPLETIONS, Completion.from_json):
            if reply.kind == "harmful":
                found = verdicts[reply.prompt_id]
                refused = None if found.missing else found.label == "refusal"
                rows.append({"prompt": reply.prompt, "response": reply.text, "refused": refused})
        known = [row["refused"] for row in rows if row["refused"] is not None]
        out[name] = {
            "model_name": config.model.name,
            "refusal_rate": sum(known) / len(known) if known else None,
            "total_prompts": len(rows),
            "refusals": sum(known),
            "results": rows,
        }
    write_json(folder / "local_refusal_test.json", out)


def _decided(verdicts: Sequence[Verdict]) -> dict[str, Verdict]:
    """The first judge's verdicts by prompt."""
    return {v.prompt_id: v for v in verdicts if v.judge == verdicts[0].judge}


def collect(run: Run) -> dict[str, list[Trajectory]]:
    """The judged trajectories of this run, each subject's seeds in order; the baseline has the seed None."""
    steps = list(run.steps.values())
    by_name = {(s.name, s.seed): s for s in steps}
    found: dict[str, list[Trajectory]] = {}
    for step in sorted((s for s in steps if s.name.startswith("judge_")), key=lambda s: s.seed or 0):
        subject = step.name.removeprefix("judge_")
        answered = by_name[f"answer_{subject}", step.seed]
        trained = by_name.get((f"attack_{subject}", step.seed))
        meter = {row["step"]: row for _, row, _ in read_rows(trained / METER)} if trained else {}
        cost = attack.budget_of(trained) if trained else {}
        found.setdefault(subject, []).append(
            read_trajectory(run.folder, subject, step.seed, answered.folder, step.folder, meter, cost)
        )
    return found
