"""What a reader must know of replies that a server made: limits of the run, read from its states' folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.evaluation.files import COMPLETIONS
from alignment_core.evaluation.state import StateFiles
from alignment_core.report.spec import ReportSpec

_STEM = Path(COMPLETIONS).stem


def _endpoints(config: Any) -> Iterator[str]:
    """Addresses of servers that make replies, in settings of replies (other sections name servers, too)."""
    if isinstance(config, Mapping):
        if "max_new_tokens" in config and isinstance(config.get("endpoint"), str):
            yield config["endpoint"]
        for value in config.values():
            yield from _endpoints(value)


def limits(states: Sequence[StateFiles], spec: ReportSpec, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences on what a server made in a run with these states; none where no setting names a server."""
    if not any(_endpoints(config)):
        return ()
    out = [
        "A server made replies of this run: its arithmetic is not this machine's, so its greedy texts may differ from "
        "those made here. Losses and log-probabilities are this machine's."
    ]
    named: dict[str, list[Mapping[str, Any] | None]] = {}
    for state in states:
        path = state.answered / f"{_STEM}.served.json"
        about = io.read_object(path) if path.is_file() else None
        named.setdefault(spec.subject(state.subject).label, []).append(about)
    served = {name: [a for a in each if a is not None] for name, each in named.items()}
    apart = [a["first_token_nats_apart"] for each in served.values() for a in each]
    if apart and None not in apart:
        out.append(
            f"Log-probabilities of first tokens on the server and here differ by at most {max(apart):.2g} nats, over a "
            "few prompts of each state."
        )
    chat = [name for name, each in served.items() if any(a["route"] == "chat" for a in each)]
    if chat:
        out.append(f"The chat template was the server's own, not this project's, for {', '.join(chat)}.")
    here = [name for name, each in named.items() if None in each]
    if here:
        out.append(
            f"The replies of {', '.join(here)} were made here: no server can hold weights that a run changes, masks or "
            "merges, and states that are compared with them are generated here, too."
        )
    return tuple(out)
