"""Writers that know their rank: every process of a step calls them, rank 0 writes.

A step that all processes work on (`together=True`) writes its files with these; the values are equal in all processes,
so one of them writes. In a step of one process, and outside of steps, they are the writers of `alignment_core.io`.

    writers.write_jsonl(folder / "rows.jsonl", rows)

    @rank_zero_only
    def save(file: Path) -> None: ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from alignment_core import io
from alignment_core.pipeline.process_group import SINGLE, process_group, using

P = ParamSpec("P")


def rank_zero_only(write: Callable[P, object]) -> Callable[P, None]:
    """`write` in rank 0 of the process group, where it sees a group of one; nothing in the other ranks.

    The other ranks do not wait: where they read what was written, `process_group().barrier()` comes first.
    """

    @functools.wraps(write)
    def writer(*args: P.args, **kwargs: P.kwargs) -> None:
        if process_group().is_main:
            with using(SINGLE):
                write(*args, **kwargs)

    return writer


write_json = rank_zero_only(io.write_json)
write_jsonl = rank_zero_only(io.write_jsonl)
append_jsonl = rank_zero_only(io.append_jsonl)
cut_jsonl = rank_zero_only(io.recover_jsonl)
"""Cut a file that grows back to its first `keep` whole lines."""
