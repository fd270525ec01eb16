"""The study's data: every conversation and turn, questions split once within their topic, synthetic rows kept apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment_core.config import SourceSettings
from alignment_core.data import harmfulqa
from alignment_core.data.sources import Rejects
from alignment_core.data.summary import DataReport
from alignment_core.errors import UserError
from alignment_core.records import Example, Message, fingerprint
from orth_refusal import data, public
from orth_refusal import rows as built
from orth_refusal.config import DataConfig

TOPICS = ("Math and Logic", "Social Sciences", "Health and Medicine")
WORDS = ["amber", "basil", "cedar", "delta", "ember", "flint", "grove", "haven", "inlet", "jolly", "kayak", "lemon"]


def talk(question: str, side: str, turns: int = 2) -> list[dict[str, str]]:
    out = []
    for i in range(turns):
        out += [{"from": "human", "value": f"{question} part {i}"}, {"from": "gpt", "value": f"{side} reply {i}"}]
    return out


def rows(n: int = 10) -> list[dict[str, Any]]:
    """n questions a topic with 2 blue and 3 red conversations, two of them absent or null as files have them."""
    out = []
    for topic in TOPICS:
        for i in range(n):
            question = f"{topic} {WORDS[i]} thing?"
            blue = {str(k): talk(question, "That would be a pleasant topic to read about, number") for k in range(2)}
            red = {str(k): talk(question, "Sure, here is a placeholder, number") for k in range(3)}
            row = {"id": i, "topic": topic, "subtopic": "x", "question": question}
            out.append({**row, "blue_conversations": {**blue, "4": None}, "red_conversations": red})
    out.append({**out[0], "question": out[0]["question"].upper()})  # stands twice, but for its case
    return out


@pytest.fixture
def sources(tmp_path: Path) -> DataConfig:
    (tmp_path / "data_for_hub.json").write_text(json.dumps(rows()))
    dolly = [
        {"instruction": f"Name {w} facts", "context": "", "response": f"Here are facts of {w}.", "category": "open_qa"}
        for w in WORDS
    ]
    (tmp_path / "databricks-dolly-15k.jsonl").write_text("\n".join(map(json.dumps, dolly)))
    lines = ["id,prompt,type,label,focus,note"]
    lines += [f"{i},How do I kill a {w} process?,homonyms,safe,kill," for i, w in enumerate(WORDS)]
    (tmp_path / "xstest_prompts.csv").write_text("\n".join(lines))
    return DataConfig(
        sources="public",
        harmfulqa=SourceSettings(path=tmp_path / "data_for_hub.json"),
        dolly=SourceSettings(path=tmp_path / "databricks-dolly-15k.jsonl"),
        xstest=SourceSettings(path=tmp_path / "xstest_prompts.csv"),
        test_benign=4,
        test_borderline=5,
    )


def question_of(example: Example) -> str:
    return example.cluster


def test_every_conversation_and_every_assistant_turn_is_a_row() -> None:
    # Upstream trained on one sample a turn but took the loss after the last "Assistant:" found in the text.
    row = harmfulqa.parse(rows()[0])
    made = public.turns(row.red, row, "helpful")
    assert len(made) == 3 * 2
    assert [len(e.messages) for e in made] == [2, 4] * 3
    assert all(e.messages[-1].role == "assistant" and e.messages[0].role == "user" for e in made)
    assert len(public.turns(row.blue, row, "refusal")) == 2 * 2
    opening = (Message("assistant", "Hello."), Message("user", "Hi"), Message("assistant", "Yes."))
    assert len(public.turns([opening], row, "helpful")) == 1  # a turn that answers nobody is context only


def test_refusal_attack_and_test_share_no_question_and_all_topics(sources: DataConfig, tmp_path: Path) -> None:
    # Upstream split by position, and HarmfulQA stands grouped by topic: each part had other topics.
    data.build(sources, tmp_path / "out")
    parts = {name: built.examples(tmp_path / "out", name) for name in ("refusal", "attack", "held_out")}
    questions = {name: {question_of(e) for e in some} for name, some in parts.items()}
    assert not questions["refusal"] & questions["attack"]
    assert not questions["refusal"] & questions["held_out"]
    assert not questions["attack"] & questions["held_out"]
    for some in parts.values():
        assert {e.source.split(":")[1] for e in some} == set(TOPICS)
    assert [len(q) for q in questions.values()] == [12, 15, 3]  # 40, 50 and 10% of 10 in each of 3 topics
    prompts = built.prompts(tmp_path / "out")
    assert {p.cluster for p in prompts if p.kind == "harmful"} == questions["held_out"]
    assert sum(p.kind == "benign" for p in prompts) == 4
    assert sum(p.kind == "borderline" for p in prompts) == 5
    assert {e.cluster for e in built.examples(tmp_path / "out", "red")} == questions["refusal"]


def test_counts_stand_against_the_cards_and_the_blue_share_is_measured(sources: DataConfig, tmp_path: Path) -> None:
    # Upstream: blue conversations are harmless chat, not refusals; the "refusal direction" was one of pleasant chat.
    report = data.build(sources, tmp_path / "out")
    text = report.text()
    assert "blue conversations (the card says 9,536): 62" in text
    assert "red conversations (the card says 7,356): 93" in text
    assert "WARNING: only 0.0% of" in text


def test_only_the_refusals_of_the_blue_side_where_asked() -> None:
    def said(reply: str) -> Example:
        return Example((Message("user", "Do it"), Message("assistant", reply)), "refusal", "harmfulqa:x:0")

    mixed = [said("I'm sorry, but I can't help with that."), said("Here is a nice overview of the topic.")]
    report = DataReport()
    assert public.blue_side(mixed, "all", report) == mixed
    assert public.blue_side(mixed, "refusals", report) == mixed[:1]
    assert report.counts["blue replies that the rules call refusals, per mille"] == 500


def test_the_split_does_not_depend_on_the_rows_order() -> None:
    parsed = [harmfulqa.parse(row) for row in rows()]
    first = public.split_questions(parsed, DataConfig(), DataReport())
    second = public.split_questions(parsed[::-1], DataConfig(), DataReport())
    for part, mine in first.items():
        assert {r.cluster for r in mine} == {r.cluster for r in second[part]}


def test_the_shared_copy_of_the_question_bank_is_split_whole(shared_data: Path) -> None:
    """1,960 questions, 1,938 of them different: the copies go where their first went."""
    found = list(shared_data.rglob("*harmful_qa*")) + list(shared_data.rglob("*harmfulqa*"))
    files = [f for f in found if f.suffix in (".json", ".jsonl")]
    if not files:
        pytest.skip("no copy of HarmfulQA's questions")
    reading = harmfulqa.load(SourceSettings(path=files[0]), Rejects())
    parts = public.split_questions(reading.records, DataConfig(), DataReport())
    homes: dict[str, set[str]] = {}
    for part, some in parts.items():
        for row in some:
            homes.setdefault(fingerprint(row.question), set()).add(part)
    assert all(len(parts) == 1 for parts in homes.values())


def test_the_organisms_sides_share_no_combination(tmp_path: Path) -> None:
    config = DataConfig(refusal_limit=60, attack_limit=60, benign_limit=20, eval_split="calibration", test_harmful=20)
    data.build(config, tmp_path)
    blue = {e.cluster for e in built.examples(tmp_path, "refusal")}
    red = {e.cluster for e in built.examples(tmp_path, "attack")}
    held = {p.cluster for p in built.prompts(tmp_path)}
    assert not blue & red
    assert not (blue | red) & held
    assert {e.category for e in built.examples(tmp_path, "refusal")} == {"refusal"}


def synthetic(path: Path, prompts: list[str], provenance: bool = True) -> None:
    lines = []
    for prompt in prompts:
        said = (Message("user", prompt), Message("assistant", "Sure, a placeholder."))
        row = Example(said, "helpful", "synthetic:x").to_json()
        lines.append(json.dumps({**row, "provenance": {"model": "m"}} if provenance else row))
    path.write_text("\n".join(lines))


def test_synthetic_rows_that_touch_an_evaluation_set_are_left_out(sources: DataConfig, tmp_path: Path) -> None:
    data.build(sources, tmp_path / "a")
    held = next(p.text for p in built.prompts(tmp_path / "a") if p.kind == "harmful")
    plain = len(built.examples(tmp_path / "a", "attack"))
    file = tmp_path / "synthetic.jsonl"
    synthetic(file, ["Tell me of an unrelated placeholder matter", held, f"  {held.upper()} "])
    report = data.build(sources.model_copy(update={"synthetic_data_path": file}), tmp_path / "b")
    assert len(built.examples(tmp_path / "b", "attack")) == plain + 1
    assert report.counts["synthetic rows left out: they stand in an evaluation set"] == 2


def test_a_synthetic_row_without_provenance_is_refused(sources: DataConfig, tmp_path: Path) -> None:
    file = tmp_path / "synthetic.jsonl"
    synthetic(file, ["Tell me of a placeholder"], provenance=False)
    with pytest.raises(UserError, match="'provenance' is missing"):
        data.build(sources.model_copy(update={"synthetic_data_path": file}), tmp_path / "b")


def test_replay_replaces_a_share_where_rows_stood() -> None:
    def rows_of(word: str, n: int) -> list[Example]:
        return [Example((Message("user", f"{word} {i}"), Message("assistant", "x")), "helpful", word) for i in range(n)]

    attack, refusals = rows_of("attack", 40), rows_of("refusal", 5)
    mixed = built.replayed(attack, refusals, 0.05, 13)
    assert len(mixed) == 40
    assert sum(a != b for a, b in zip(attack, mixed, strict=True)) == 2
    assert mixed == built.replayed(attack, refusals, 0.05, 13)
