"""Writers in a process group: called by all, done by rank 0; in a group of one they are those of `io`."""

from __future__ import annotations

import threading
from pathlib import Path

from alignment_core import io
from alignment_core.pipeline.process_group import ProcessGroup, process_group
from alignment_core.pipeline.writers import append_jsonl, cut_jsonl, rank_zero_only, write_json, write_jsonl
from alignment_core.testing.processes import in_threads


def test_rank_0_writes_what_all_are_given(tmp_path: Path) -> None:
    def of(member: ProcessGroup) -> None:
        write_json(tmp_path / "value.json", {"rank": member.rank})
        write_jsonl(tmp_path / "rows.jsonl", [{"rank": member.rank}])
        append_jsonl(tmp_path / "grows.jsonl", [{"rank": member.rank}, {"rank": member.rank}])
        cut_jsonl(tmp_path / "grows.jsonl", keep=1)

    in_threads(3, of)
    assert io.read_json(tmp_path / "value.json") == {"rank": 0}
    for name in ("rows", "grows"):
        assert io.recover_jsonl(tmp_path / f"{name}.jsonl") == [{"rank": 0}]


def test_a_writer_of_ones_own_waits_for_nobody() -> None:
    threads, sizes = [], []

    @rank_zero_only
    def save() -> str:
        threads.append(threading.get_ident())
        sizes.append(process_group().size)
        process_group().barrier()
        return "nobody gets this"

    def of(member: ProcessGroup) -> tuple[int, object]:
        given = save()  # type: ignore[func-returns-value]
        return threading.get_ident(), given

    ran = in_threads(2, of)
    assert (threads, sizes) == ([ran[0][0]], [1])
    assert [given for _, given in ran] == [None, None]


def test_a_group_of_one_writes(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}])
    assert io.recover_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}]
