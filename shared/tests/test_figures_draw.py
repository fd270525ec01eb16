"""Figures: the same bytes each time, every measurement drawn, nothing hostile alive, no global state touched."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest

from alignment_core.evaluation.metrics import Metric
from alignment_core.evaluation.results import Measurement, Results
from alignment_core.report import figures, inline_svg, lettering, plots, rendering
from alignment_core.report.spec import FigureSpec, ReportSpec, SubjectSpec

HOSTILE = '$\\frac{a}$ <script>alert(1)</script> \x1b[31m \u202e \ud800 "quoted" 中'
STATES = FigureSpec("states", "states", "Rates", ("rate", "other"), ("base", "tuned"))
CATEGORIES = FigureSpec("categories", "categories", "By category", ("rate",), ("base", "tuned"))
PATH = FigureSpec("path", "trajectory", "Along steps", ("rate",), ("base", "tuned"), axis="step")


def measured(metric: str, subject: str, value: float | None, **more: object) -> Measurement:
    low, high = (None, None) if value is None else (value - 0.05, value + 0.05)
    return Measurement(metric=metric, subject=subject, value=value, low=low, high=high, method="wilson", n=10, **more)


def sample(category: str = "x") -> Results:
    found = [measured("rate", "base", 0.37), measured("other", "base", 0.11), measured("other", "tuned", None)]
    found += [measured("rate", "tuned", v, seed=s) for s, v in ((1, 0.62), (2, 0.64))] + [
        measured("rate", "tuned", 0.63)
    ]
    for subject, value in (("base", 0.2), ("tuned", 0.4)):
        found += [measured("rate", subject, value, at={"category": c}) for c in (category, "y")]
        found += [measured("rate", subject, value + s / 1000, at={"step": s}) for s in (0, 1, 2, 4, 64, 128)]
    return Results(study="s", preset="p", seeds=(1, 2), measurements=tuple(found))


def spec(name: str = "Base") -> ReportSpec:
    return ReportSpec(
        title="t",
        question="q",
        subjects=(SubjectSpec("base", name), SubjectSpec("tuned", "Tuned")),
        metrics=(Metric("rate", "refusal", better="high"), Metric("other", "false refusal", better="low")),
        figures=(STATES, CATEGORIES, PATH, FigureSpec("none", "trajectory", "Nothing", ("absent",), axis="step")),
    )


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_figure_draws_every_measurement_and_names_its_series() -> None:
    drawn = figures.draw(sample(), spec(), STATES)
    assert drawn is not None
    svg, png = drawn
    assert {"0.37", "0.11", "0.63", "refusal", "false refusal", "Base", "Tuned", "Rates"} <= set(texts(svg))
    assert png.startswith(b"\x89PNG")


def test_categories_are_ordered_and_steps_are_on_the_axis() -> None:
    by_category = figures.draw(sample(), spec(), CATEGORIES)
    along = figures.draw(sample(), spec(), PATH)
    assert by_category is not None
    assert along is not None
    assert {"x", "y", "Base", "Tuned"} <= set(texts(by_category[0]))
    assert {"0", "1", "2", "128", "Base", "Tuned"} <= set(texts(along[0]))


def test_the_same_results_give_the_same_bytes_and_touch_no_settings(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    written = figures.write(tmp_path / "a", figures.draw_all(sample(), spec()))
    again = figures.write(tmp_path / "b", figures.draw_all(sample(), spec()))
    assert [p.name for p in written] == [f"{n}.{e}" for n in ("states", "categories", "path") for e in ("svg", "png")]
    assert [p.read_bytes() for p in written] == [p.read_bytes() for p in again]
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("figure", [STATES, CATEGORIES, PATH])
def test_hostile_names_stay_text(figure: FigureSpec) -> None:
    drawn = figures.draw(sample(HOSTILE), spec(HOSTILE), figure)
    assert drawn is not None
    svg = drawn[0]
    assert not list(ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}script"))
    for steering in ("\x1b", "\u202e", "\ud800", "<script"):
        assert steering not in svg
        assert steering not in inline_svg.inline(svg, "f", HOSTILE)
    assert any("<scr" in t for t in texts(svg))
    ET.fromstring(inline_svg.inline(svg, "f", HOSTILE).replace("xlink:", ""))


def test_an_inline_picture_has_no_style_no_url_and_ids_of_its_own() -> None:
    drawn = figures.draw(sample(), spec(), STATES)
    assert drawn is not None
    svg = inline_svg.inline(drawn[0], "states", 'Rates of "all"')
    assert "style" not in svg
    assert "http" not in svg
    assert not re.search(r' id="(?!states-)', svg)
    assert 'role="img" aria-label="Rates of &quot;all&quot;"' in svg
    assert not re.search(r'(fill|stroke)="#(?!e)', svg)  # every colour of ours is a class
    assert svg.count("url(#states-") == len(re.findall(r"url\(#", svg))


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two colours written as #rgb or #rrggbb."""

    def luminance(color: str) -> float:
        digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_colour_has_a_dark_twin_and_reads_as_text() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    for dark in (False, True):
        named = dict(re.findall(r"\.fill-(\w+)\{fill:(#\w+)\}", inline_svg.colours(dark=dark)))
        assert set(named) == {"paper", "ink", "quiet", "rule", "grid", *(f"c{k}" for k in range(6))}
        for name in ("ink", "quiet", *(f"c{k}" for k in range(6))):
            assert contrast(named[name], named["paper"]) >= 4.5, name


def test_the_pages_colours_read_as_text_in_light_and_dark() -> None:
    sheet = rendering.style_sheet()
    light, dark = (
        sheet[: sheet.index("@media screen")],
        sheet[sheet.index("@media screen") : sheet.index("@media (max")],
    )
    labels = dict(re.findall(r"\.(l-\w+) \{ color: (#\w+) \}", light))
    for rules in (light, dark):
        named = dict(re.findall(r"--(\w+): (#\w+)", rules))
        labels |= dict(re.findall(r"\.(l-\w+) \{ color: (#\w+) \}", rules))
        assert len(labels) == 3
        for text in [named[n] for n in ("ink", "quiet", "link", "good", "bad", "open")] + list(labels.values()):
            assert contrast(text, named["paper"]) >= 4.5, text
        for ground in ("soft", "mark", "warn"):
            assert contrast(named["ink"], named[ground]) >= 4.5, ground


def test_scores_stand_on_an_axis_of_their_own() -> None:
    scores = Metric("rate", "score", better="high", unit="score", digits=1)
    with figures.styled():
        made = plots.states(sample(), replace(spec(), metrics=(scores,)), replace(STATES, metrics=("rate",)))
    assert made is not None
    low, high = made.axes[0].get_ylim()
    assert 0.2 < low < 0.32 < 0.68 < high < 0.8  # 0.37 and 0.63 with 0.05 to each side, and some room
    assert "0.4" in [t.get_text() for t in made.axes[0].texts]


def test_a_category_of_single_seeds_shows_each_seed_and_their_mean() -> None:
    found = [measured("rate", "base", v, seed=s, at={"category": "x"}) for s, v in ((1, 0.2), (2, 0.4))]
    results = Results(study="s", preset="p", seeds=(1, 2), measurements=tuple(found))
    placed = plots.by_place(results, "rate", "base", "category")
    assert [m.value for m in placed["x"]] == [0.2, 0.4]
    assert plots.middle(placed["x"]) == pytest.approx(0.3)
    assert "single seeds" in figures.how_to_read(CATEGORIES, results)
    assert figures.draw(results, spec(), CATEGORIES) is not None


def test_names_at_the_right_end_never_overlap() -> None:
    """Five curves that end at 0, as attacks that succeed do."""
    ends = [measured("rate", f"s{k}", 0.0 if t else 0.6, at={"step": t}) for k in range(5) for t in (0, 1, 30)]
    subjects = tuple(SubjectSpec(f"s{k}", f"Arm {k}") for k in range(5))
    described = replace(spec(), subjects=subjects)
    figure = replace(PATH, subjects=tuple(s.key for s in subjects))
    with figures.styled():
        made = plots.trajectory(Results(study="s", preset="p", seeds=(1,), measurements=tuple(ends)), described, figure)
    assert made is not None
    heights = sorted(t.get_position()[1] for t in made.axes[0].texts)
    low, high = made.axes[0].get_ylim()
    assert len(heights) == 5
    assert min(b - a for a, b in pairwise(heights)) >= 0.069 * (high - low)
    assert low - 1e-6 <= heights[0]
    assert heights[-1] <= high + 1e-6


def test_labels_that_would_overlap_are_pushed_apart_in_order() -> None:
    placed = lettering.spread([0.50, 0.51, 0.9], 0.1)
    assert placed == pytest.approx([0.455, 0.555, 0.9])
    assert lettering.spread([0.0, 0.0, 0.3], 0.1, floor=0.01) == pytest.approx([0.01, 0.11, 0.3])
    assert lettering.spread([1.0, 1.0, 1.0], 0.1, 0.0, 1.0) == pytest.approx([0.8, 0.9, 1.0])
    assert lettering.spread([0.5] * 3, 0.9, 0.0, 1.0) == pytest.approx(
        [0.0, 0.5, 1.0], abs=1e-6
    )  # no room: shared equally
