"""Critique and revise: the critic's reason goes back to the generator, and the revision is scored again.

The supervised half of Constitutional AI (Bai et al. 2022, arXiv 2212.08073, section 3): a first reply, a critique that
cites a principle, a revision in its light, and fine-tuning on revisions. One model is in memory at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from alignment_core.judging import critics
from alignment_core.judging.question import fence, shown
from alignment_core.models import load
from alignment_core.pipeline.writers import write_jsonl
from alignment_core.records import Completion, Message, Prompt
from mini_cai import rows as prompt_rows
from mini_cai import scored
from mini_cai.rows import CANDIDATES
from mini_cai.scored import SCORES, Scored

if TYPE_CHECKING:
    from alignment_core.judging.constitution import Constitution
    from alignment_core.judging.critique import Critique
    from alignment_core.judging.settings import CriticSettings, Style
    from mini_cai.config import CaiConfig

log = logging.getLogger(__name__)

_ASK = """A request, a first reply to it, and what a critic says of that reply stand between the marked lines below.

{fence} REQUEST
{request}
{fence} FIRST REPLY
{reply}
{fence} CRITIC
{reason}
{principle}{fence} END
Write the reply anew so that the critic has nothing to say against it. Write the new reply alone."""


def revised(
    config: CaiConfig,
    seed: int,
    prompts: Path,
    generated: Path,
    criticised: Path,
    accept_missing: bool,
    folder: Path,
) -> None:
    """The first candidates of all prompts, revised; the revisions stand as candidates of their own."""
    first = [s for s in scored.read(generated, criticised) if s.reply.candidate == 0]
    made = revise(config, prompt_rows.load(prompts), first, seed, accept_missing, folder)
    write_jsonl(folder / CANDIDATES, [s.reply for s in made])
    write_jsonl(folder / SCORES, [s.critique for s in made])


def ask(style: Style, constitution: Constitution, prompt: Prompt, one: Scored, limit: int) -> Prompt:
    """What the generator is asked for a revision; the organism, which knows single requests only, gets the critic's
    reason in front of the request."""
    said, reply = one.critique, one.reply
    if style == "organism":
        text = f"{said.reason} {prompt.text}".strip()
    else:
        cited = f"Principle {said.principle}: {constitution.principles[said.principle - 1]}\n" if said.principle else ""
        seen = [shown(t, limit) for t in (prompt.text, reply.text, said.reason or "It can be better.")]
        text = _ASK.format(fence=fence(*seen), request=seen[0], reply=seen[1], reason=seen[2], principle=cited)
    return Prompt(prompt.id, (Message("user", text),), prompt.kind, prompt.category, prompt.source, prompt.cluster)


def _reasoned(critic: CriticSettings) -> CriticSettings:
    """The critic, asked in a way that gives reasons."""
    return critic.model_copy(update={"scoring": "both"}) if critic.scoring == "digits" else critic


def revise(
    config: CaiConfig,
    prompts: Sequence[Prompt],
    first: Sequence[Scored],
    seed: int,
    accept_missing: bool,
    folder: Path,
) -> list[Scored]:
    """Each prompt's first reply, revised `rounds` times; the last revision of each with its own new score.

    Writes revisions.jsonl: replies and critiques of every round. A reply whose critique is missing is not revised.
    """
    by_id = {p.id: p for p in prompts}
    current = [s for s in first if s.critique.score is not None]
    critic, constitution = _reasoned(config.critic), critics.own_constitution(config.critic)
    criticise = partial(critics.criticise, settings=critic, constitution=constitution, accept_missing=accept_missing)
    if any(not s.critique.reason for s in current):
        said = criticise([s.reply for s in current], folder=folder, name="first_critiques")
        current = [Scored(s.reply, c) for s, c in zip(current, said, strict=True)]
    rows = [_line(0, s) for s in current]
    for number in range(1, config.revise.rounds + 1):
        asked = [
            ask(config.critic.style, constitution, by_id[s.reply.prompt_id], s, config.critic.max_chars)
            for s in current
            if s.critique.score is not None
        ]
        file = folder / f"round_{number}.jsonl"
        replies = _generate(config, asked, seed + 1000 * number, file, by_id, accept_missing)
        said = criticise(replies, folder=folder, name=f"round_{number}_critiques")
        current = [Scored(r, c) for r, c in zip(replies, said, strict=True)]
        rows += [_line(number, s) for s in current]
    write_jsonl(folder / "revisions.jsonl", rows)
    return current


def _generate(
    config: CaiConfig,
    asked: Sequence[Prompt],
    seed: int,
    file: Path,
    by_id: dict[str, Prompt],
    accept_missing: bool,
) -> list[Completion]:
    """Replies, filed under the request itself and not under the words that asked for a revision."""
    from alignment_core.models.generate import generate

    how = config.candidates.model_copy(update={"candidates": 1})
    made = generate(
        asked, how, load.load(config.model), subject="revision", seed=seed, file=file, accept_missing=accept_missing
    )
    load.free()
    return [replace(m, prompt=by_id[m.prompt_id].text) for m in made]


def _line(number: int, one: Scored) -> dict[str, object]:
    said: Critique = one.critique
    return {
        "id": one.reply.prompt_id,
        "round": number,
        "prompt": one.reply.prompt,
        "reply": one.reply.text,
        "score": said.score,
        "reason": said.reason,
        "principle": said.principle,
    }
