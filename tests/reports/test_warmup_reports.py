"""Renderings of small hand-made maps and searches."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from stresstest.commands.show_result import print_result, result_text
from stresstest.experiments.arms import point
from stresstest.experiments.table import EXPERIMENTS
from stresstest.experiments.warmup.map import map_points
from stresstest.experiments.warmup.rows import reduce
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.reports.document import Chart, Heatmap
from stresstest.reports.numbers import OUTCOME_MARKS
from stresstest.reports.output import FORMATS, JSON
from stresstest.results.records import RESULT_SCHEMA, Cell, Result
from stresstest.specs.profiles import make_spec

EVERY_FORMAT = (*FORMATS, *JSON)
Outcomes = Sequence[float | str]  # by seed: the loss of a run that trains, or how it fails


def cells_at(variant: str, where: Mapping[str, Any], outcomes: Outcomes) -> list[Cell]:
    found = []
    for seed, what in enumerate(outcomes):
        recipe = {"outcome": what, "loss": 3.18} if isinstance(what, str) else {"outcome": "stable", "loss": what}
        key = f"{variant}{seed}{'/'.join(map(str, where.values()))}"
        recipe |= {"cap": 5.6, "initial_loss": 5.6}
        found.append(
            Cell(key=key, variant=variant, depth=6, seed=seed, status="done", point=dict(where), recipe=recipe)
        )
    return found


def result_of(searched: bool = True, fails: bool = False, **settings: Any) -> Result:
    asked = {"warmup_steps": "0,10,100", "num_lrs": 4, "seeds": "3", "trials": 2 if searched else 0}
    spec = make_spec(WarmupSpec, "quick", asked | settings)
    cells = []
    for variant in spec.variant:
        for where in map_points(spec) if spec.map else ():
            needed = 4e4 * where["peak_lr"] ** 1.5 if variant == "post-ln" else 0.0
            by_seed: Outcomes = (2.1, 2.2, 2.3) if where["warmup_steps"] > needed else ("relapsed",) * 3
            if where["peak_lr"] == spec.end_lr:
                by_seed = (2.5, "spiked", "nonfinite") if where["warmup_steps"] else ("exploded",) * 3
            cells += cells_at(variant, where, ("failed-to-train",) * 3 if fails else by_seed)
        if searched:
            for lr in (1.5e-3, 2.5e-3):
                cells += cells_at(variant, point(spec.optimizer[0], spec.warmup[0], 37, lr), (2.0, 2.05, 1000 * lr))
    found = reduce(spec, cells)
    return Result(
        schema_=RESULT_SCHEMA,
        command="warmup",
        reproduce="stresstest warmup",
        spec=spec.model_dump(mode="json"),
        rules={},
        environment={"key": "torch/cpu", "device_name": "some CPU", "stresstest": "0.1.0"},
        data={"name": "synthetic", "bytes": 1, "hash": "abc", "baseline_loss": 3.18, "chance_loss": 5.55},
        cells=cells,
        summary=found.summary,
        trends=found.trends,
        searches=found.searches,
        findings=found.findings,
    )


EVERY: dict[str, dict[str, Any]] = {
    "map and search": {},
    "map": {"searched": False},
    "search": {"map": False},
    "many LRs": {"num_lrs": 15},
    "arms": {"optimizer": "adam,radam", "warmup": "linear,cosine"},
    "one seed": {"seeds": "0,"},
    "one warm-up": {"warmup_steps": "10", "searched": False},
    "none": {"warmup_steps": "0", "searched": False, "optimizer": "adam,radam"},
    "all fails": {"fails": True, "searched": False},
}


def terminal(result: Result, width: int = 120, encoding: str = "utf-8", color: bool = False) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    system: Any = "truecolor" if color else None
    console = Console(file=file, width=width, highlight=False, color_system=system, force_terminal=color)
    print_result(result, console, "runs/one", verbose=True)
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(kind: str, width: int) -> None:
    out = terminal(result_of(**EVERY[kind]), width)
    assert [line for line in out.splitlines() if cell_len(line) > width] == []
    assert "\u2026" not in out


@pytest.mark.parametrize("kind", EVERY)
def test_every_format_renders_every_kind(kind: str) -> None:
    result = result_of(**EVERY[kind])
    for text in (
        terminal(result),
        terminal(result, 80, "ascii"),
        *(result_text(result, name) for name in EVERY_FORMAT),
    ):
        assert all(variant in text for variant in result.spec["variant"])
        assert result.reproduce in text
    assert terminal(result, 80, "ascii").isascii()
    HTMLParser().feed(result_text(result, "html"))


def test_the_terminal_report_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert terminal(result_of(), 100) == snapshot


def test_the_markdown_report_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert result_text(result_of(), "md") == snapshot


def test_a_map_tells_outcomes_by_marks_and_on_a_terminal_by_colours_too() -> None:
    result = result_of(searched=False)
    plain, colored = terminal(result), terminal(result, color=True)
    outcomes = {outcome for trend in result.trends for place in trend.map for outcome in place.outcomes.values()}
    assert outcomes >= {"stable", "relapsed", "exploded"}
    for mark in ("<", "^", "?"):
        assert f"3.18{mark}" in plain or f"2.50{mark}" in plain
    assert "\x1b[" not in plain
    assert len(set(re.findall(r"48;5;(\d+)m", colored))) == 3, "trains, mixed, fails"
    assert set(OUTCOME_MARKS) == {"spiked", "flat", "failed-to-train", "relapsed", "exploded", "nonfinite"}


def test_a_map_that_is_too_wide_is_printed_in_pieces_and_loses_nothing() -> None:
    result = result_of(searched=False, num_lrs=29)
    narrow = terminal(result, 80)
    assert narrow.count("peak LR ") >= 2 * 3
    assert sum(line.count("2.20") for line in narrow.splitlines()) == sum(
        line.count("2.20") for line in terminal(result, 400).splitlines()
    )
    assert "0.064" in narrow


def test_the_page_shows_every_seed_of_a_place_and_every_trial() -> None:
    page = result_text(result_of(), "html")
    assert "seed 0 stable 2.10, seed 1 stable 2.20, seed 2 stable 2.30" in page
    assert "37 steps of warm-up at 0.0015" in page
    assert page.count("<polyline") >= 6, "a line a warm-up"
    assert "<script src=" not in page


def pictures_of(result: Result) -> dict[str, Chart | Heatmap]:
    return dict(EXPERIMENTS["warmup"].document(result).pictures("html"))


def test_the_pictures_have_the_numbers_of_the_result() -> None:
    result = result_of()
    pictures = pictures_of(result)
    charts = {name: picture for name, picture in pictures.items() if isinstance(picture, Chart)}
    trend = result.trends[0]
    losses = charts["loss-over-peak-lr-1"].series
    places = {(place.warmup_steps, place.peak_lr): place for place in trend.map}
    for steps, line in zip((0, 10, 100), losses, strict=True):
        assert list(line.points) == [(lr, places[steps, lr].loss) for lr, _ in line.points]
        lows = [min(places[steps, lr].losses.values()) for lr, _ in line.points]
        assert [low for low, _ in line.spans] == lows
    needs = charts["fewest-warmup-steps"].series
    median, seeds = needs[0], needs[1]
    assert dict(median.points) == {
        float(lr): metric.median.high for lr, metric in trend.min_warmup.items() if metric.median.high is not None
    }
    assert len(seeds.points) == sum(metric.n for metric in trend.min_warmup.values())
    assert {tone for (_, steps), tone in zip(seeds.points, seeds.tones, strict=True) if steps == 100} <= {"bad", ""}


def test_the_map_frames_its_lowest_loss_and_says_which_marks_are_on_it() -> None:
    maps = [picture for picture in pictures_of(result_of()).values() if isinstance(picture, Heatmap)]
    for heatmap in maps:
        cells = [cell for _, row in heatmap.rows for cell in row]
        (best,) = (cell for cell in cells if cell.best)
        assert float(best.text) == min(float(cell.text) for cell in cells)
        there = {cell.mark for cell in cells if cell.mark}
        assert there == set(re.findall(r"(?:Marks: |, )(\S) ", heatmap.caption))
        assert {tone for tone, _ in heatmap.key} >= {cell.tone for cell in cells}


def test_the_trials_of_a_search_are_dots_with_the_best_setting_beside_them() -> None:
    result = result_of()
    search = result.searches[0]
    chart = next(picture for name, picture in pictures_of(result).items() if name == "trials-1")
    assert isinstance(chart, Chart)
    best, trials = chart.series
    means = [sum(place["losses"]) / len(place["losses"]) for place in search.places]
    assert [loss for _, loss in trials.points] == pytest.approx(means)
    assert [lr for lr, _ in trials.points] == [place["peak_lr"] for place in search.places]
    assert best.points[0][0] == search.best["peak_lr"]
    assert best.points[0][1] == pytest.approx(sum(v.low or 0.0 for v in search.loss.per_seed.values()) / search.loss.n)
    assert "37 steps of warm-up at 0.0015: stable" in trials.notes[0]


def test_an_arm_beyond_the_second_is_folded_away() -> None:
    document = EXPERIMENTS["warmup"].document(result_of(optimizer="adam,radam", searched=False))
    assert [
        block.title for block in document.blocks if isinstance(block, Chart) and "one line per warm-up" in block.title
    ]
    assert "losses over the peak LR of 2 more" in result_text(result_of(optimizer="adam,radam", searched=False), "html")
