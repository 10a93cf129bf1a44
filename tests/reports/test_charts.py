"""Axes with round ticks over any range, and lines that stay inside them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stresstest.reports.charts import Scale, drawn, fewer, lines_of, scale_of, text_chart
from stresstest.reports.document import Axis, Chart, Series
from stresstest.reports.svg import static_charts

SIZES = st.floats(1e-12, 1e12)


@given(SIZES, SIZES, st.booleans())
def test_an_axis_over_any_range_has_round_ticks_inside_it(one: float, other: float, log: bool) -> None:
    low, high = sorted((one, other))
    scale = scale_of(Axis("x", log=log), [low, high])
    assert 0.0 <= scale.share(low) <= scale.share(high) <= 1.0
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 8
    rounding = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - rounding <= tick <= scale.high + rounding for tick in ticks)
    assert ticks == sorted(set(ticks))


@pytest.mark.parametrize(
    ("axis", "ends", "ticks"),
    [
        (Axis("loss"), (2.1, 3.18), [2.2, 2.4, 2.6, 2.8, 3.0]),
        (Axis("lr"), (1e-4, 10.0), [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]),
        (Axis("depth"), (2, 64), [2, 5, 10, 20, 50]),
        (Axis("block", log=False), (1.0, 4.0), [1, 2, 3, 4]),
        (Axis("loss", log=False), (-5.2, -3.75), [-5.2, -5.0, -4.8, -4.6, -4.4, -4.2, -4.0, -3.8]),
    ],
)
def test_ticks_are_those_that_one_would_write(axis: Axis, ends: tuple[float, float], ticks: list[float]) -> None:
    assert scale_of(axis, ends).ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("value", [1e-6, 1.0, 0.25, 3e7])
def test_a_flat_line_lies_in_the_middle(log: bool, value: float) -> None:
    scale = scale_of(Axis("y", log=log), [value, value])
    assert scale.share(value) == pytest.approx(0.5)
    assert len(scale.ticks()) >= 2


def test_a_value_beyond_the_ends_is_drawn_at_the_end() -> None:
    scale = Scale(False, 2.0, 6.0)
    assert (scale.share(99.0), scale.share(-1.0), scale.share(4.0)) == (1.0, 0.0, 0.5)


def test_what_an_axis_cannot_show_is_left_out() -> None:
    points = ((0.0, 1.0), (1.0, -2.0), (2.0, math.nan), (3.0, math.inf), (4.0, 5.0), (8.0, 6.0))
    chart = Chart("t", Axis("x"), Axis("y"), (Series("a", points), Series("b", points[:4])))
    assert [(series.name, series.points) for series in drawn(chart)] == [("a", points[4:])]
    [svg] = static_charts(chart)
    assert len(svg["series"]) == 1


@pytest.mark.parametrize("width", [10, 41, 66])
@pytest.mark.parametrize(("lr", "share"), [(1e-2, 0.5), (1e-3, 0.25), (1.0, 1.0)])
def test_the_chart_shows_a_step_at_its_column(width: int, lr: float, share: float) -> None:
    points = [(1e-4, 1.0), (lr * 0.999999, 1.0), (lr, 5.0), (1.0, 99.0)]
    lines = text_chart(points, width, 3, Scale(True, 1e-4, 1.0), Scale(False, 1.0, 5.0), ascii_only=True)
    step = round(share * (width - 1))
    assert [len(line) for line in lines] == [width] * 3
    assert lines[0] == " " * step + "*" * (width - step)
    assert lines[1] == (" " * step + "*").ljust(width), "a jump is drawn as a line"
    assert lines[2] == ("*" * (step + 1)).ljust(width)


def test_braille_places_a_step_in_the_cell_and_dot_of_its_column() -> None:
    points = [(1e-4, 1.0), (1e-2 * 0.999999, 1.0), (1e-2, 5.0), (1.0, 5.0)]
    top, bottom = text_chart(points, 10, 2, Scale(True, 1e-4, 1.0), Scale(False, 1.0, 5.0), ascii_only=False)
    assert top == " " * 5 + chr(0x2800 + 0x47 + 0x08) + chr(0x2800 + 0x09) * 4
    assert bottom == chr(0x2800 + 0xC0) * 5 + chr(0x2800 + 0x47) + " " * 4


def test_points_far_apart_are_joined_by_a_slope() -> None:
    lines = text_chart([(0.0, 0.0), (8.0, 8.0)], 9, 9, Scale(False, 0.0, 8.0), Scale(False, 0.0, 8.0), ascii_only=True)
    assert all(line[8 - row] == "*" for row, line in enumerate(lines))


def test_a_line_goes_on_beyond_its_axis_where_the_picture_cuts_it_off() -> None:
    curve = ((1.0, 0.5), (2.0, 1.5), (30.0, 1e30))
    chart = Chart("t", Axis("x"), Axis("y", log=False, low=1.0, high=2.0), (Series("a", curve),))
    [svg] = static_charts(chart)
    (x, y), _, last = [tuple(map(float, point.split(","))) for point in svg["series"][0]["points"].split()]
    height = svg["bottom"] - svg["top"]
    assert (x, y) == (svg["left"], svg["bottom"] + height / 2)
    assert last == (svg["right"], svg["top"] - 9 * height)


def test_what_stands_below_a_chart_has_its_x_axis() -> None:
    below = Chart(
        "b", Axis("x"), Axis("", names=("one", "two")), (Series("a", ((10.0, 0.0), (99.0, 1.0)), kind="dots"),)
    )
    chart = Chart("t", Axis("x"), Axis("y"), (Series("a", ((1.0, 0.5), (100.0, 1.5))),), below=below)
    above, under = static_charts(chart)
    assert under["x_ticks"] == above["x_ticks"]
    first, second = (dot["y"] for dot in under["series"][0]["dots"])
    assert under["top"] < first < second < under["bottom"], "the first name is at the top"
    assert [tick["label"] for tick in under["y_ticks"]] == ["one", "two"]


def test_a_lone_dot_is_drawn_and_a_lone_point_of_a_line_is_not() -> None:
    line, dot = Series("a", ((1.0, 2.0),)), Series("b", ((1.0, 2.0),), kind="dots")
    assert [each.name for each in drawn(Chart("t", Axis("x"), Axis("y"), (line, dot)))] == ["b"]


def test_a_terminal_draws_a_line_and_its_dots_once() -> None:
    curve = ((1.0, 2.0), (2.0, 3.0))
    line, dots, alone = Series("a", curve), Series("a", curve, kind="dots"), Series("b", curve, kind="dots")
    assert lines_of(Chart("t", Axis("x"), Axis("y"), (line, dots, alone))) == [line, alone]


@pytest.mark.parametrize(("names", "seeds"), [(1, 300), (3, 100), (100, 3), (1, 0)])
def test_a_chart_of_many_seeds_is_drawn_as_it_is(names: int, seeds: int) -> None:
    chart = crowd(names, seeds, min(2000, 6000 // names))
    assert fewer(chart) is chart


@pytest.mark.parametrize(("names", "seeds"), [(1, 301), (1, 5000), (4, 1000), (500, 20)])
def test_a_chart_of_very_many_seeds_has_lines_of_some_from_the_first_to_the_last(names: int, seeds: int) -> None:
    chart = fewer(crowd(names, seeds, 5000))
    most = max(2, 300 // names)
    for name in map(str, range(names)):
        kinds = {kind: [each for each in chart.series if (each.name, each.kind) == (name, kind)] for kind in KINDS}
        assert len(kinds["line"]) == 1, "the median is of all, and stays"
        heights = [series.points[0][1] for series in kinds["seed"]]
        assert len(heights) == most
        steps = [after - before for before, after in pairwise(heights)]
        assert heights[0] == 0.0
        assert max(steps) - min(steps) <= 1.0, "evenly chosen"
        (dots,) = kinds["dots"]
        assert len(dots.points) == len(dots.notes) == min(2000, 6000 // names)
        assert [note for _, note in zip(dots.points, dots.notes, strict=True)] == [f"{x:g}" for x, _ in dots.points]


KINDS = ("line", "seed", "dots")


def crowd(names: int, seeds: int, dots: int) -> Chart:
    """Lines of so many seeds of each name, with their median and a series of dots."""
    series: list[Series] = []
    for name in map(str, range(names)):
        series.append(Series(name, ((0.0, 1.0), (1.0, 2.0))))
        series += [Series(name, ((0.0, float(seed)), (1.0, 2.0)), kind="seed") for seed in range(seeds)]
        places = [float(i) for i in range(dots)]
        points = tuple((x, 1.0) for x in places)
        series.append(Series(name, points, kind="dots", notes=tuple(f"{x:g}" for x in places)))
    return Chart("t", Axis("x"), Axis("y"), tuple(series))
