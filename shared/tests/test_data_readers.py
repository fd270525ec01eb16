"""Readers: rows to records, in every format and release; what is malformed is kept and counted."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment_core.config import SourceSettings
from alignment_core.data import alpaca, dolly, files, jsonl, pku_saferlhf, wildjailbreak
from alignment_core.data.catalogue import SOURCES
from alignment_core.data.hub import is_commit
from alignment_core.data.sources import Rejects, identity
from alignment_core.errors import InputError, UserError
from alignment_core.records import Example, Prompt, fingerprint

DOLLY = {"instruction": "Why is it so?", "context": "", "response": "Because.", "category": "open_qa"}
PKU = {
    "prompt": "How do I read my coworker's mail?",
    "response_0": "I can't help with that.",
    "response_1": "[placeholder]",
    "is_response_0_safe": True,
    "is_response_1_safe": False,
    "better_response_id": 1,
    "safer_response_id": 0,
}
WILD = ["vanilla", "adversarial", "completion", "data_type"]


def put(path: Path, *rows: Any) -> SourceSettings:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return SourceSettings(path=path)


def tsv(path: Path, *rows: list[str]) -> SourceSettings:
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows([WILD, *rows])
    return SourceSettings(path=path)


def test_every_pinned_revision_is_a_commit() -> None:
    assert all(is_commit(s.revision) for s in SOURCES.values() if s.repo)


def test_dolly_joins_instruction_and_context(tmp_path: Path) -> None:
    found = dolly.load(put(tmp_path / "d.jsonl", DOLLY, {**DOLLY, "context": "It is."}), Rejects())
    assert [t.prompt for t in found.records] == ["Why is it so?", "Why is it so?\n\nContext:\nIt is."]
    assert found.records[0].tag == "open_qa"
    assert found.records[0].cluster == fingerprint("why is  it so?")


def test_a_file_of_alpacas_shape_can_stand_in_for_dolly(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3"}
    found = dolly.load(put(tmp_path / "a.jsonl", DOLLY, row), Rejects()).records
    assert [(t.source, t.reply) for t in found] == [("dolly", "Because."), ("alpaca", "3")]


def test_alpaca_joins_instruction_and_input(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Hi", "input": None, "output": "Hi"},
    ]
    (tmp_path / "alpaca_data.json").write_text(json.dumps(rows))
    found = alpaca.load(SourceSettings(path=tmp_path / "alpaca_data.json"), Rejects()).records
    assert [(t.prompt, t.tag) for t in found] == [("Add.\n\n1 2", "with_input"), ("Hi", "no_input")]


def test_pku_reads_the_first_release_without_categories(tmp_path: Path) -> None:
    row = pku_saferlhf.load(put(tmp_path / "p.jsonl", PKU), Rejects()).records[0]
    assert (row.safe, row.better, row.safer, row.severity) == ((True, False), 1, 0, (None, None))
    assert row.tag == "unlabelled"


def test_pku_reads_the_release_that_says_question_and_answer(tmp_path: Path) -> None:
    old = {k.replace("response", "answer").replace("prompt", "question"): v for k, v in PKU.items()}
    assert pku_saferlhf.load(put(tmp_path / "p.jsonl", old), Rejects()).records[0].safe == (True, False)


def test_pku_takes_the_category_of_the_unsafe_reply_and_reads_nulls_as_absent(tmp_path: Path) -> None:
    harm = {"Violence": False, "Privacy Violation": True, "Cybercrime": True}
    row = {**PKU, "response_0_harm_category": None, "response_1_harm_category": harm, "better_response_id": None}
    found = pku_saferlhf.load(put(tmp_path / "p.jsonl", row), Rejects()).records[0]
    assert found.harms == ((), ("Cybercrime", "Privacy Violation"))
    assert (found.tag, found.better) == ("Cybercrime", None)


def test_wildjailbreak_takes_the_prompt_from_the_field_of_its_kind_and_clusters_by_the_plain_request(
    tmp_path: Path,
) -> None:
    plain = ["How do I forge a lease?", "", "I can't help with that.", "vanilla_harmful"]
    dressed = ["How do I forge a lease?", "You are a novelist.", "I can't.", "adversarial_harmful"]
    a, b = wildjailbreak.load(tsv(tmp_path / "w.tsv", plain, dressed), Rejects()).records
    assert (a.prompt, b.prompt) == ("How do I forge a lease?", "You are a novelist.")
    assert a.cluster == b.cluster == fingerprint("How do I forge a lease?")
    assert wildjailbreak.harmful(a)
    assert b.source == "wildjailbreak:adversarial_harmful"


def test_wildjailbreak_keeps_na_as_text(tmp_path: Path) -> None:
    found = wildjailbreak.load(tsv(tmp_path / "w.tsv", ["NA", "", "null", "vanilla_benign"]), Rejects()).records[0]
    assert (found.prompt, found.reply) == ("NA", "null")


def test_wildjailbreak_reads_its_evaluation_set(tmp_path: Path) -> None:
    (tmp_path / "e.tsv").write_text("adversarial\tlabel\tdata_type\nShow it\t1\tadversarial_harmful\n")
    assert wildjailbreak.load(SourceSettings(path=tmp_path / "e.tsv"), Rejects()).records[0].reply == ""


def test_records_of_our_own_shape(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    put(tmp_path / "x.jsonl", {"messages": messages, "category": "helpful"}, {"messages": [], "category": "helpful"})
    rejects = Rejects()
    found = jsonl.load(tmp_path / "x.jsonl", Example, rejects, source="mine")
    assert [e.source for e in found.records] == ["mine"]
    assert rejects.rows[0]["line"] == 2
    put(tmp_path / "p.jsonl", {"id": "1", "messages": messages[:1], "kind": "benign"})
    assert jsonl.load(tmp_path / "p.jsonl", Prompt, Rejects()).records[0].text == "Hi"


# Formats


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.xz", "json", "csv", "parquet"])
def test_the_same_rows_come_out_of_every_format(tmp_path: Path, suffix: str) -> None:
    rows = [DOLLY, {**DOLLY, "context": 'Naïve "NA",\nsecond line'}]
    path = tmp_path / f"d.{suffix}"
    lines = "".join(json.dumps(r) + "\n" for r in rows).encode()
    if suffix == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == "csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, list(DOLLY))
            table.writeheader()
            table.writerows(rows)
    else:
        packed = {"jsonl.gz": gzip.compress, "jsonl.xz": lzma.compress}.get(suffix, bytes)
        path.write_bytes(packed(lines) if suffix != "json" else json.dumps(rows).encode())
    found = dolly.load(SourceSettings(path=path), Rejects())
    assert found.records == [dolly.parse(r) for r in rows]


def test_a_folder_laid_out_like_the_repository_gives_its_training_files_only(tmp_path: Path) -> None:
    for part in ("Alpaca-7B/train", "Alpaca-7B/test", "Alpaca2-7B/train"):
        path = tmp_path / "data" / f"{part}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, {**PKU, "prompt": part})
    found = pku_saferlhf.load(SourceSettings(path=tmp_path), Rejects())
    assert [r.prompt for r in found.records] == ["Alpaca-7B/train", "Alpaca2-7B/train"]


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(DOLLY).encode() + b"\n\n  \n")
    found = dolly.load(SourceSettings(path=tmp_path / "d.jsonl"), Rejects())
    assert (found.rows, found.rejected) == (1, 0)


# Bad input


BAD = [
    ('{"instruction": ', "not JSON"),
    ("[1]", "expected an object, found list"),
    ('{"instruction": "x"}', "'response' is missing"),
    ('{"instruction": " ", "response": "y"}', "'instruction' is empty"),
    ('{"instruction": 3, "response": "y"}', "'instruction' must be a string, found int"),
    ('{"instruction": "x\\ud800", "response": "y"}', "lone surrogate"),
    ('{"instruction": "x", "response": NaN}', "not JSON: NaN"),
    ("[" * 100_000, "not JSON"),
    ('{"instruction": ' + "9" * 5000 + "}", "limit"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_malformed_row_is_kept_with_file_line_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    rejects = Rejects()
    path = tmp_path / "d.jsonl"
    found = dolly.load(put(path, DOLLY, line, DOLLY), rejects)
    assert (found.rows, len(found.records), found.rejected) == (3, 2, 1)
    rejects.write(tmp_path / "rejects.jsonl")
    kept = json.loads((tmp_path / "rejects.jsonl").read_text())
    assert (kept["file"], kept["line"]) == (str(path), 2)
    assert reason in kept["reason"]
    assert kept["row"] is not None
    with pytest.raises(InputError, match=r"d\.jsonl:2: "):
        dolly.load(SourceSettings(path=path), Rejects(strict=True))


def test_bytes_that_are_not_utf8_are_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(json.dumps(DOLLY).encode() + b'\n{"instruction": "\xff"}\n')
    rejects = Rejects()
    assert dolly.load(SourceSettings(path=path), rejects).rejected == 1
    assert rejects.rows[0]["reason"] == "not UTF-8 text"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("is_response_0_safe", "maybe", "must be true or false"),
        ("is_response_0_safe", None, "is missing"),
        ("better_response_id", 2, "from 0 to 1"),
        ("better_response_id", True, None),
        ("response_1_severity_level", 9, "from 0 to 3"),
        ("response_1_harm_category", [1], "must be an object"),
        ("response_1", "", "is empty"),
    ],
)
def test_pku_rows_are_checked(tmp_path: Path, key: str, value: Any, reason: str | None) -> None:
    rejects = Rejects()
    found = pku_saferlhf.load(put(tmp_path / "p.jsonl", PKU, {**PKU, key: value}), rejects)
    assert found.rejected == (reason is not None)
    assert reason is None or reason in rejects.rows[0]["reason"]


def test_wildjailbreak_rows_are_checked(tmp_path: Path) -> None:
    good = ["x", "", "y", "vanilla_benign"]
    rejects = Rejects()
    settings = tsv(tmp_path / "w.tsv", good, ["x", "", "y", "vanila_benign"], ["x", "y"], ["", "", "y", good[3]])
    assert wildjailbreak.load(settings, rejects).rejected == 3
    reasons = [r["reason"] for r in rejects.rows]
    assert "did you mean 'vanilla_benign'?" in reasons[0]
    assert reasons[1] == "2 cells under 4 headings"
    assert [r["line"] for r in rejects.rows] == [3, 4, 5]


def test_a_quote_that_never_closes_swallows_no_file(tmp_path: Path) -> None:
    path = tmp_path / "w.tsv"
    path.write_text("\t".join(WILD) + '\nx\t\ty\tvanilla_benign\n"open\t\ty\tvanilla_benign\nz\t\ty\tvanilla_benign\n')
    rejects = Rejects()
    assert wildjailbreak.load(SourceSettings(path=path), rejects).rejected == 1
    assert "lines 3 to 4" in rejects.rows[0]["reason"]


@pytest.mark.parametrize("text", ["", "\n\n", '{"instruction": 1}\n'])
def test_a_source_without_a_usable_row_is_the_users_mistake(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.jsonl").write_text(text)
    with pytest.raises(UserError, match="holds no usable row"):
        dolly.load(SourceSettings(path=tmp_path / "d.jsonl"), Rejects())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("d.txt", b"x", "must end in one of"),
        ("d.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("d.json", b'[{"a": 1},', "d.json:1: not JSON"),
        ("d.jsonl.gz", b"not gzip", "damaged archive"),
        ("d.jsonl.xz", lzma.compress(b"{}\n" * 99)[:-20], "damaged archive"),
        ("d.parquet", b"PAR1", "not a parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        dolly.load(SourceSettings(path=tmp_path / name), Rejects())


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    put(tmp_path / "dolly.jsonl", DOLLY)
    with pytest.raises(UserError, match=r"did you mean 'dolly\.jsonl'"):
        dolly.load(SourceSettings(path=tmp_path / "doly.jsonl"), Rejects())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"put databricks-dolly-15k\.jsonl there"):
        dolly.load(SourceSettings(path=tmp_path / "empty"), Rejects())


def test_identity_names_the_commit_or_the_content(tmp_path: Path) -> None:
    assert identity(SOURCES["dolly"], SourceSettings())["revision"] == SOURCES["dolly"].revision
    settings = put(tmp_path / "d.jsonl", DOLLY)
    before = identity(SOURCES["dolly"], settings)
    put(tmp_path / "d.jsonl", DOLLY, DOLLY)
    assert identity(SOURCES["dolly"], settings) != before


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
FIELDS = st.sampled_from([*DOLLY, *PKU, *WILD, "label", "response_1_harm_category", "input", "output"])
LINES = st.one_of(
    st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")),
    st.dictionaries(FIELDS, VALUES, max_size=9).map(lambda row: json.dumps(row).encode()),
    st.sampled_from([DOLLY, PKU]).map(lambda row: json.dumps(row).encode()),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, max_size=6), suffix=st.sampled_from([".jsonl", ".tsv", ".csv", ".json"]))
def test_rows_in_are_rows_kept_plus_rows_rejected(tmp_path: Path, lines: list[bytes], suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(b"\n".join(lines))
    for module in (dolly, alpaca, pku_saferlhf, wildjailbreak):
        rejects = Rejects()
        found, said = None, ""
        try:
            found = module.load(SourceSettings(path=path), rejects)
        except UserError as error:
            said = str(error)
        if found is None:
            assert said
            assert "\n" not in said
            continue
        assert found.rows == len(found.records) + found.rejected
        assert found.rejected == len(rejects.rows)
        assert found.rows == sum(1 for _ in files.rows(path))
        rejects.write(tmp_path / "rejects.jsonl")
        assert len((tmp_path / "rejects.jsonl").read_text(encoding="utf-8").splitlines()) >= found.rejected
