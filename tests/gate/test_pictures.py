"""The pictures of a verdict have the numbers of the verdict."""

from __future__ import annotations

import math

from stresstest.gate.pictures import verdict_pictures
from stresstest.gate.records import CheckVerdict, GatedRow, GateLine, LimitLine
from stresstest.gate.report import verdict_document, verdict_text
from stresstest.gate.verdict_words import interval_words, line_names
from stresstest.reports.document import Chart, Series
from stresstest.results.records import Bracket, summarise

BASE = [0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1]
HEAD = [0.05, 0.1, 0.1, 0.05, 0.025, 0.05, 0.05]
HOSTILE = "</script><img src=x onerror=alert(1)> | 'x'"


def gate_line(
    variant: str = "pre-ln", head: tuple[float | None, ...] = tuple(HEAD), optimizer: str = "adam"
) -> GateLine:
    base = {seed: Bracket(low=low, high=2 * low) for seed, low in enumerate(BASE)}
    ours = {seed: Bracket(low=low, high=None if low is None else 2 * low) for seed, low in enumerate(head)}
    changes = {
        str(seed): (None, -100.0) if low is None else (math.log2(low / BASE[seed]),) * 2
        for seed, low in enumerate(head)
    }
    return GateLine.model_validate(
        {
            "place": GatedRow(experiment="e", variant=variant, depth=4, optimizer=optimizer),
            "metric": "max_stable_lr",
            "threshold": "med vs base >= -0.5oct",
            "level": "error",
            "verdict": "regressed",
            "base": summarise("max_stable_lr", base),
            "head": summarise("max_stable_lr", ours),
            "unit": "oct",
            "differences": changes,
            "median": (-1.0, -1.0),
            "p": 1 / 64,
            "n": len(head),
            "tolerance": 0.5,
            "resolution": 0.25,
        }
    )


def limit_line(passed: bool) -> LimitLine:
    return LimitLine(
        place=GatedRow(experiment="e", variant="pre-ln", depth=4, optimizer="adam"),
        metric="max_stable_lr",
        threshold="med >= 0.08",
        level="error",
        passed=passed,
        value="0.05",
        head=gate_line().head,
    )


def verdict_of(*lines: GateLine, limits: tuple[LimitLine, ...] = ()) -> CheckVerdict:
    return CheckVerdict(
        scenario="gate",
        mode="base",
        base={"commit": "0123456789"},
        head={"commit": "abcdef0123"},
        alpha=0.05,
        looks=[7],
        seeds=7,
        lines=list(lines),
        limits=list(limits),
        reproduce="stresstest check gate.yaml",
    )


def picture(name: str, verdict: CheckVerdict) -> Chart:
    return next(chart for chart in verdict_pictures(verdict) if chart.name == name)


def named(chart: Chart, name: str) -> Series:
    return next(series for series in chart.series if series.name == name)


def test_both_sides_are_drawn_seed_by_seed_and_joined() -> None:
    chart = picture("max-stable-lr-by-seed", verdict_of(gate_line()))
    base, head = named(chart, "base"), named(chart, "head, worse")
    assert [x for x, _ in base.points] == BASE
    assert [x for x, _ in head.points] == HEAD
    assert list(head.spans) == list(zip(BASE, HEAD, strict=True))
    assert set(head.tones) == {"bad"}
    assert [y for _, y in base.points] == [y for _, y in head.points]
    assert head.notes[4] == "seed 4: 0.1 -> 0.025 (-2 oct)"
    assert not named(chart, "head, passes").points


def test_the_change_has_its_seeds_its_interval_and_its_limit() -> None:
    chart = picture("change-in-octaves", verdict_of(gate_line("post-ln"), gate_line("pre-ln")))
    assert [name for name in chart.y.names if name] == ["post-ln", "pre-ln"]
    median = named(chart, "median, worse")
    # of 7 differences -2 -1 -1 -1 -1 0 0 the range bounds the median more than nine times in ten
    assert median.points[1] == (-1.0, 3.0)
    assert median.spans == ((-2.0, 0.0),) * 2
    assert [x for x, _ in named(chart, "seed").points] == [-1, 0, -1, -1, -2, -1, -1] * 2
    assert [series.points[0][0] for series in chart.series if series.name == "limit"] == [-0.5, -0.5]
    assert interval_words(gate_line()) == "times 0.25..1"


def test_a_seed_that_trains_nowhere_stands_at_the_end_and_does_not_stretch_the_axis() -> None:
    verdict = verdict_of(gate_line(head=(None, *HEAD[1:])))
    chart = picture("change-in-octaves", verdict)
    assert chart.x.low is not None
    assert -2.5 < chart.x.low < -2.0
    assert named(chart, "seed").points[0][0] == chart.x.low
    assert named(chart, "seed").notes[0] == "seed 0: no longer trains"
    assert len(named(picture("max-stable-lr-by-seed", verdict), "head, worse").points) == 6


def test_a_limit_is_drawn_beside_the_values_that_it_holds() -> None:
    chart = picture("max-stable-lr-limits", verdict_of(limits=(limit_line(False),)))
    assert [x for x, _ in named(chart, "head, worse").points] == HEAD
    assert {x for x, _ in named(chart, "limit").points} == {0.08}


def test_the_rows_that_pass_are_left_out_first_of_too_many() -> None:
    passing = [gate_line(f"v{i}").model_copy(update={"verdict": "no-change"}) for i in range(60)]
    chart = picture("change-in-octaves", verdict_of(*passing, gate_line("pre-ln")))
    assert len([name for name in chart.y.names if name]) == 40
    assert chart.y.names[-2] == "pre-ln"


def test_lines_name_their_optimizer_where_they_differ_in_it() -> None:
    lines = [gate_line(), gate_line(optimizer="sgd")]
    assert line_names(lines)[id(lines[1])] == "e.max_stable_lr{variant=pre-ln,depth=4,optimizer=sgd}"
    assert line_names(lines[:1])[id(lines[0])] == "e.max_stable_lr{variant=pre-ln,depth=4}"
    assert "pre-ln sgd" in picture("change-in-octaves", verdict_of(*lines)).y.names
    for kind in ("md", "junit"):
        assert "optimizer=sgd" in verdict_text(verdict_of(*lines), kind)


def test_a_name_of_the_users_is_text_in_the_page() -> None:
    page = verdict_text(verdict_of(gate_line(HOSTILE), limits=(limit_line(True),)), "html")
    assert "<img src=x" not in page
    pictures = verdict_document(verdict_of(gate_line())).pictures("html")
    assert [name for name, _ in pictures] == ["change-in-octaves", "max-stable-lr-by-seed"]
