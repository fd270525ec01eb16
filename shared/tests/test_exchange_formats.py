"""Inspect's logs and lm-eval's samples: what we write we read back whole, and a hostile file is one clear line."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment_core.data import exchange, zips
from alignment_core.errors import InputError, UserError
from alignment_core.records import Completion, Verdict

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TEXTS = ("I can't help.", "Sure \ud800 \x1b[31m \x00 \u202e", "", "<script>x</script>", "=1+1")


def replies(subject: str = "stage_a") -> tuple[list[Completion], list[Verdict]]:
    completions = [
        Completion(f"p{i}", subject, t, "How?", "harmful", category="c", cluster=f"k{i}", seed=13, tokens=i)
        for i, t in enumerate(TEXTS)
    ]
    completions += [
        Completion("../../etc/passwd", subject, "No.", "b", "benign", seed=13, finish="length"),
        Completion("p0", subject, "Again", "How?", "harmful", category="c", cluster="k0", seed=13, candidate=1),
    ]
    labels = ("refusal", "compliance", "incoherent", None, "partial", "refusal", "compliance")
    verdicts = [
        Verdict(
            c.prompt_id,
            c.subject,
            "rules",
            label,
            c.kind,
            category=c.category,
            cluster=c.cluster,
            seed=13,
            candidate=c.candidate,
            rule="timed out" if label is None else "opening",
            evidence=(0, 2) if label == "refusal" else None,
            score=4.0 if label == "refusal" else None,
        )
        for c, label in zip(completions, labels, strict=True)
    ]
    return completions, verdicts


@pytest.mark.parametrize(
    ("to", "back"), [(exchange.to_inspect, exchange.read_file), (exchange.to_lm_eval, exchange.read_file)]
)
def test_what_is_written_is_read_back_whole(tmp_path: Path, to: Any, back: Any) -> None:
    completions, verdicts = replies()
    other, _ = replies("../x")
    files = to(tmp_path / "a", [*completions, *other], verdicts, task="drift", created=WHEN)
    assert len(files) == 2
    assert all(tmp_path / "a" in f.parents for f in files)
    found = back(files[0])
    assert found.completions == tuple(completions)
    assert found.verdicts == tuple(verdicts)
    assert found.rejected == ()
    assert back(files[0], subject="mine").verdicts[0].subject == "mine"
    again = to(tmp_path / "b", [*completions, *other], verdicts, task="drift", created=WHEN)
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in again]


@settings(max_examples=25, deadline=None)
@given(text=st.text(max_size=80), name=st.text(min_size=1, max_size=20))
def test_any_text_and_any_name_survives(tmp_path_factory: pytest.TempPathFactory, text: str, name: str) -> None:
    folder = tmp_path_factory.mktemp("x")
    one = Completion(name, name, text, text or "?", "borderline")
    assert exchange.read_file(exchange.to_inspect(folder, [one], task=name)[0]).completions == (one,)
    assert exchange.read_file(exchange.to_lm_eval(folder, [one], task=name)[0]).completions == (one,)


def test_a_log_has_its_readers_layout_and_no_file_to_import(tmp_path: Path) -> None:
    completions, verdicts = replies()
    (path,) = exchange.to_inspect(tmp_path, completions, verdicts, task="drift", created=WHEN)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        header = json.loads(archive.read("header.json"))
        sample = json.loads(archive.read("samples/p3_epoch_1.json"))
    assert names[0] == "_journal/start.json"
    assert names[-2:] == ["summaries.json", "header.json"]
    assert not any(".." in n or n.startswith("/") for n in names)
    assert "task_file" not in header["eval"]
    assert header["version"] == 2
    # 7 replies, one missing: refusals 2 of 6
    assert header["results"]["scores"][0]["unscored_samples"] == 1
    assert header["results"]["scores"][0]["metrics"]["refusal_rate"]["value"] == 2 / 6
    assert sample["scores"]["rules"]["value"] != sample["scores"]["rules"]["value"]  # NaN
    assert sample["scores"]["rules"]["reason"] == "grader_failed"


def foreign(tmp_path: Path, samples: dict[str, Any], header: Any = None) -> Path:
    path = tmp_path / "foreign.eval"
    head = header or {"version": 2, "eval": {"model": "openai/x", "dataset": {"name": "advbench"}}}
    with zipfile.ZipFile(path, "w") as archive:
        for name, sample in samples.items():
            archive.writestr(f"samples/{name}.json", sample if isinstance(sample, str) else json.dumps(sample))
        archive.writestr("header.json", json.dumps(head))
    return path


def sample(**changes: Any) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "I can't."}],
    }
    return {
        "id": 7,
        "epoch": 2,
        "input": [{"role": "system", "content": "s"}, {"role": "user", "content": "attachment://ab"}],
        "attachments": {"ab": "How do I?"},
        "output": {"choices": [{"message": message, "stop_reason": "max_tokens"}], "usage": {"output_tokens": 9}},
        "scores": {"includes": {"value": "I"}, "ours": {"value": "refusal"}},
        **changes,
    }


def test_a_strangers_log_gives_replies_and_counts_what_it_cannot(tmp_path: Path) -> None:
    broken = {
        "b": sample(id=9, error={"message": "x"}),
        "c": "{",
        "d": sample(epoch=2),
        "e": [1],
        "f": sample(id=8, input=3),
    }
    found = exchange.read_file(foreign(tmp_path, {"a": sample(), **broken}), kind="harmful")
    assert found.completions == (
        Completion(
            "7", "openai/x", "I can't.", "How do I?", "harmful",
            source="advbench", cluster="7", candidate=1, tokens=9, finish="length",
        ),
        Completion(
            "9", "openai/x", "", "How do I?", "harmful", source="advbench", cluster="9", candidate=1, tokens=9,
            finish="length", failure="the sample ended in an error: x",
        ),
    )  # fmt: skip
    assert [(v.judge, v.label) for v in found.verdicts] == [("ours", "refusal")] * 2
    assert [r.where.rpartition("/")[2] for r in found.rejected] == ["c.json", "d.json", "e.json", "f.json"]
    assert "stands there twice" in str(found.rejected[1])


def test_the_kind_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="what kind of prompt it is; pass --kind, one of harmful, benign, borderline"):
        exchange.read_file(foreign(tmp_path, {"a": sample()}))
    told = exchange.read_file(foreign(tmp_path, {"a": sample(metadata={"kind": "benign"})}))
    assert told.completions[0].kind == "benign"


def test_a_json_log_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"version": 2, "eval": {"model": "m"}, "samples": [sample()]}))
    assert exchange.read_file(path, kind="benign").completions[0].text == "I can't."


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.write_bytes(b"PK not a zip"), "not a whole zip"),
        (lambda p: p.write_bytes(p.read_bytes()[:-30]), "not a whole zip"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"I can't.", b"I could.")), "damaged"),
        (lambda p: p.unlink(), "no such file"),
    ],
)
def test_a_damaged_log_is_one_line(tmp_path: Path, damage: Any, said: str) -> None:
    path = foreign(tmp_path, {"a": sample()})
    damage(path)
    with pytest.raises(UserError, match=said) as caught:
        exchange.read_file(path, kind="harmful")
    assert "\n" not in str(caught.value)


def test_another_schema_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="schema version 2"):
        exchange.read_file(foreign(tmp_path, {}, {"version": 1, "eval": {}}))
    path = tmp_path / "empty.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(InputError, match="neither header"):
        exchange.read_file(path)


def test_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b"0" * 5000)
        archive.writestr("samples/a.json", b"{}")
    monkeypatch.setattr(zips, "MEMBER_BYTES", 4000)
    with pytest.raises(InputError, match=r"header\.json: "):
        exchange.read_file(path)
    monkeypatch.setattr(zips, "MEMBERS", 1)
    with pytest.raises(InputError, match="2 members; at most 1"):
        exchange.read_file(path)
    monkeypatch.setattr(zips, "MEMBERS", 9)
    monkeypatch.setattr(zips, "TOTAL_BYTES", 100)
    with pytest.raises(InputError, match="unpacked; at most"):
        exchange.read_file(path)


def zstandard(path: Path, name: str, data: bytes, declared: int | None = None) -> None:
    """A zip with one Zstandard member (method 93), put together from a stored one."""
    import pyarrow

    packed = pyarrow.Codec("zstd").compress(data, asbytes=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, packed)
        archive.filelist[0].file_size = len(data) if declared is None else declared
        archive.filelist[0].CRC = zlib.crc32(data)
        archive.filelist[0].compress_type = 93


def test_zstandard_members_are_read_checked_and_bounded(tmp_path: Path) -> None:
    data = json.dumps({"x": "y" * 3_000_000}).encode()
    path = tmp_path / "z.eval"
    zstandard(path, "header.json", data)
    with zips.Zip(path) as archive:
        assert archive.read("header.json") == data
    zstandard(path, "header.json", data, declared=1000)
    with zips.Zip(path) as archive, pytest.raises(InputError, match="holds more than it declares"):
        archive.read("header.json")
    whole = bytearray(path.read_bytes())
    zstandard(path, "header.json", data)
    whole = bytearray(path.read_bytes())
    whole[60:64] = b"\x00\x00\x00\x00"
    path.write_bytes(whole)
    with zips.Zip(path) as archive, pytest.raises(InputError, match="damaged"):
        archive.read("header.json")


def test_lm_evals_rows_have_their_hashes_and_a_metric_a_judge(tmp_path: Path) -> None:
    completions, verdicts = replies()
    (path,) = exchange.to_lm_eval(tmp_path, completions, verdicts, task="drift", created=WHEN)
    assert path.relative_to(tmp_path).as_posix() == "stage_a-s13/samples_drift_2026-01-02T03-04-05.000000.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    first = rows[0]
    assert first["arguments"] == {"gen_args_0": {"arg_0": "How?", "arg_1": {"until": []}}}
    assert (first["resps"], first["filtered_resps"]) == ([["I can't help."]], ["I can't help."])
    assert first["prompt_hash"] == hashlib.sha256(b"How?").hexdigest()
    assert first["metrics"] == ["refusal_rules"]
    assert [r["refusal_rules"] for r in rows] == [1.0, 0.0, 0.0, None, 0.0, 1.0, 0.0]


def test_strangers_lm_eval_rows(tmp_path: Path) -> None:
    chat = json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": "Q?"}])
    rows: list[Any] = [
        {"doc_id": 0, "doc": {}, "arguments": {"gen_args_0": {"arg_0": "P", "arg_1": {}}}, "resps": [["a", "b"]]},
        {"doc_id": 1, "doc": {"kind": "benign"}, "arguments": [[chat, {}]], "resps": [["c"]]},
        {
            "doc_id": 2,
            "doc": {},
            "arguments": {"gen_args_0": {"arg_0": "P", "arg_1": " yes"}},
            "resps": [["(-1, False)"]],
        },
        {"doc_id": 3, "doc": {}, "arguments": {}, "resps": [["x"]]},
        {"question": "?"},
    ]
    path = tmp_path / "org__model" / "samples_task_x.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + "{\n")
    found = exchange.read_file(path, kind="harmful")
    told = [(c.prompt_id, c.candidate, c.text, c.prompt, c.kind, c.subject) for c in found.completions]
    assert told == [
        ("0", 0, "a", "P", "harmful", "org__model"),
        ("0", 1, "b", "P", "harmful", "org__model"),
        ("1", 0, "c", "Q?", "benign", "org__model"),
    ]
    assert ["multiple-choice" in str(r) for r in found.rejected] == [True, False, False, False]
    assert str(found.rejected[-1]).startswith(f"{path}:6: not JSON")


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", float("nan")), ("seed", "x"), ("candidate", -1), ("tokens", 1.5), ("category", ["x"]), ("finish", "eos")],
)
def test_a_wrong_type_in_a_record_is_a_rejected_row(tmp_path: Path, key: str, value: object) -> None:
    completions, _ = replies()
    (log,) = exchange.to_inspect(tmp_path, completions, task="t")
    with zipfile.ZipFile(log) as archive:
        samples = {n[8:-5]: json.loads(archive.read(n)) for n in archive.namelist() if n.startswith("samples/")}
    samples["p0_epoch_1"]["metadata"]["alignment_core"][key] = value
    found = exchange.read_file(foreign(tmp_path, samples))
    assert (len(found.completions), len(found.rejected)) == (len(completions) - 1, 1)
    assert repr(key) in str(found.rejected[0])
    (rows,) = exchange.to_lm_eval(tmp_path, completions, task="t")
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    lines[0]["doc"][key] = value
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    taken = exchange.read_file(rows)
    assert (len(taken.completions), len(taken.rejected)) == (len(completions) - 1, 1)
