"""What a reader must know of replies that a server made: limits of the run, read from its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment_core import io


def _endpoints(config: Any) -> Iterator[str]:
    """Addresses of servers that make replies, in settings of replies (other sections name servers, too)."""
    if isinstance(config, Mapping):
        if "max_new_tokens" in config and isinstance(config.get("endpoint"), str):
            yield config["endpoint"]
        for value in config.values():
            yield from _endpoints(value)


def limits(folder: Path, config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Sentences on what a server made in the run in `folder`; none where no setting names one."""
    if not any(_endpoints(config)):
        return ()
    out = [
        "A server made replies of this run: its arithmetic is not this machine's, so its greedy texts may differ from "
        "those made here. Losses and log-probabilities are this machine's."
    ]
    found = {path: io.read_json(path) for path in sorted((folder / "steps").glob("*/**/*.served.json"))}
    apart = [about["first_token_nats_apart"] for about in found.values()]
    if apart and None not in apart:
        out.append(
            f"Log-probabilities of first tokens on the server and here differ by at most {max(apart):.2g} nats, over a "
            "few prompts of each state."
        )
    chat = sorted({_step(folder, path) for path, about in found.items() if about["route"] == "chat"})
    if chat:
        out.append(f"The chat template was the server's own, not this project's, in {', '.join(chat)}.")
    by_server = {path.with_name(path.name.replace(".served.json", ".plan.json")) for path in found}
    here = sorted({_step(folder, p) for p in (folder / "steps").glob("answer*/**/*.plan.json") if p not in by_server})
    if here:
        out.append(
            f"The replies of {', '.join(here)} were made here: no server can hold weights that a run changes, masks or "
            "merges, and states that are compared with them are not asked elsewhere."
        )
    return tuple(out)


def _step(folder: Path, path: Path) -> str:
    """Name of the step that a file stands in, without seed and key."""
    return path.relative_to(folder / "steps").parts[0].split("-")[0]
