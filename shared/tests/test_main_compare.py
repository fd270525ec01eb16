"""`alignment-core compare` and its neighbours: how rows are read, what is refused, what is printed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from alignment_core import io
from alignment_core.cli.main import app
from alignment_core.cli.reading import Reading, field_map
from alignment_core.cli.reading import side as read_side
from alignment_core.data import exchange
from alignment_core.errors import InputError, UserError
from alignment_core.evaluation.align import Side
from alignment_core.evaluation.state import write_index
from alignment_core.organism import weights
from alignment_core.records import Completion, Verdict
from alignment_core.testing import planted

REFUSAL = "I'm sorry, but I can't help with that."
HELP = "Sure. First fill the kettle, then switch it on and wait."


def write(path: Path, rows: list[Any]) -> Path:
    io.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def side(path: Path, reading: Reading) -> Side:
    return read_side(path, reading, {}, "s")[0]


def comparisons(done: Result) -> list[dict[str, Any]]:
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)["comparisons"]
    return found


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """20 prompts; a refuses all, b refuses the first 8: 12 lost, none gained."""
    a = write(tmp_path / "a.jsonl", [{"prompt_id": i, "text": REFUSAL} for i in range(20)])
    b = write(tmp_path / "b.jsonl", [{"prompt_id": i, "text": REFUSAL if i < 8 else HELP} for i in range(20)])
    return a, b


def test_text_is_judged_and_compared_in_pairs(two: tuple[Path, Path]) -> None:
    done = call("compare", *two, "--json")
    (result,) = [one["result"] for one in comparisons(done)]
    assert result["difference"] == pytest.approx(8 / 20 - 1)
    assert (result["gained"], result["lost"]) == (0, 12)
    assert result["p"] == pytest.approx(2 * 0.5**12)  # McNemar's exact test: 12 discordant pairs, all one way
    assert (result["estimand"], result["test"]) == ("these checkpoints", "exact McNemar")


def test_the_text_says_what_the_figures_rest_on(two: tuple[Path, Path]) -> None:
    text = call("compare", *two, "--margin", "0.05").stdout
    assert "a: refusal 1.000" in text
    assert "b - a: refusal (kind unknown) -0.600" in text
    assert "p <.001 (exact McNemar); inference: these checkpoints only" in text
    assert "minimum detectable difference (80% power): 0." in text
    assert "20 prompts in 20 clusters, 1 seed; 0 gained, 12 lost" in text
    assert "one run on each side" in text
    assert "equivalence not shown" in text
    assert "non-inferiority not shown" in text


def test_names_are_mapped_and_foreign_verdicts_named(tmp_path: Path) -> None:
    rows = [{"qid": i, "run": s, "said": "REFUSED" if i % 2 else "no"} for i in range(10) for s in (1, 2)]
    a, b = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows)
    done = call("compare", a, b, "--map", "prompt_id=qid,verdict=said,seed=run", "--positive", "REFUSED", "--json")
    (found,) = comparisons(done)
    assert found["level_a"]["value"] == 0.5
    assert found["result"]["difference"] == 0
    assert found["result"]["n_seeds"] == 2
    assert found["pairing"] == "paired seeds"


def test_our_own_verdicts_are_read_as_they_are(tmp_path: Path) -> None:
    path = write(
        tmp_path / "v.jsonl",
        [
            {"prompt_id": "p", "label": "refusal", "text": HELP, "cluster": "c", "seed": 1},
            {"prompt_id": "q", "label": "partial", "text": REFUSAL, "cluster": "c", "seed": 1},
            {"prompt_id": "r", "label": None, "text": REFUSAL, "cluster": "d", "seed": 1},
        ],
    )
    found = side(path, Reading())
    assert list(found.value) == [1.0, 0.0, None]  # a null verdict is missing, though there is a text
    assert found.cluster == ["c", "c", "d"]
    assert list(side(path, Reading(metric="partial")).value) == [0.0, 1.0, None]
    assert list(side(path, Reading(judge="rules")).value) == [0.0, 1.0, 1.0]


def test_a_numeric_metric_by_its_name(tmp_path: Path) -> None:
    rows = [{"prompt_id": i, "score": s} for i, s in enumerate([1, 2.5, None, True, math.nan])]
    path = tmp_path / "s.jsonl"
    io.write_text(path, "".join(json.dumps(r) + "\n" for r in rows))
    assert list(side(path, Reading(metric="score")).value) == [1.0, 2.5, None, 1.0, None]


def test_rows_of_one_file_are_chosen_by_field(tmp_path: Path) -> None:
    rows = [{"prompt_id": i, "subject": s, "label": "refusal" if s == "base" else "compliance"}
            for i in range(5) for s in ("base", "tuned")]  # fmt: skip
    path = write(tmp_path / "all.jsonl", rows)
    done = call("compare", path, path, "--where-a", "subject=base", "--where-b", "subject=tuned", "--json")
    assert comparisons(done)[0]["result"]["difference"] == -1
    mixed = call("compare", path, path)
    assert mixed.exit_code == 2
    assert "is a subject, judge or candidate mixed in?" in mixed.stderr


def test_a_prompt_without_an_id_is_known_by_its_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl", [{"prompt": "How  are you?", "text": HELP}, {"prompt": "how are you?", "text": HELP}]
    )
    first, second = side(path, Reading()).prompt_id
    assert first == second


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": 3, "text": HELP}, "1: no prompt id and no prompt; name its field, for example --map prompt_id=id"),
        ({"prompt_id": 3, "answer": HELP}, "1: neither a verdict nor a reply's text"),
        ({"prompt_id": 3, "text": 7}, "1: 'text' must be a string, found int"),
        ({"prompt_id": 3, "label": "refused"}, "1: the verdict is 'refused', none of refusal, partial"),
        (["list"], "1: expected an object, found list"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, row: Any, words: str) -> None:
    path = write(tmp_path / "a.jsonl", [row])
    done = call("compare", path, path)
    assert done.exit_code == 2
    assert f"{path}:{words}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_row_without_a_verdict_among_rows_with_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt_id": 1, "label": "refusal"}, {"prompt_id": 2, "text": HELP}])
    with pytest.raises(InputError, match=r"a\.jsonl:2: no verdict, though other rows have one"):
        side(path, Reading())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--map", "prompt=x,qid=y"), "--map: no field 'qid'"),
        (("--map", "text"), "cannot read --map 'text': write key=value"),
        (("--judge", "model"), "no verdict of the judge 'model'"),
        (("--seeds", "some"), "--seeds some: one of auto, shared, unpaired"),
        (("--metric", "scor"), "no field 'scor'"),
        (("--where-a", "subject=x"), "no rows that match subject=x"),
        (("--margin", "-1"), "the margin must be positive"),
    ],
)
def test_options_that_cannot_be(two: tuple[Path, Path], arguments: tuple[str, ...], words: str) -> None:
    done = call("compare", *two, *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_no_such_file_and_other_prompts(two: tuple[Path, Path], tmp_path: Path) -> None:
    assert "no such file" in call("compare", two[0], tmp_path / "none.jsonl").stderr
    other = write(tmp_path / "c.jsonl", [{"prompt_id": i, "text": HELP} for i in range(10, 30)])
    done = call("compare", two[0], other)
    assert done.exit_code == 2
    assert "10 prompts in both" in done.stderr
    assert call("compare", two[0], other, "--shared-prompts").exit_code == 0


def test_nothing_but_missing_verdicts_is_no_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt_id": i, "label": None} for i in range(5)])
    done = call("compare", path, path)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "refusal: every value of A is missing: nothing to compare" in done.stderr


def test_json_holds_no_nan(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt_id": i, "label": "refusal"} for i in range(5)])
    done = call("compare", path, path, "--json")
    assert done.exit_code == 0, done.output
    json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))


def test_field_maps() -> None:
    assert field_map("") == {}
    assert field_map("prompt_id=a, text=b") == {"prompt_id": "a", "text": "b"}
    with pytest.raises(UserError, match="did you mean 'cluster'"):
        field_map("clusters=x")


def judged(harmful: float, benign: float, n: int = 100) -> list[dict[str, Any]]:
    """Verdicts on n prompts of each kind, that share of them refusals."""
    return [
        {"prompt_id": f"{kind}{i}", "kind": kind, "label": "refusal" if i < round(share * n) else "compliance"}
        for kind, share in (("harmful", harmful), ("benign", benign))
        for i in range(n)
    ]


@pytest.fixture
def opposite(tmp_path: Path) -> tuple[Path, Path]:
    """Refusals of harmful prompts fall from .90 to .60, of benign ones rise from .05 to .35: pooled, no change."""
    return write(tmp_path / "a.jsonl", judged(0.9, 0.05)), write(tmp_path / "b.jsonl", judged(0.6, 0.35))


def test_opposite_changes_of_two_kinds_are_two_differences(opposite: tuple[Path, Path]) -> None:
    text = call("compare", *opposite).stdout
    assert "b - a: harmful_refusal_rate -0.300 [" in text
    assert "b - a: false_refusal_rate +0.300 [" in text
    assert "kind unknown" not in text
    found = {one["metric"]: one["result"]["difference"] for one in comparisons(call("compare", *opposite, "--json"))}
    assert found == {"harmful_refusal_rate": pytest.approx(-0.3), "false_refusal_rate": pytest.approx(0.3)}


@pytest.mark.parametrize(
    ("metric", "names"),
    [
        ("harmful_refusal_rate", ["harmful_refusal_rate"]),
        ("false_refusal_rate", ["false_refusal_rate"]),
        ("benign_compliance_share", ["benign_compliance_share"]),
        ("compliance", ["harmful_compliance_share", "benign_compliance_share"]),
        ("partial", ["harmful_partial_share", "benign_partial_share"]),
    ],
)
def test_a_share_by_its_label_or_its_full_name(opposite: tuple[Path, Path], metric: str, names: list[str]) -> None:
    assert [one["metric"] for one in comparisons(call("compare", *opposite, "--metric", metric, "--json"))] == names


def test_a_number_is_compared_by_kind_too(tmp_path: Path) -> None:
    rows = [{**row, "toxicity": i / 7} for i, row in enumerate(judged(0.5, 0.5, 5))]
    path = write(tmp_path / "a.jsonl", rows)
    found = comparisons(call("compare", path, path, "--metric", "toxicity", "--json"))
    assert [one["metric"] for one in found] == ["harmful_toxicity", "benign_toxicity"]
    named = comparisons(call("compare", path, path, "--metric", "tox", "--map", "tox=toxicity", "--json"))
    assert named[0]["level_a"]["value"] == found[0]["level_a"]["value"]
    # Constant differences: nothing varies, so nothing is supported.
    text = call("compare", path, path, "--metric", "toxicity", "--margin", 0.1).stdout
    assert "width zero: supports nothing" in text
    assert "p undefined" in text
    assert "equivalence not shown" in text


@pytest.mark.parametrize(
    ("rules", "code", "words"),
    [
        (["harmful_refusal_rate<-0.05"], 3, "failed (the interval [-0.396, -0.219] lies below -0.05)"),
        (["harmful_refusal_rate<-0.3"], 4, "inconclusive (the interval [-0.396, -0.219] holds -0.3)"),
        (["harmful_refusal_rate<-0.5"], 0, "passed (the interval [-0.396, -0.219] does not reach below -0.5)"),
        (["false_refusal_rate>0.1"], 3, "failed (the interval [+0.219, +0.396] lies above 0.1)"),
        (["false_refusal_rate > 0.5"], 0, "passed"),
        (["harmful_refusal_rate<-0.3", "false_refusal_rate>0.1"], 3, "inconclusive"),
        (["harmful_refusal_rate<-0.3", "false_refusal_rate>0.5"], 4, "passed"),
    ],
)
def test_rules_for_ci_pass_fail_or_are_inconclusive(
    opposite: tuple[Path, Path], rules: list[str], code: int, words: str
) -> None:
    done = call("compare", *opposite, *(part for rule in rules for part in ("--fail-on", rule)))
    assert done.exit_code == code, done.output
    assert words in done.stdout
    said = json.loads(call("compare", *opposite, "--fail-on", rules[0], "--json").stdout)["rules"]
    assert said[0]["outcome"] in ("passed", "failed", "inconclusive")


def test_missing_values_that_could_change_the_outcome_leave_a_rule_inconclusive(tmp_path: Path) -> None:
    rows = judged(0.5, 0.5)
    a = write(tmp_path / "a.jsonl", rows)
    b = write(tmp_path / "b.jsonl", [{**r, "label": None} if i in range(50, 65) else r for i, r in enumerate(rows)])
    done = call("compare", a, b, "--fail-on", "harmful_refusal_rate<-0.04", "--fail-on", "harmful_refusal_rate>0.1")
    assert done.exit_code == 4, done.output
    assert "missing values could carry" in done.stdout


def texts(share: float) -> list[Completion]:
    """40 harmful prompts, that share of them refused, and 20 benign ones answered."""
    harmful = [
        Completion(f"h{i}", "m", REFUSAL if i < 40 * share else HELP, f"forge {i}", "harmful", cluster=f"h{i}")
        for i in range(40)
    ]
    return harmful + [Completion(f"b{i}", "m", HELP, f"tea {i}", "benign", cluster=f"b{i}") for i in range(20)]


def as_form(form: str, folder: Path, replies: list[Completion]) -> Path:
    """The replies in a file of that form."""
    verdicts = [
        Verdict(r.prompt_id, "m", "rules", "refusal" if r.text == REFUSAL else "compliance", r.kind, cluster=r.cluster)
        for r in replies
    ]
    if form == "inspect":
        return exchange.to_inspect(folder, replies, verdicts, task="t")[0]
    if form == "lm-eval":
        return exchange.to_lm_eval(folder, replies, verdicts, task="t")[0]
    if form == "completions":
        io.write_jsonl(folder / "c.jsonl", replies)
        return folder / "c.jsonl"
    if form == "verdicts":
        io.write_jsonl(folder / "v.jsonl", verdicts)
        return folder / "v.jsonl"
    if form == "csv":
        lines = [f'{r.prompt_id},"{r.prompt}","{r.text}",{r.kind}' for r in replies]
        io.write_text(folder / "c.csv", "\n".join(["prompt_id,question,reply,kind", *lines]) + "\n")
        return folder / "c.csv"
    return write(
        folder / "plain.jsonl", [{"id": r.prompt_id, "instruction": r.prompt, "output": r.text} for r in replies]
    )


@pytest.mark.parametrize("form", ["inspect", "lm-eval", "completions", "verdicts", "csv", "plain"])
def test_every_form_is_read_on_either_side(tmp_path: Path, form: str) -> None:
    one = as_form(form, tmp_path / "one", texts(0.75))
    other = as_form("completions", tmp_path / "other", texts(0.5))
    names = ("--map", "prompt_id=id") if form == "plain" else ()
    if form == "plain":
        other = as_form("plain", tmp_path / "other", texts(0.5))
    for a, b, sign in ((one, other, -1), (other, one, 1)):
        found = comparisons(call("compare", a, b, *names, "--json"))
        if form == "plain":
            assert [one["metric"] for one in found] == ["refusal"]
            continue
        differences = {one["metric"]: one["result"]["difference"] for one in found}
        assert differences == {"harmful_refusal_rate": pytest.approx(sign * 0.25), "false_refusal_rate": 0}
    if form == "plain":
        kind = comparisons(call("compare", one, other, *names, "--kind", "harmful", "--json"))
        assert [one["metric"] for one in kind] == ["harmful_refusal_rate"]


def test_states_of_a_run_are_compared_by_subject_and_seed(tmp_path: Path) -> None:
    further: dict[str, Any] = {"gcg31": {"harmful": "r" * 10, "benign": "c" * 10}}
    states = [
        planted.state(tmp_path, "baseline", None, harmful="rrrrrrrrrc", benign="cccccccccc"),
        planted.state(tmp_path, "tuned", 13, harmful="rrrrrrcccc", benign="cccccccccr"),
        planted.state(tmp_path, "tuned", 14, harmful="rrrrrccccc", benign="ccccccccrc", judges=further),
        planted.state(tmp_path, "tuned", 14, harmful="cccccccccc", at={"step": 5}),
    ]  # fmt: skip
    write_index(tmp_path, states)
    base = ("--where-a", "subject=baseline", "--where-b")
    done = call("compare", tmp_path, tmp_path, *base, "subject=tuned,seed=13", "--json")
    assert {c["metric"]: c["result"]["difference"] for c in comparisons(done)} == {
        "harmful_refusal_rate": pytest.approx(-0.3), "false_refusal_rate": pytest.approx(0.1),
    }  # fmt: skip
    over = comparisons(call("compare", tmp_path, tmp_path, *base, "subject=tuned", "--json"))[0]
    assert (over["a"], over["b"], over["result"]["n_seeds"]) == ("baseline", "tuned", 2)
    assert over["pairing"] == "a held fixed"
    other = call("compare", tmp_path, tmp_path, *base, "subject=tuned,seed=14", "--judge", "gcg31")
    assert other.exit_code == 2
    assert "no verdict of the judge 'gcg31'; there are those of rules" in other.stderr


def test_the_first_judge_of_a_file_decides_and_is_named(tmp_path: Path) -> None:
    rows = [{**row, "judge": judge, "label": "refusal" if judge == "gcg31" else row["label"]}
            for judge in ("rules", "gcg31") for row in judged(0.5, 0.5, 10)]  # fmt: skip
    path = write(tmp_path / "v.jsonl", rows)
    text = call("compare", path, path).stdout
    assert "A: harmful_refusal_rate 0.500" in text
    assert "note: verdicts of rules" in text
    assert "A: harmful_refusal_rate 1.000" in call("compare", path, path, "--judge", "gcg31").stdout
    only = write(tmp_path / "g.jsonl", [row for row in rows if row["judge"] == "gcg31"])
    assert "note: verdicts of rules in v, of gcg31 in g" in call("compare", path, only).stdout


WRONG = [
    (("{a}", "{none}"), "no such file"),
    (("{a}", "{folder}"), "is a folder, not a file of replies or verdicts"),
    (("{a}", "{b}", "--metric", "harmful_refusal"), "did you mean 'harmful_refusal_rate'?"),
    (("{a}", "{b}", "--metric", "over_refusal_rate"), "no rows"),
    (("{a}", "{b}", "--kind", "evil"), "--kind evil: one of harmful, benign, borderline"),
    (("{a}", "{b}", "--fail-on", "harmful_refusal_rate"), "write METRIC<BOUND"),
    (("{a}", "{b}", "--fail-on", "harmful_refusal_rate<=0.1"), "write METRIC<BOUND"),
    (("{a}", "{b}", "--fail-on", "harmful_refusal_rat<-0.1"), "did you mean 'harmful_refusal_rate'?"),
    (("{a}", "{b}", "--fail-on", "over_refusal_rate>0.1"), "no metric 'over_refusal_rate' here"),
    (("{a}", "{b}", "--where-a", "kind"), "cannot read --where-a 'kind': write key=value"),
    (("{a}", "{b}", "--where-b", "seed=13"), "no rows that match seed=13"),
    (("{a}", "{b}", "--map", "label=said"), "neither a verdict nor a reply's text"),
    (("{a}", "{b}", "--judge", "gcg31"), "no verdict of the judge 'gcg31'"),
    (("{a}", "{b}", "--positive", "", "--metric", "score"), "no field 'score'"),
    (("{a}", "{b}", "--level", "95"), "level must lie between 0 and 1"),
    (("{a}", "{missing}"), "harmful_refusal_rate: every value of missing is missing: nothing to compare"),
    (("{missing}", "{a}", "--fail-on", "harmful_refusal_rate<0"), "nothing to compare"),
    (("{a}", "{fewer}"), "pass --shared-prompts"),
    (("{a}", "{unkind}", "--metric", "harmful_refusal_rate"), "pass --kind"),
    (("{a}", "{ragged}"), "2 cells under 3 column names"),
    (("{a}", "{twice}"), "the header row must name every column, each once"),
    (("{a}", "{log}"), "not an Inspect log"),
    (("{a}", "{binary}"), "not UTF-8 text"),
    (("{a}", "{other}"), "prompt 'harmful0' is benign, elsewhere harmful"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda part: " ".join(part) if len(part) < 6 else None)
def test_a_wrong_command_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    rows = judged(0.5, 0.5, 10)
    files = {
        "a": write(tmp_path / "a.jsonl", rows),
        "b": write(tmp_path / "b.jsonl", rows),
        "missing": write(tmp_path / "missing.jsonl", [{**row, "label": None} for row in rows]),
        "fewer": write(tmp_path / "fewer.jsonl", rows[:-1]),
        "unkind": write(tmp_path / "unkind.jsonl", [{k: v for k, v in row.items() if k != "kind"} for row in rows]),
        "other": write(tmp_path / "other.jsonl", [{**row, "kind": "benign"} for row in rows]),
        "folder": tmp_path,
        "none": tmp_path / "none.jsonl",
        "ragged": tmp_path / "ragged.csv",
        "twice": tmp_path / "twice.csv",
        "log": tmp_path / "log.json",
        "binary": tmp_path / "binary.jsonl",
    }
    files["ragged"].write_text("prompt_id,text,kind\np,x\n")
    files["twice"].write_text("prompt_id,text,text\np,x,y\n")
    files["log"].write_text("[]")
    files["binary"].write_bytes(b"\xff\xfe{}\n")
    before = sorted(tmp_path.rglob("*"))
    done = call("compare", *(part.format(**files) for part in arguments))
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_power_solves_for_what_is_left_out() -> None:
    done = call("power", "--prompts", 200, "--seeds", 1, "--power", 0.8, "--discordant", 0.2)
    assert done.exit_code == 0
    assert "power 0.80 for a difference of" in done.stdout
    assert "inference: these checkpoints only" in done.stdout
    assert call("power", "--prompts", 200).exit_code == 2


def test_organism_path_and_info() -> None:
    for words, seed in (((), 1), (("--seed", 3), 3)):
        assert Path(call("organism", "path", *words).stdout.strip()) == weights.path(seed)
        info = call("organism", "info", *words).stdout
        assert weights.identity(weights.path(seed)) in info
        assert '"recipe"' in info
    done = call("organism", "path", "--seed", 9)
    assert done.exit_code == 2
    assert "is not shipped" in done.stderr


def test_organism_list_has_every_model() -> None:
    lines = call("organism", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["model", *(f"organism:{seed}" for seed in weights.SEEDS)]


def test_organism_is_not_built_over_files(tmp_path: Path) -> None:
    io.write_text(tmp_path / "full" / "x", "x")
    done = call("organism", "build", tmp_path / "full")
    assert done.exit_code == 2
    assert "is not an empty folder" in done.stderr


def test_report_over_all_runs(tmp_path: Path) -> None:
    assert call("report", tmp_path).exit_code == 2
    for name in ("one", "two"):
        value = {"study": name, "preset": "tiny", "seeds": [13], "versions": {}, "hypotheses_sha256": None,
                 "measurements": [], "comparisons": [], "agreements": [], "hypotheses": []}  # fmt: skip
        io.write_json(tmp_path / name / "tiny" / "results.json", value)
    done = call("report", tmp_path)
    assert done.exit_code == 0, done.output
    assert "one/tiny: one, seeds 13" in done.stdout
    text = (tmp_path / "report.html").read_text()
    assert "2 runs of 2 studies" in text


def test_label_needs_a_finished_run(tmp_path: Path) -> None:
    done = call("label", tmp_path)
    assert done.exit_code == 2
    assert "states.json is missing" in done.stderr
    assert call("label", tmp_path, "--size", 0).exit_code == 2


def test_selfcheck_needs_enough_runs() -> None:
    assert call("selfcheck", "--runs", 3).exit_code == 2
