"""Figures: the same bytes each time, every measurement drawn, nothing hostile alive, no global state touched."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import pytest

from alignment_core.reporting import figures, lettering, picture
from alignment_core.reporting.results import Measurement, Results
from alignment_core.reporting.spec import FigureSpec, MetricSpec, ReportSpec, SubjectSpec

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
        metrics=(MetricSpec("rate", "refusal", "high"), MetricSpec("other", "false refusal", "low")),
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
        assert steering not in picture.inline(svg, "f", HOSTILE)
    assert any("<scr" in t for t in texts(svg))
    ET.fromstring(picture.inline(svg, "f", HOSTILE).replace("xlink:", ""))


def test_an_inline_picture_has_no_style_no_url_and_ids_of_its_own() -> None:
    drawn = figures.draw(sample(), spec(), STATES)
    assert drawn is not None
    svg = picture.inline(drawn[0], "states", 'Rates of "all"')
    assert "style" not in svg
    assert "http" not in svg
    assert not re.search(r' id="(?!states-)', svg)
    assert 'role="img" aria-label="Rates of &quot;all&quot;"' in svg
    assert not re.search(r'(fill|stroke)="#(?!e)', svg)  # every colour of ours is a class
    assert svg.count("url(#states-") == len(re.findall(r"url\(#", svg))


def test_every_colour_has_a_dark_twin_and_reads_as_text() -> None:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for dark in (False, True):
        named = dict(re.findall(r"\.fill-(\w+)\{fill:(#\w+)\}", picture.colours(dark=dark)))
        assert set(named) == {"paper", "ink", "quiet", "rule", "grid", *(f"c{k}" for k in range(6))}
        for name in ("ink", "quiet", *(f"c{k}" for k in range(6))):
            assert contrast(named[name], named["paper"]) >= 4.5, name


def test_labels_that_would_overlap_are_pushed_apart_in_order() -> None:
    placed = lettering.spread([0.50, 0.51, 0.9], 0.1)
    assert placed == pytest.approx([0.455, 0.555, 0.9])
    assert lettering.spread([0.0, 0.0, 0.3], 0.1, floor=0.01) == pytest.approx([0.01, 0.11, 0.3])
