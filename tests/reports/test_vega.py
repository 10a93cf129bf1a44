"""Specifications that Vega-Lite's own compiler takes, with the numbers of the charts in them."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import vl_convert

from stresstest.errors import ConfigError
from stresstest.reports import html
from stresstest.reports.document import Axis, Block, Chart, Column, Document, HeatCell, Heatmap, Series, Table, Value
from stresstest.reports.html import render
from stresstest.reports.output import Made, parse_output, write_outputs
from stresstest.reports.palette import DARK, LIGHT
from stresstest.reports.pictures import write_pictures, write_svg
from stresstest.reports.vega import plot_of

CURVE = tuple((10.0 ** (-4 + i / 10), 3.0 - i / 20) for i in range(40))
HELD = Chart(
    "Held",
    Axis("LR"),
    Axis("", names=("a", "it's")),
    (Series("a", ((1e-3, 0.0), (1e-2, 0.0)), kind="dots", tones=("good", "bad"), notes=("seed 0", "seed 1")),),
)
CHART = Chart(
    "Loss over LR",
    Axis("LR"),
    Axis("loss", log=False),
    (
        Series("a", CURVE, spans=tuple((y - 0.1, y + 0.1) for _, y in CURVE)),
        Series("a", CURVE, kind="seed", notes=("seed 0",) * 40),
        Series("slope", CURVE, kind="guide"),
        Series("b", CURVE, kind="steps"),
        Series("lone", ((1.0, 2.0),), kind="dots"),
    ),
    reference=("target", 2.0),
    below=HELD,
)
FOREST = Chart(
    "Times as fast",
    Axis("times as fast as a", low=0.5, high=4.0),
    Axis("", names=("b", "c")),
    (Series("", ((2.0, 0.0), (1.0, 1.0)), kind="dots", spans=((1.5, 3.0), (0.8, 1.2)), tones=("good", "mixed")),),
    reference=("a is", 1.0),
)
MAP = Heatmap(
    "A map",
    "LR",
    "steps",
    ("1", "2"),
    (("8", (HeatCell("a", tone="good", best=True), HeatCell("b", "x", "bad"))),),
    key=(("good", "trains"), ("bad", "it's broken"), ("dull", "not there")),
)
EVERY = [CHART, HELD, FOREST, MAP]


def document(*blocks: Block) -> Document:
    return Document("d", "d", blocks=blocks)


def numbers(svg: bytes) -> set[str]:
    return {
        "".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    }


@pytest.mark.parametrize("picture", EVERY, ids=lambda picture: picture.title)
def test_the_compiler_of_vega_lite_takes_every_specification_without_a_warning(
    picture: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    for palette in (LIGHT, DARK):
        compiled = vl_convert.vegalite_to_vega(plot_of(picture).whole(palette), vl_version="6.4")
        assert compiled["marks"]
    assert "WARN" not in "".join(capfd.readouterr())


def test_the_data_of_a_plot_are_the_points_to_five_digits() -> None:
    spec = plot_of(CHART).whole(LIGHT)
    lines = [row for row in spec["datasets"]["p0"] if row["kind"] == "line"]
    assert [(row["x"], row["y"]) for row in lines] == [pytest.approx(point, rel=1e-4) for point in CURVE]
    assert [row["low"] for row in lines] == pytest.approx([y - 0.1 for _, y in CURVE], rel=1e-4)
    assert [row["tone"] for row in spec["datasets"]["p1"]] == ["good", "bad"]


def test_a_picture_has_a_title_axes_and_ticks_and_names_in_words(tmp_path: Path) -> None:
    write_svg(document(CHART), tmp_path)
    found = numbers((tmp_path / "loss-over-lr.svg").read_bytes())
    assert {"Loss over LR", "LR", "loss", "0.001", "2", "it's", "target 2", "slope"} <= found


def test_a_line_that_leaves_its_axis_by_far_ends_soon_after_it(tmp_path: Path) -> None:
    far = Chart("Far", Axis("LR"), Axis("loss", log=False, low=2.0, high=7.0), (Series("a", (*CURVE, (2.0, 1e9))),))
    (svg, _) = write_svg(Document("n", "A page", blocks=(far,)), tmp_path)
    paths = re.findall(r' d="(M[^"]*)"', svg.read_text())
    numbers = [abs(float(number)) for path in paths for number in re.findall(r"-?\d+\.?\d*", path)]
    assert 1e4 < max(numbers) < 1e5, "steep as it was, but renderers draw no dashes over a million pixels"
    assert plot_of(far).data["p0"]["y"][-1] == 1e9, "the data stay as they are"


def test_a_line_over_a_hundred_decades_is_drawn(tmp_path: Path) -> None:
    """The stream of a deep residual MLP grows so far."""
    growth = Chart("Growth", Axis("block"), Axis("stream"), (Series("a", ((1.0, 1e-60), (1000.0, 1e85))),))
    write_svg(Document("n", "A page", blocks=(growth,)), tmp_path)
    assert {"Growth", "stream"} <= numbers((tmp_path / "growth.svg").read_bytes())


def test_a_level_crosses_the_rows_of_a_chart_of_names(tmp_path: Path) -> None:
    (path, _) = write_pictures(document(FOREST), "svg", tmp_path)
    assert {"a is 1", "b", "c"} <= numbers(path.read_bytes())
    spec = plot_of(FOREST).whole(LIGHT)
    assert spec["datasets"]["p0-level"] == [{"x": 1.0, "words": "a is 1"}]
    assert [(row["low"], row["high"]) for row in spec["datasets"]["p0"]] == [(1.5, 3.0), (0.8, 1.2)]
    assert "a is 1</text>" in render(document(FOREST))


def test_long_names_beside_an_axis_stand_in_lines_and_none_is_left_out(tmp_path: Path) -> None:
    names = tuple(f"scenario {i}: at depth 64 ReZero ends at a lower loss than LayerNorm" for i in range(30))
    dots = Series("", tuple((1.0 + i, float(i)) for i in range(30)), kind="dots")
    chart = Chart("Claims", Axis("times"), Axis("", names=names), (dots,))
    (path, _) = write_pictures(document(chart), "svg", tmp_path)
    spans = [text.strip("\u200b") for text in ElementTree.fromstring(path.read_bytes()).itertext()]
    text = " ".join(part for part in spans if part)
    assert all(name in text for name in names)


def test_a_map_says_what_its_colours_stand_for(tmp_path: Path) -> None:
    (path, _) = write_pictures(document(MAP), "svg", tmp_path)
    found = numbers(path.read_bytes())
    assert {"a", "bx", "trains", "it's broken"} <= found
    assert "not there" not in found
    assert 'class="tone bad">it&#39;s broken' in render(document(MAP))


def test_pictures_are_written_light_and_dark_under_names_of_their_own(tmp_path: Path) -> None:
    made = Made(lambda: document(MAP, MAP), dict, {})
    write_outputs([parse_output(f"pdf:{tmp_path / 'new'}"), parse_output(f"png:{tmp_path / 'new'}")], made)
    names = ["a-map-2-dark", "a-map-2", "a-map-dark", "a-map"]
    stored = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in stored] == [f"{name}.{kind}" for name in names for kind in ("pdf", "png")]
    starts = {".pdf": b"%PDF-", ".png": b"\x89PNG\r\n"}
    assert all(path.read_bytes().startswith(starts[path.suffix]) for path in stored)


def test_a_report_without_pictures_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this report has no pictures to write as svg"):
        write_svg(document(), tmp_path)


def test_what_draws_pictures_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ConfigError, match="needs vl_convert; "):
        parse_output(f"svg:{tmp_path}")


def test_a_page_above_the_limit_keeps_the_peaks_of_its_lines_and_says_so() -> None:
    many = tuple((1.0 + i, 50.0 if i == 70_001 else math.sin(i / 7)) for i in range(120_000))
    page = render(document(Chart("t", Axis("x"), Axis("y", log=False), (Series("a", many),))))
    assert len(page.encode()) <= 2_000_000
    assert "The lines show 1 of 4 points" in page
    stored = json.loads(re.search(r'id="charts">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    data = stored["charts"][0]["data"]["p0"]
    assert max(data["y"]) == 50.0
    assert 25_000 < len(data["y"]) < 35_000


def test_lines_of_a_page_that_is_too_long_without_them_take_a_little_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """And how few points that needs is not found out page by page."""
    drawn, pages = html._with_points, []

    def counted(*given: Any) -> str:
        pages.append(given[-1])
        return drawn(*given)

    monkeypatch.setattr(html, "_with_points", counted)
    rest = Table((Column("x"),), ((Value("x" * 1_500_000),),))
    points = tuple((1.0 + i, 2.0 + i) for i in range(120_000))
    long, short = (
        render(document(Chart("t", Axis("x"), Axis("y"), (Series("a", p),)), rest)) for p in (points, points[:2])
    )
    assert pages == [1, 2, 16, 1, 2]
    assert "The lines show 1 of 16 points" in long
    assert len(short) < len(long) < 1.15 * len(short)


def test_a_key_has_what_is_drawn_in_a_colour_of_its_own_and_rows_stay_where_they_are(tmp_path: Path) -> None:
    rule = Series("limit", ((1.0, -0.5), (1.0, 1.5)), kind="guide")
    chart = replace(
        FOREST, series=(*FOREST.series, replace(FOREST.series[0], name="worse"), Series("seed", ((1.5, 0.0),)), rule)
    )
    assert plot_of(chart).names == ("seed", "limit")
    (svg, _) = write_svg(Document("n", "A page", blocks=(chart,)), tmp_path)
    words = "".join(ElementTree.fromstring(svg.read_text()).itertext())
    assert "limit" in words
    assert "worse" not in words
    lines = [path for path in re.findall(r' d="(M[^"]*)"', svg.read_text()) if path.count("L") == 1]
    heights = {float(number) for path in lines for number in re.findall(r",(-?[\d.]+)", path)}
    assert {0.0, 68.0} <= heights, "the limit goes over both rows"


def test_a_map_without_missing_places_or_a_best_one_has_no_empty_layer() -> None:
    (label, cells), *_ = MAP.rows
    plain = replace(MAP, rows=((label, tuple(replace(cell, best=False) for cell in cells)),))
    assert [len(plot_of(each).spec["layer"]) for each in (MAP, plain)] == [4, 2]


def test_a_line_that_cannot_be_drawn_keeps_its_place_among_the_colours_of_every_picture() -> None:
    empty = replace(CHART, series=(Series("zero", ()), *CHART.series))
    assert plot_of(empty).names == ("zero", *plot_of(CHART).names)
