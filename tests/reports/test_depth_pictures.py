"""The pictures of small hand-made depth sweeps hold the numbers of their results."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from stresstest.experiments.depth_sweep.document import document
from stresstest.reports.document import Chart, Heatmap, Tiles
from stresstest.reports.palette import LIGHT
from stresstest.reports.pictures import write_pictures
from stresstest.reports.vega import plot_of
from stresstest.results.records import Result
from tests.reports.test_depth_reports import HOLDS, INIT, OUTCOMES, PROBED, cell, result_of


def picture(result: Result, name: str) -> Any:
    return dict(document(result).pictures("html"))[name]


def rows(chart: Chart, kind: str) -> list[dict[str, Any]]:
    return [row for row in plot_of(chart).whole(LIGHT)["datasets"]["p0"] if row["kind"] == kind]


def test_the_boundary_has_the_medians_and_every_seed_of_the_result() -> None:
    result = result_of(HOLDS)
    chart = picture(result, "max-stable-lr-over-depth")
    medians = [(row.variant, row.depth, row.metrics["max_stable_lr"].median.low) for row in result.summary]
    assert [(row["series"], row["x"], row["y"]) for row in rows(chart, "line")] == [
        (variant, depth, pytest.approx(low, rel=1e-4)) for variant, depth, low in medians
    ]
    seeds = {(c.variant, c.depth, f"seed {c.seed}"): c.metrics["max_stable_lr"].low for c in result.cells}
    drawn = {(row["series"], row["x"], row["note"]): row["y"] for row in rows(chart, "seed")}
    assert drawn == {place: pytest.approx(low, rel=1e-4) for place, low in seeds.items()}
    ends = [(m.low, m.high) for row in result.summary for m in [row.metrics["max_stable_lr"]]]
    assert [(row["low"], row["high"]) for row in rows(chart, "dots")] == [pytest.approx(end, rel=1e-4) for end in ends]


def test_the_svg_file_tells_its_reader_the_numbers_of_the_result(tmp_path: Path) -> None:
    result = result_of(HOLDS)
    write_pictures(document(result), "svg", tmp_path)
    svg = ElementTree.parse(tmp_path / "max-stable-lr-over-depth.svg")
    labels = [element.get("aria-label", "") for element in svg.iter()]
    found = [re.findall(r"(?:depth|max_stable_lr|series): ([^;]+)", text) for text in labels if "median of" in text]
    drawn = {(name, int(depth)): float(lr) for depth, lr, name in found}
    medians = {(row.variant, row.depth): row.metrics["max_stable_lr"].median.low for row in result.summary}
    assert drawn == {place: pytest.approx(low, rel=1e-4) for place, low in medians.items()}


def test_the_law_is_the_one_that_the_medians_follow_with_the_exponents_of_the_table_around_it() -> None:
    result = result_of(HOLDS)
    chart = picture(result, "max-stable-lr-over-depth")
    law = [row for row in rows(chart, "guide") if row["series"] == "post-ln"]
    assert [row["y"] for row in law] == pytest.approx([0.5 / row["x"] ** 1.5 for row in law], rel=1e-3)
    assert [law[0]["x"], law[-1]["x"]] == [2, 16]
    metric = next(row for row in result.trends if row.variant == "post-ln").metrics["max_stable_lr_exponent"]
    assert math.log(law[-1]["low"] / law[1]["y"]) / math.log(16 / law[1]["x"]) == pytest.approx(metric.low, abs=0.01)
    assert math.log(law[-1]["high"] / law[1]["y"]) / math.log(16 / law[1]["x"]) == pytest.approx(metric.high, abs=0.01)
    assert "post-ln 0.5 x depth^-1.5 (-1.9..-1.1); pre-ln 0.25 x depth^0 (" in chart.caption


def test_a_depth_at_which_nothing_trained_is_named_below_the_boundary() -> None:
    cells = [*HOLDS, *(cell("post-ln", 32, seed, stable=0.0) for seed in (0, 1, 2))]
    assert (
        "Not drawn, for no held LR trained: post-ln at depth 32."
        in picture(result_of(cells), "max-stable-lr-over-depth").caption
    )


def test_a_recipe_has_a_mark_for_each_seed_at_its_depth() -> None:
    chart = picture(result_of(OUTCOMES), "recipe-over-depth")
    found = {(row["series"], row["x"], row["note"]): row["tone"] for row in rows(chart, "dots")}
    assert found == {
        (c.variant, c.depth, f"seed {c.seed}, {c.recipe['outcome']}"): (
            "bad" if c.recipe["outcome"] == "failed-to-train" else "good"
        )
        for c in OUTCOMES
    }


def test_a_place_of_the_map_says_how_many_seeds_an_lr_left_unharmed_and_how_the_others_broke() -> None:
    holds = {0: ["stable", "stable"], 1: ["stable", "nonfinite"], 2: ["spiked", "nonfinite"]}
    cells = [
        cell("pre-ln", 4, seed, stable=0.1).model_copy(
            update={"hold": [{"lr": lr, "outcome": out} for lr, out in zip((0.1, 0.2), outcomes, strict=True)]}
        )
        for seed, outcomes in holds.items()
    ]
    cells.append(cell("pre-ln", 8, 0, stable=0.1))
    found = picture(result_of(cells), "held-pre-ln")
    assert isinstance(found, Heatmap)
    places = {label: [f"{place.text}{place.mark} {place.tone}" for place in row] for label, row in found.rows}
    assert places == {"0.2": ["1/3? mixed", " "], "0.1": ["3/3 good", "1/1 good"]}


def test_a_map_over_the_blocks_has_the_numbers_of_the_first_seed_at_every_depth() -> None:
    found = picture(result_of(INIT, init_only=True), "grad-norm-over-blocks")
    assert isinstance(found, Tiles)
    values = {name: [tile.value for tile in tiles] for name, tiles in found.rows}
    assert values == {f"{c.variant} {c.depth}": c.signal["grad_norm"] for c in INIT if c.seed == 0}
    ends = {name: (tiles[0].start, tiles[-1].end) for name, tiles in found.rows}
    assert set(ends.values()) == {(0.0, 100.0)}
    assert found.rows[0][1][0].note == "block 1 of 4"


def test_a_map_over_steps_has_a_row_for_each_look_at_the_gradient() -> None:
    found = picture(result_of(PROBED, probe_steps="20"), "grad-norm-over-steps-4")
    assert [name for name, _ in found.rows] == ["post-ln, init", "post-ln, step 20"]
    assert [tile.value for tile in found.rows[1][1]] == PROBED[0].signals[20]["grad_norm"]
    assert (found.rows[1][1][0].start, found.rows[1][1][-1].end) == (0.5, 4.5)


def test_a_histogram_of_singular_values_has_the_shares_of_the_result_between_their_edges() -> None:
    chart = picture(result_of(INIT, init_only=True), "singular-values-at-depth-64")
    steps = [(row["x"], row["y"]) for row in rows(chart, "steps") if row["series"] == "pre-ln"]
    assert steps == [(-1.0, 0.0), (-1.0, 0.25), (0.0, 0.5), (1.0, 0.0)]
    assert "25% of pre-ln are zero" in chart.caption


def test_the_singular_values_of_one_variant_name_it_and_lie_within_a_decade_of_no_change() -> None:
    one = cell("rezero", 4)
    assert one.signal["jacobian"] is not None
    one.signal["jacobian"].update({"zero_share": 0.0, "log10_edges": [0.0, 0.25], "shares": [1.0]})
    chart = picture(result_of([one], init_only=True), "singular-values-at-depth-4")
    assert chart.title.startswith("Singular values of rezero's Jacobian at depth 4")
    assert (chart.x.low, chart.x.high) == (-1.0, 1.0)


def test_many_variants_and_depths_leave_a_map_few_enough_rows() -> None:
    cells = [cell(f"rezero:alpha=0.{v}", depth) for v in range(1, 9) for depth in (2, 4, 8, 16, 32, 64)]
    found = picture(result_of(cells, init_only=True), "grad-norm-over-blocks")
    assert {name.split()[1] for name, _ in found.rows} == {"16", "64", "4"}
