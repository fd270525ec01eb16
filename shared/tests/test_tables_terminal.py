"""The terminal's tables: what they say, and that nothing in a name steers the terminal."""

from __future__ import annotations

import pytest

from alignment_core.evaluation import results as R
from alignment_core.evaluation.metrics import Metric
from alignment_core.report import differences, summary, tables, terminal
from alignment_core.report.spec import ReportSpec, SubjectSpec, TableSpec, generic
from alignment_core.text import for_csv, for_html, for_latex, for_markdown, number, p_value, visible

HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 \u202eevil\u2069 \x00 \ud800 \x9b31m <script>alert(1)</script> ![i](http://x.y/z)"
)


def measured(subject: str, value: float | None, low: float | None, high: float | None, **more: object) -> R.Measurement:
    given = {"metric": "harmful_refusal_rate", "method": "wilson", "n": 200, "seed": None, **more}
    return R.Measurement(subject=subject, value=value, low=low, high=high, **given)


def compared(a: str, b: str, difference: float, low: float, high: float, p: float, **more: object) -> R.Comparison:
    given = {"metric": "harmful_refusal_rate", "method": "crossed", "estimand": "over runs", "n_prompts": 200, **more}
    return R.Comparison(a=a, b=b, difference=difference, low=low, high=high, p=p, **given)


def sample(**changes: object) -> R.Results:
    return R.Results(
        study="drift-dpo",
        preset="tiny",
        seeds=(13, 14),
        measurements=(
            measured("baseline", 0.55, 0.481, 0.617),
            measured("stage_a", 0.2, 0.15, 0.261, n=190, missing=10),
            measured("stage_a", 0.19, 0.14, 0.25, seed=13),
            measured("stage_a", 0.21, 0.16, 0.27, seed=14),
            measured("dpo", None, None, None, n=0),
        ),
        comparisons=(
            compared("stage_a", "dpo", 0.01, -0.03, 0.05, 0.61, test="mcnemar", n_seeds=2, detectable=0.058),
            compared(
                "baseline",
                "stage_a",
                -0.35,
                -0.42,
                -0.28,
                0.00004,
                test="crossed t",
                decision="H1",
                decision_test="t, two-sided",
                decision_p=0.001,
                p_adjusted=0.002,
                n_seeds=2,
                n_clusters=100,
                role="primary",
                family="drift",
            ),
        ),
        hypotheses=(
            R.Hypothesis(name="H1", claim="A falls.", rule="r", verdict="supported", because="-0.35 [-0.42, -0.28]."),
            R.Hypothesis(name="H4", claim="Null is even.", rule="r", verdict="not tested", because="No null."),
        ),
    ).model_copy(update=changes)


SPEC = ReportSpec(
    title="Drift",
    question="Do refusals fall?",
    subjects=(SubjectSpec("baseline", "Baseline"), SubjectSpec("stage_a", "Stage A"), SubjectSpec("dpo", "DPO")),
    metrics=(Metric("harmful_refusal_rate", "harmful refusal", "harmful", "high"),),
    tables=(TableSpec("Four states"),),
)

GOLDEN = """\
Drift
Do refusals fall?

Four states

             harmful refusal ↑
 ─────────────────────────────
 Baseline    0.55 [0.48, 0.62]
             n=200 (0 missing)
 Stage A     0.20 [0.15, 0.26]
            n=190 (10 missing)
 DPO                       n/a
               n=0 (0 missing)


Differences

 difference                paired interval           p   decision       p adjusted   n                      reading
 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 Stage A − Baseline        -0.350 [-0.420,       <.001   H1: p 0.001         0.002   n=200, 100 clusters,   primary
 harmful refusal                   -0.280]   crossed t   t, two-sided                2 seeds                significant
                                   crossed                                           inference: over runs

p adjusted: Holm over the primary tests named before the run; everything else is exploratory. Exploratory differences in
the report: 1.

H1 supported: A falls. -0.35 [-0.42, -0.28].
H4 not tested: Null is even. No null.
Warning: harmful refusal: missing verdicts differ between states, 0 of Baseline and 10 of Stage A
Of 2 hypotheses written before the run: H1 supported; H4 not tested.
Condition: framed like attacks
"""


def test_the_table_reads_as_written() -> None:
    assert terminal.text(sample(condition="framed like attacks"), SPEC, width=120) == GOLDEN


def test_primaries_come_first_and_no_difference_says_what_n_could_show() -> None:
    grid = differences.table(sample(), SPEC)
    assert [row[0].text for row in grid.rows] == ["Stage A − Baseline", "DPO − Stage A"]
    assert grid.rows[0][-1].under == "significant"
    assert grid.rows[1][-1].under == "not significant; minimum detectable difference (80% power): 0.058"


def test_a_p_has_its_tests_name_and_a_decision_has_another() -> None:
    primary, rest = differences.table(sample(), SPEC).rows
    assert [c.line for c in primary[2:5]] == ["<.001 crossed t", "H1: p 0.001 t, two-sided", "0.002"]
    assert [c.line for c in rest[2:5]] == ["0.610 mcnemar", "none", "n/a"]
    margin = sample().comparisons[1].model_copy(update={"margin": 0.05, "decision_test": "TOST"})
    (row,) = differences.table(sample(comparisons=(margin,)), SPEC).rows
    assert (row[3].under, row[-1].under) == ("TOST", "against margin 0.05: significant")
    # Without a decision there is no column for one.
    assert "decision" not in differences.table(sample(comparisons=sample().comparisons[:1]), SPEC).columns


def test_an_interval_of_width_zero_supports_nothing() -> None:
    flat = compared("a", "b", 0.0, 0.0, 0.0, 0.0, decision="H1", p_adjusted=0.0, margin=0.05)
    assert differences.reading(flat) == "width zero: supports nothing"
    cell = tables.cell(measured("dpo", 0.5, 0.5, 0.5), SPEC.metrics[0])
    assert cell.under == "n=200 (0 missing), width zero: supports nothing"
    assert "width" not in tables.cell(measured("dpo", 0.5, None, None), SPEC.metrics[0]).under


def test_with_a_margin_the_test_is_against_the_margin() -> None:
    decided = {"decision": "H4", "decision_p": 0.01, "margin": 0.05, "detectable": 0.03}
    null = compared("a", "b", 0.0, -0.02, 0.02, 0.03, p_adjusted=0.03, **decided)
    assert differences.reading(null) == "against margin 0.05: significant"
    left = "minimum detectable difference (80% power): 0.03"
    wide = null.model_copy(update={"p_adjusted": 0.2})
    assert differences.reading(wide) == f"against margin 0.05: not significant; {left}"
    # Neither the interval nor the p of no difference decides about a margin.
    alone = null.model_copy(update={"p_adjusted": None, "low": 0.01})
    assert differences.reading(alone) == f"against margin 0.05: see its hypothesis; {left}"


def test_the_terminal_counts_the_exploratory_differences_and_the_report_shows_them() -> None:
    text = terminal.text(sample(), SPEC)
    assert "Exploratory differences in the report: 1." in text.replace("\n", " ")
    assert "DPO − Stage A" not in text
    assert len(differences.table(sample(), SPEC).rows) == 2
    none = sample(comparisons=sample().comparisons[:1])
    assert "DPO − Stage A" in terminal.text(none, SPEC)


def test_other_judges_and_other_estimates_stand_apart_from_the_headline() -> None:
    results = sample(
        measurements=(
            measured("stage_a", 0.2, 0.1, 0.3),
            measured("stage_a", 0.4, 0.3, 0.5, at={"judge": "gcg31"}),
            measured("stage_a", 0.25, 0.2, 0.3, estimator="two-phase", seed=13),
        )
    )
    (judge,) = tables.other_judges(results, SPEC)
    assert (judge.title, judge.rows[0][1].text) == ("The same replies, judged by gcg31", "0.40 [0.30, 0.50]")
    other = tables.corrected(results, SPEC)
    assert other is not None
    assert [c.line for c in other.rows[0]] == [
        "Stage A seed 13",
        "harmful refusal",
        "two-phase",
        "0.25 [0.20, 0.30] n=200 (0 missing)",
    ]
    assert tables.rates(results, SPEC, SPEC.tables[0]).rows[0][1].text == "0.20 [0.10, 0.30]"


def test_metrics_of_one_kind_warn_once() -> None:
    two = ReportSpec(
        title="t",
        question="",
        subjects=SPEC.subjects,
        metrics=(*SPEC.metrics, Metric("harmful_compliance_share", "harmful compliance", "harmful")),
    )
    some = [measured(s, 0.5, 0.4, 0.6, n=90, missing=m) for s, m in (("baseline", 10), ("dpo", 0))]
    both = (*some, *(m.model_copy(update={"metric": "harmful_compliance_share"}) for m in some))
    assert len(summary.warnings(sample(measurements=both), two)) == 2


def test_single_seeds_stand_in_a_table_of_their_own() -> None:
    grid = tables.each_seed(sample(), SPEC, SPEC.tables[0])
    assert grid is not None
    assert [[c.text for c in row] for row in grid.rows] == [
        ["Stage A", "13", "0.19 [0.14, 0.25]"],
        ["Stage A", "14", "0.21 [0.16, 0.27]"],
    ]


def test_missing_verdicts_are_warned_of_at_five_in_a_hundred() -> None:
    # 10 of 200 is exactly 5%: no warning of size, but states differ; 11 of 200 is above.
    at = summary.warnings(sample(), SPEC)
    assert at == ["harmful refusal: missing verdicts differ between states, 0 of Baseline and 10 of Stage A"]
    more = sample(measurements=(measured("stage_a", 2 / 3, 0.5, 0.8, n=90, missing=10),))
    # k = 60 of 90: [60/100, 70/100], complete cases .667
    assert summary.warnings(more, SPEC) == [
        "10% missing in harmful refusal of Stage A: between 0.60 and 0.70, whatever they would be"
    ]


def test_one_seed_is_about_these_checkpoints() -> None:
    assert "these checkpoints" in summary.warnings(sample(seeds=(13,)), SPEC)[-1]


def test_hostile_names_are_shown_not_obeyed() -> None:
    results = sample(
        study=HOSTILE,
        measurements=(measured(HOSTILE, 0.5, 0.4, 0.6),),
        hypotheses=(
            R.Hypothesis(name=HOSTILE, claim=HOSTILE, rule="", verdict="contradicted", because="[red]x[/red]"),
        ),
    )
    text = terminal.text(results, generic(results), width=400)
    for steering in ("\x1b", "\x07", "\u202e", "\u2069", "\x00", "\ud800", "\x9b"):
        assert steering not in text
    assert "\\x1b[31mred" in text
    assert "\\u202e" in text
    assert "[red]x[/red]" in text  # not taken for markup
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 中 👩\u200d👧", "plain é 中 👩\u200d👧"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[0m", "\\x1b[0m"),
        ("\u200b\u2028\ufeff", "\\u200b\\u2028\\ufeff"),
        ("\udc80", "\\udc80"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_visible_keeps_lines_where_asked() -> None:
    assert visible("a\nb\r\n", lines=True) == "a\nb\\x0d\n"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@x", "'@x"),
        ("\tx", "'\\tx"),
        ("\rx", "'\\rx"),
        (" =x", "' =x"),
        ("＝x", "'＝x"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_csv_cells_start_no_formula(cell: str, written: str) -> None:
    assert for_csv(cell) == written


def test_markup_of_every_output_is_inert() -> None:
    assert for_html('<a href="x">&\'') == "&lt;a href=&quot;x&quot;&gt;&amp;&#x27;"
    md = for_markdown("![x](http://a.b) <b> www.evil.com _i_ `c` | [r][s] [d]: /u\n# h")
    for mark in ("![", "](", "][", "]:", "<", "://", "www.", "_", "`", "|", "\n", " # "):
        assert mark not in md
    assert for_markdown("0.30 [0.24, 0.37] (n=200)") == "0.30 [0.24, 0.37] (n=200)"
    assert for_markdown("-0.30") == "-0.30"
    assert for_markdown("- x") == "&#45; x"  # no list item
    assert for_markdown("1. x") == "&#49;. x"
    assert for_latex("50% of $x_1 \\input{a}") == r"50\% of \$x\_1 \textbackslash{}input\{a\}"


def test_numbers() -> None:
    assert [number(x) for x in (0.555, -0.001, None, 1.0)] == ["0.56", "0.00", "n/a", "1.00"]
    assert number(0.3, signed=True) == "+0.30"
    assert number(-0.004, signed=True) == "0.00"
    assert [p_value(p) for p in (0.0009, 0.05, None)] == ["<.001", "0.050", "n/a"]
