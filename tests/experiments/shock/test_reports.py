"""Renderings of small hand-made shocks."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from stresstest.commands.show_result import print_result, result_text
from stresstest.experiments.table import EXPERIMENTS
from stresstest.reports.document import Chart, Details, Heatmap, Series, Table
from stresstest.reports.output import FORMATS, JSON
from stresstest.reports.progress import describe
from stresstest.results.records import Bracket, Result
from tests.experiments.shock.hand_made import NEVER, USUAL, Runs, along_widths, of_cells, result_of, spec_of

GUARDED: Runs = {**USUAL, ("post-ln", "lr-pulse", "clip-norm"): [(32, 32), (32, 64), (64, 64)]}
NONE_TRAINED: Runs = {("pre-ln", "lr-pulse"): [None] * 3, ("post-ln", "lost-moments"): [None] * 3}


@cache
def made(name: str) -> Result:
    if name == "usual":
        return result_of(USUAL)
    return result_of(GUARDED, guard="clip-norm") if name == "guarded" else result_of(NONE_TRAINED)


EVERY = ("usual", "guarded", "untrained")


def terminal(result: Result, width: int = 120, encoding: str = "utf-8", verbose: bool = True) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_result(
        result, Console(file=file, width=width, highlight=False, color_system=None), "runs/one", verbose=verbose
    )
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_but_a_command_is_wider_than_the_terminal_and_no_word_is_cut(
    name: str, width: int, verbose: bool
) -> None:
    lines = terminal(made(name), width, verbose=verbose).splitlines()
    commands = [line for line in lines if "stresstest shock" in line]
    assert [line for line in lines if cell_len(line) > width and line not in commands] == []
    assert not any("\u2026" in line for line in lines)


@pytest.mark.parametrize("name", EVERY)
def test_every_format_renders_shocks(name: str) -> None:
    result = made(name)
    for text in (terminal(result), terminal(result, 80, "ascii"), *(result_text(result, k) for k in (*FORMATS, *JSON))):
        assert all(name in text for name in ("lr-pulse", "pre-ln"))
    assert terminal(result, 80, "ascii").isascii()


def test_the_narrowest_terminal_keeps_what_became_of_the_seeds() -> None:
    assert "1/3 scarred" in terminal(made("usual"), 60, verbose=False)


def test_the_terminal_report_of_shocks_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert terminal(made("guarded"), 100, verbose=False) == snapshot


def blocks(result: Result, kind: type[Any], of: str = "html") -> list[Any]:
    document = EXPERIMENTS["shock"].document(result)
    return [block for block in document.shown_in(of) if isinstance(block, kind)]


def test_the_table_has_a_dose_with_its_unit_and_damage_in_nats_per_cent_and_steps() -> None:
    table = blocks(made("usual"), Table)[0]
    heads = [column.one_line for column in table.columns]
    row = dict(zip(heads, table.rows[0], strict=True))
    assert (row["no scar up to"].text, row["no break up to"].text) == ("16x = LR 1", "32x = LR 2")
    assert row["no break up to"].interval == "32x..64x"
    assert (row["outcome"].text, row["outcome"].tone, row["at dose"].text) == ("3 recovered", "good", "8x = LR 0.5")
    assert [row[head].text for head in heads[6:]] == ["2", "20", "0.01", "1.0%", "1", "0.062"]


def test_a_guard_stands_beside_the_same_without_it_paired_by_seed() -> None:
    table = blocks(made("guarded"), Table)[-1]
    (row,) = table.rows
    assert [value.text for value in row] == [
        "clip-norm",
        "post-ln",
        "lr-pulse",
        *("8x", "16x", "8x", "32x"),
        "1 scarred, 2 recovered",
        "3 recovered",
    ]
    assert (row[4].interval, row[4].tone) == ("4x, 2x..4x", "good")


def test_the_maps_have_a_number_for_each_variant_and_searched_shock() -> None:
    scar, broke = blocks(made("usual"), Heatmap)
    assert (scar.columns, broke.columns) == (("lr-pulse",), ("lr-pulse",))
    assert [(name, cell.text) for name, (cell,) in scar.rows] == [("pre-ln", "16x = LR 1"), ("post-ln", "8x = LR 0.5")]
    assert [(name, cell.text) for name, (cell,) in broke.rows] == [("pre-ln", "32x = LR 2"), ("post-ln", "8x = LR 0.5")]
    assert scar.rows[1][1][0].tooltip == "seed 0 4x = LR 0.25, seed 1 8x = LR 0.5, seed 2 8x = LR 0.5"


def charts(result: Result) -> dict[str, Chart]:
    return {chart.name: chart for chart in blocks(result, Chart)}


def test_a_run_is_drawn_beside_its_twin_and_below_it_seed_by_seed() -> None:
    chart = charts(made("usual"))["course-lr-pulse"]
    assert chart.below is not None
    lines: dict[tuple[str, str], Series] = {(each.name, each.kind): each for each in chart.series}
    assert dict(lines["pre-ln", "line"].points)[0.0] == pytest.approx(3.0 - 100 / 250 + 9)
    assert dict(lines["pre-ln", "guide"].points)[-30.0] == pytest.approx(3.0 - 70 / 250)
    above = [each for each in chart.below.series if (each.name, each.kind) == ("pre-ln", "seed")]
    assert [dict(each.points)[10.0] for each in above] == pytest.approx([9 / 11] * 3)


def test_every_dose_that_was_tried_is_a_mark_of_its_seed_and_outcome() -> None:
    chart = charts(made("usual"))["doses-lr-pulse"]
    of_post = next(each for each in chart.series if each.name == "post-ln")
    first = [
        (dose, tone)
        for (dose, _), tone, note in zip(of_post.points, of_post.tones, of_post.notes, strict=True)
        if note.startswith("seed 0")
    ]
    assert {(4.0, "good"), (8.0, "mixed"), (16.0, "bad")} <= set(first)
    assert all(tone == ("good" if dose < 8 else "mixed" if dose < 16 else "bad") for dose, tone in first)


def test_a_shock_that_scars_from_the_smallest_dose_on_has_no_tolerance_and_says_so() -> None:
    result = result_of({("pre-ln", "lr-pulse"): [(2, NEVER)] * 3}, variant="pre-ln", shock="lr-pulse")
    assert "keeps a scar of lr-pulse from 2x = LR 0.12" in terminal(result, 120, verbose=False)
    assert blocks(result, Heatmap)[0].rows[0][1][0].text == "< 2x = LR 0.12"


def test_the_line_of_a_cell_says_what_became_of_it_and_its_tolerances() -> None:
    result = made("usual")
    assert describe(result.cells[0]) == (
        "pre-ln depth 4 shock lr-pulse peak lr 0.062 seed 0: recovered at dose 8, no scar up to 16, no break up to 32, "
        "0 s"
    )
    assert "recovered at dose 1, 0 s" in describe(result.cells[3])
    assert describe(made("untrained").cells[0]).endswith("seed 0: untrained, 0 s")


def test_a_page_folds_away_what_each_shock_moved_first() -> None:
    (folded,) = (block for block in blocks(made("usual"), Details) if "moved" in block.summary)
    assert [value.text for value in folded.blocks[0].rows[0]] == [
        "pre-ln",
        "lr-pulse",
        "at once: gradient of qkv.weight of block 2, 3.5x the twin's",
        "after 1 step: gradient of qkv.weight of block 2, 3.5x the twin's",
        "after 2 steps: gradient of qkv.weight of block 2, 3.5x the twin's",
    ]


def test_the_largest_dose_is_drawn_over_the_size() -> None:
    result = along_widths({32: [(32, 64)] * 3, 64: [(8, 16), (8, 16), (16, 16)], 128: [(2, 4)] * 3})
    (line,) = charts(result)["by-size-lr-pulse"].series
    assert (line.name, line.points) == ("pre-ln", ((32.0, 16.0), (64.0, 4.0), (128.0, 1.0)))
    assert line.spans == ((16.0, 32.0), (4.0, 16.0), (1.0, 2.0))
    assert "by-size-lr-pulse" not in charts(made("usual"))
    assert terminal(result, verbose=False).strip().startswith("Shocks: decoder, depth 4, width 32 to 128, adam")


def test_a_pulse_of_one_dose_has_its_learning_rate_and_no_empty_columns() -> None:
    result = result_of({("pre-ln", "lr-pulse:factor=32"): [(8, 16)] * 3}, variant="pre-ln", shock="lr-pulse:factor=32")
    assert "breaks under lr-pulse:factor=32 = LR 2" in terminal(result, verbose=False)
    heads = [column.one_line for column in blocks(result, Table)[0].columns]
    assert heads[:4] == ["variant", "shock", "outcome", "at dose"]
    assert blocks(result, Heatmap) == []


def test_a_run_whose_first_loss_is_not_finite_has_a_peak_that_says_so() -> None:
    settings = {"variant": "pre-ln", "shock": "lr-pulse"}
    cells = result_of({("pre-ln", "lr-pulse"): [(2, 2)]}, **settings, seeds="1").cells
    gone = [
        cell.model_copy(update={"metrics": {**cell.metrics, "peak_excess": Bracket(low=None, high=None)}})
        for cell in cells
    ]
    table = blocks(of_cells(spec_of(**settings, seeds="1"), gone), Table)[0]
    heads = [column.one_line.partition(" (")[0] for column in table.columns]
    assert table.rows[0][heads.index("peak excess")].text == "not finite"
