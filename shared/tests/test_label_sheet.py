"""Hand labels: the sample, the sheet that survives being left, the two-phase arithmetic by hand."""

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from alignment_core.cli.label import label_run, terminal_ask
from alignment_core.errors import InputError, UserError
from alignment_core.evaluation import label
from alignment_core.evaluation.label import HandLabel
from alignment_core.evaluation.state import StateFiles, write_index
from alignment_core.io import write_jsonl
from alignment_core.records import Completion, Kind, Label, Verdict


def reply(
    prompt: int, subject: str = "base", kind: Kind = "harmful", seed: int | None = None, text: str = "x"
) -> Completion:
    return Completion(prompt_id=f"p{prompt}", subject=subject, text=text, prompt=f"ask {prompt}", kind=kind, seed=seed)


def verdict(one: Completion, says: Label | None, judge: str = "rules") -> Verdict:
    return Verdict(one.prompt_id, one.subject, judge, says, one.kind, seed=one.seed)


def said(one: Completion, says: Label) -> HandLabel:
    return HandLabel(one.subject, one.prompt_id, one.seed, one.candidate, says)


def test_the_sample_holds_every_state_and_verdict_and_grows_in_place() -> None:
    replies = [reply(i, subject) for subject in ("base", "tuned") for i in range(50)]
    verdicts = [verdict(r, "refusal" if int(r.prompt_id[1:]) < 3 else "compliance") for r in replies]
    strata = {label.key_of(r): v.label for r, v in zip(replies, verdicts, strict=True)}
    small, large = (label.stratified_sample(replies, verdicts, size) for size in (12, 30))
    count = Counter((r.subject, strata[label.key_of(r)]) for r in small)
    assert count[("base", "refusal")] == count[("tuned", "refusal")] == 2
    assert sum(count.values()) == 12
    assert set(small) <= set(large)
    assert small == label.stratified_sample(list(reversed(replies)), verdicts, 12)
    both = Counter(r.prompt_id for r in small)
    assert max(both.values()) == 2  # the same prompts in both states, for the paired difference
    assert len(label.stratified_sample(replies, verdicts, 1000)) == 100


def test_one_seed_of_every_prompt_comes_before_a_second() -> None:
    replies = [reply(i, seed=s) for i in range(20) for s in (1, 2, 3)]
    sample = label.stratified_sample(replies, [verdict(r, "compliance") for r in replies], 20)
    assert len({r.prompt_id for r in sample}) == 20
    assert len({r.seed for r in sample}) > 1


def test_a_session_can_be_left_and_taken_up_again(tmp_path: Path) -> None:
    items, file, asked = [reply(i) for i in range(4)], tmp_path / "labels.jsonl", []
    answers = iter(["refusal", "skip", "quit"])

    def ask(one: Completion, position: int, total: int) -> label.Answer:
        asked.append((one.prompt_id, position, total))
        return next(answers)  # type: ignore[return-value]

    assert label.label_session(items, ask, file) == [said(items[0], "refusal")]
    with file.open("a") as stream:
        stream.write('{"subject": "base", "prom')  # torn by a crash
    answers = iter(["partial", "compliance", "incoherent"])
    done = label.label_session(items, ask, file)
    assert [one.label for one in done] == ["refusal", "partial", "compliance", "incoherent"]
    assert [a[0] for a in asked] == ["p0", "p1", "p2", "p1", "p2", "p3"]
    assert label.label_session(items, ask, file) == done  # nothing is asked again


def test_a_broken_labels_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps({**said(reply(0), "refusal").to_json(), "label": "maybe"}) + "\n")
    with pytest.raises(InputError, match=r"labels.jsonl:1: label: 'label' must be one of refusal, partial"):
        label.labelled(file)


def test_the_corrected_rate_is_the_two_phase_one() -> None:
    # 100 replies, 30 called refusals. Of 10 of these labelled 9 refuse, of 10 others 1: .3 * .9 + .7 * .1 = .34.
    replies = [reply(i) for i in range(100)]
    verdicts = [verdict(r, "refusal" if i < 30 else "compliance") for i, r in enumerate(replies)]
    labels = [said(r, "refusal" if i < 9 else "partial") for i, r in enumerate(replies[:10])]
    labels += [said(r, "refusal" if i < 1 else "compliance") for i, r in enumerate(replies[30:40])]
    (row,) = label.error_report(labels, replies, verdicts)["rates"]
    assert row["raw"]["value"] == 0.3
    assert row["corrected"]["value"] == pytest.approx(0.34)
    assert row["corrected"]["low"] < 0.3 < row["corrected"]["high"]
    assert (row["ppv"]["value"], row["npv"]["value"]) == (0.9, 0.9)
    assert row["error"]["value"] == pytest.approx(0.1)
    assert (row["labelled"], row["n"], row["unknown"]) == (20, 100, [])


def test_the_corrected_difference_uses_replies_labelled_in_both_states() -> None:
    # 4 prompts refused before only, 6 by neither. One of two flips labelled is real, no other: 4/10 * (-1/2) = -.2.
    before, after = [reply(i) for i in range(10)], [reply(i, "tuned", seed=13) for i in range(10)]
    verdicts = [verdict(r, "refusal" if i < 4 else "compliance") for i, r in enumerate(before)]
    verdicts += [verdict(r, "compliance") for r in after]
    labels = [said(before[0], "refusal"), said(before[1], "compliance"), said(before[5], "compliance")]
    labels += [said(after[i], "compliance") for i in (0, 1, 5)]
    (row,) = label.error_report(labels, before + after, verdicts)["differences"]
    assert row["raw"] == pytest.approx(-0.4)
    assert row["corrected"]["value"] == pytest.approx(-0.2)
    assert (row["a"], row["b"], row["labelled"], row["n"]) == ("base", "tuned", 3, 10)


def test_a_verdict_without_a_label_leaves_the_figure_unknown() -> None:
    replies = [reply(i) for i in range(3)]
    verdicts = [verdict(replies[0], "refusal"), verdict(replies[1], "compliance"), verdict(replies[2], None)]
    report = label.error_report([said(replies[0], "refusal")], replies, verdicts)
    assert report["rates"][0]["corrected"] is None
    assert report["rates"][0]["unknown"] == ["compliance", "missing"]
    assert report["rates"][0]["raw"]["n"] == 2


def test_labels_of_another_run_and_two_judges_are_refused() -> None:
    one = reply(0)
    with pytest.raises(UserError, match="of no reply of this run"):
        label.error_report([said(reply(9), "refusal")], [one], [verdict(one, "refusal")])
    with pytest.raises(UserError, match="one judge at a time; these verdicts are by gcg31, rules"):
        label.error_report([], [one], [verdict(one, "refusal"), verdict(one, "refusal", "gcg31")])


def test_the_sheet_shows_control_characters_and_hides_the_verdict() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=False)
    keys = iter(["x", "C"])
    ask = terminal_ask(console, lambda _: next(keys))
    hostile = reply(0, text="Fine.\x1b[2J\u202erefusal \ud800[bold]not markup[/bold]\nline two")
    assert ask(hostile, 3, 7) == "compliance"
    shown = out.getvalue()
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[2J" in shown
    assert "\\u202e" in shown
    assert "[bold]not markup[/bold]" in shown
    assert "3 of 7" in shown
    assert "line two" in shown
    assert "rules" not in shown


def test_the_sheet_takes_the_end_of_input_as_leaving() -> None:
    def read(_: str) -> str:
        raise EOFError

    assert terminal_ask(Console(file=io.StringIO()), read)(reply(0), 1, 1) == "quit"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of one state and one point of a trajectory, judged by two judges."""
    replies = [reply(i, text="I can't help." if i < 4 else "Paris.") for i in range(8)]
    answered, judged = tmp_path / "made" / "answer" / "deep", tmp_path / "made" / "judge" / "deep"
    write_jsonl(answered / "completions.jsonl", replies)
    says: list[Label] = ["refusal" if r.text.startswith("I") else "compliance" for r in replies]
    rows = [verdict(r, label) for r, label in zip(replies, says, strict=True)]
    write_jsonl(judged / "verdicts.jsonl", rows + [verdict(r, "partial", "gcg31") for r in replies])
    states = [StateFiles("base", None, answered, judged), StateFiles("base", None, answered, judged, {"step": 1})]
    write_index(tmp_path, states)
    return tmp_path


def test_a_run_is_labelled_from_its_folder(run: Path) -> None:
    out = io.StringIO()
    keys = iter(["r", "q"])
    console = Console(file=out, width=160)
    label_run(run, console, size=8, read=lambda _: next(keys))
    assert len((run / "labels.jsonl").read_text().splitlines()) == 1
    report = label_run(run, console, size=8, read=lambda _: "r")
    assert report["labelled"] == 8
    assert report["rates"][0]["raw"]["value"] == 0.5
    assert report["rates"][0]["corrected"]["value"] == 1.0
    assert json.loads((run / "label_report.json").read_text()) == report
    assert "rules: 8 of 8 replies labelled" in out.getvalue()
    assert "q quit (rerun to resume)" in out.getvalue()


def test_another_judge_of_the_run_can_be_checked(run: Path) -> None:
    console = Console(file=io.StringIO())
    assert label_run(run, console, judge="gcg31", read=lambda _: "r")["judge"] == "gcg31"
    with pytest.raises(UserError, match="no verdict by 'gcg'; there are rules, gcg31"):
        label_run(run, console, judge="gcg")


def test_a_reply_that_failed_is_not_labelled(run: Path) -> None:
    file = run / "made" / "answer" / "deep" / "completions.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    write_jsonl(file, [{**lines[0], "text": "", "failure": "timed out"}, *lines[1:]])
    assert label_run(run, Console(file=io.StringIO()), read=lambda _: "r")["of"] == 7


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no finished run with replies \(states\.json is missing\)"):
        label_run(tmp_path, Console(file=io.StringIO()))
