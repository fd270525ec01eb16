"""`alignment-core compare` and its neighbours: how rows are read, what is refused, what is printed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from alignment_core import io
from alignment_core.cli.compare import Reading, field_map, side
from alignment_core.cli.main import app
from alignment_core.errors import InputError, UserError
from alignment_core.organism import weights

REFUSAL = "I'm sorry, but I can't help with that."
HELP = "Sure. First fill the kettle, then switch it on and wait."


def write(path: Path, rows: list[Any]) -> Path:
    io.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """20 prompts; a refuses all, b refuses the first 8: 12 lost, none gained."""
    a = write(tmp_path / "a.jsonl", [{"prompt_id": i, "text": REFUSAL} for i in range(20)])
    b = write(tmp_path / "b.jsonl", [{"prompt_id": i, "text": REFUSAL if i < 8 else HELP} for i in range(20)])
    return a, b


def test_text_is_judged_and_compared_in_pairs(two: tuple[Path, Path]) -> None:
    done = call("compare", *two, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)["result"]
    assert result["difference"] == pytest.approx(8 / 20 - 1)
    assert (result["gained"], result["lost"]) == (0, 12)
    assert result["p"] == pytest.approx(2 * 0.5**12)  # McNemar's exact test: 12 discordant pairs, all one way
    assert result["estimand"] == "these checkpoints"


def test_the_text_says_what_the_figures_rest_on(two: tuple[Path, Path]) -> None:
    text = call("compare", *two, "--margin", "0.05").stdout
    assert "a: refusal 1.000" in text
    assert "b - a: -0.600" in text
    assert "20 prompts in 20 clusters, 1 seed; 0 gained, 12 lost" in text
    assert "one run on each side" in text
    assert "equivalence not shown" in text
    assert "non-inferiority not shown" in text


def test_names_are_mapped_and_foreign_verdicts_named(tmp_path: Path) -> None:
    rows = [{"qid": i, "run": s, "said": "REFUSED" if i % 2 else "no"} for i in range(10) for s in (1, 2)]
    a, b = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows)
    done = call("compare", a, b, "--map", "prompt_id=qid,verdict=said,seed=run", "--positive", "REFUSED", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
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
    found = side(path, Reading(), {}, "v")
    assert list(found.value) == [1.0, 0.0, None]  # a null verdict is missing, though there is a text
    assert found.cluster == ["c", "c", "d"]
    assert list(side(path, Reading(metric="partial"), {}, "v").value) == [0.0, 1.0, None]
    assert list(side(path, Reading(judge="rules"), {}, "v").value) == [0.0, 1.0, 1.0]


def test_a_numeric_metric_by_its_name(tmp_path: Path) -> None:
    rows = [{"prompt_id": i, "score": s} for i, s in enumerate([1, 2.5, None, True, math.nan])]
    path = tmp_path / "s.jsonl"
    io.write_text(path, "".join(json.dumps(r) + "\n" for r in rows))
    assert list(side(path, Reading(metric="score"), {}, "s").value) == [1.0, 2.5, None, 1.0, None]


def test_rows_of_one_file_are_chosen_by_field(tmp_path: Path) -> None:
    rows = [{"prompt_id": i, "subject": s, "label": "refusal" if s == "base" else "compliance"}
            for i in range(5) for s in ("base", "tuned")]  # fmt: skip
    path = write(tmp_path / "all.jsonl", rows)
    done = call("compare", path, path, "--where-a", "subject=base", "--where-b", "subject=tuned", "--json")
    assert json.loads(done.stdout)["result"]["difference"] == -1
    mixed = call("compare", path, path)
    assert mixed.exit_code == 2
    assert "is a subject, judge or candidate mixed in?" in mixed.stderr


def test_a_prompt_without_an_id_is_known_by_its_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl", [{"prompt": "How  are you?", "text": HELP}, {"prompt": "how are you?", "text": HELP}]
    )
    first, second = side(path, Reading(), {}, "p").prompt_id
    assert first == second


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": 3, "text": HELP}, "1: no prompt id; name its field, for example --map prompt_id=id"),
        ({"prompt_id": 3, "reply": HELP}, "1: neither a verdict nor a reply's text under 'text'"),
        ({"prompt_id": 3, "text": 7}, "1: 'text' must be a string, found int"),
        ({"prompt_id": 3, "label": "refused"}, "1: 'label' is 'refused', none of refusal, partial"),
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
        side(path, Reading(), {}, "a")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--map", "prompt=x,qid=y"), "--map: no field 'qid'"),
        (("--map", "text"), "cannot read --map 'text': write key=value"),
        (("--judge", "model"), "--judge model: one of auto, rules"),
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


def test_power_solves_for_what_is_left_out() -> None:
    done = call("power", "--prompts", 200, "--seeds", 1, "--power", 0.8, "--discordant", 0.2)
    assert done.exit_code == 0
    assert "power 0.80" in done.stdout
    assert "these checkpoints" in done.stdout
    assert call("power", "--prompts", 200).exit_code == 2


def test_organism_path_and_info() -> None:
    assert Path(call("organism", "path").stdout.strip()) == weights.path()
    info = call("organism", "info").stdout
    assert weights.identity() in info
    assert '"recipe"' in info


def test_organism_is_not_built_over_files(tmp_path: Path) -> None:
    io.write_text(tmp_path / "full" / "x", "x")
    done = call("organism", "build", tmp_path / "full")
    assert done.exit_code == 2
    assert "is not empty" in done.stderr


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
    assert "holds no results.json" in done.stderr
    assert call("label", tmp_path, "--size", 0).exit_code == 2


def test_selfcheck_needs_enough_runs() -> None:
    assert call("selfcheck", "--runs", 3).exit_code == 2
