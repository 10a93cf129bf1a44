"""What is shown of a run that goes on: on a terminal of any width, and line by line in a pipe."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from stresstest.reports import progress as module
from stresstest.reports.progress import (
    ProgressBar,
    estimated,
    is_cell,
    is_time,
    line,
    shown,
    time_left,
    without_time_left,
)
from stresstest.results.progress import Progress, TimeLeft
from stresstest.results.records import Cell

RUNNING = (
    "pre-ln depth 6 seed 1, hold at 0.031, step 80 of 150, loss 2.31",
    "rezero[red] depth 6 seed 0, ramp at 0.0042, step 40 of 200, loss not finite",
)
HALF = Progress(7, 15, 0.48, TimeLeft(130.0, 105.0, 160.0), RUNNING)
CELL = Cell(key="a", status="crashed", variant="pre-ln", depth=6, seed=1, error="ValueError: no")


def written(width: int, progress: Progress) -> list[str]:
    out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    out.print(shown(progress, 125.0, width))
    return out.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is a StringIO


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_terminal_shows_the_share_the_time_left_and_what_trains_in_a_line_each(width: int) -> None:
    lines = written(width, HALF)
    assert len(lines) == 3
    assert all(len(each) <= width for each in lines)
    assert " 48%  " in lines[0]
    assert "about 2 min" in lines[0]
    assert lines[1].startswith("  pre-ln depth 6 seed 1, hold at 0.0")
    assert lines[2].startswith("  rezero[red] depth 6 seed 0"), "names are no markup"


def test_a_wide_terminal_shows_the_cells_and_the_time_passed_as_well() -> None:
    assert written(120, HALF)[0].endswith(" 48%  7/15 cells  2 min  about 2 min (2 to 3) left")


def test_many_groups_are_counted_and_not_all_shown() -> None:
    lines = written(80, Progress(0, 9, 0.0, None, tuple(f"cell {i}" for i in range(7))))
    assert lines[0].endswith("starting")
    assert lines[1:] == ["  cell 0", "  cell 1", "  cell 2", "  cell 3", "  and 3 more"]


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (TimeLeft(0.2, 0.1, 0.3), "about 1 s"),
        (TimeLeft(21.0, 19.0, 24.0), "about 21 s"),
        (TimeLeft(240.0, 180.0, 360.0), "about 4 min (3 to 6)"),
        (TimeLeft(960.0, 720.0, 1140.0), "about 16 min (12 to 19)"),
        (TimeLeft(90.0, 60.0, 150.0), "about 90 s (60 s to 2 min)"),
        (TimeLeft(7200.0, 5400.0, 9000.0), "about 2.0 h (90 min to 2.5 h)"),
        (TimeLeft(240.0, 180.0, 360.0, 900.0), "about 4 min (3 to 6), at most 15 min"),
    ],
)
def test_a_time_has_its_range_where_that_is_wide(left: TimeLeft, said: str) -> None:
    assert time_left(left) == said


def test_the_estimate_names_cells_time_and_processes() -> None:
    progress = Progress(0, 15, 0.0, TimeLeft(240.0, 180.0, 360.0))
    assert estimated(progress, 2) == "15 cells: about 4 min (3 to 6) on 2 processes"
    assert estimated(Progress(3, 4, 0.0, TimeLeft(21.0, 20.0, 22.0)), 1) == "1 cell: about 21 s on 1 process"


def test_a_pipe_gets_a_line_a_cell_and_one_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    out = io.StringIO()
    with ProgressBar(Console(file=out, width=120), quiet=False, verbose=False) as bar:
        bar.estimate(HALF, 2)
        for now in range(1, 75):
            bar.progress(HALF)
            if now == 40:
                bar.cell_ended(CELL, HALF)
    assert out.getvalue().splitlines() == [
        "8 cells: about 2 min (2 to 3) on 2 processes",
        line(HALF),
        "[7/15] pre-ln depth 6 seed 1: crashed (ValueError: no), about 2 min (2 to 3) left",
        line(HALF),
    ]
    assert line(HALF) == f"48%; {RUNNING[0]}; and 1 more; about 2 min (2 to 3) left"


@pytest.mark.parametrize("left", [HALF.left, TimeLeft(240.0, 235.0, 250.0), TimeLeft(240.0, 180.0, 360.0, 900.0)])
def test_who_reads_the_lines_tells_cells_from_times(left: TimeLeft) -> None:
    out, progress = io.StringIO(), Progress(7, 15, 0.48, left, RUNNING)
    with ProgressBar(Console(file=out, width=200), quiet=False, verbose=False) as bar:
        bar.cell_ended(CELL, progress)
        bar.cells_known([CELL], 3)
    cell, known = out.getvalue().splitlines()
    assert (is_cell(cell), is_time(cell)) == (True, False)
    assert without_time_left(cell) == "[7/15] pre-ln depth 6 seed 1: crashed (ValueError: no)"
    assert (is_cell(known), is_time(known)) == (False, False)
    assert is_time(line(progress))
    assert is_time(line(Progress(0, 15, 0.0, None)))
    assert is_time(estimated(progress, 2))
    assert not is_cell(line(progress))


def test_progress_is_read_as_it_was_written_and_what_is_not_progress_is_nothing() -> None:
    assert Progress.from_json(HALF.to_json()) == HALF
    most = Progress(0, 1, 0.0, TimeLeft(1.0, 1.0, 2.0, 3.0))
    assert Progress.from_json(most.to_json()) == most
    assert [Progress.from_json(text) for text in ("{}", "", "[]", '{"ended": 1, "total": 2}')] == [None] * 4


def test_a_run_of_seconds_has_no_estimate_and_a_quiet_one_says_nothing() -> None:
    out = io.StringIO()
    short = Progress(0, 1, 0.0, TimeLeft(4.0, 2.0, 8.0))
    with ProgressBar(Console(file=out, width=120), quiet=False, verbose=False) as bar:
        bar.estimate(short, 1)
    with ProgressBar(Console(file=out, width=120), quiet=True, verbose=False) as bar:
        bar.estimate(HALF, 1)
        bar.cells_known([CELL], 3)
        bar.progress(HALF)
        bar.cell_ended(CELL, HALF)
    assert out.getvalue() == ""


def test_a_bar_on_a_terminal_is_drawn_and_gone_at_the_end() -> None:
    out = io.StringIO()
    with ProgressBar(Console(file=out, width=80, force_terminal=True), quiet=False, verbose=False) as bar:
        bar.progress(HALF)
        bar.cell_ended(CELL, HALF)
    assert " 48%  7/15 cells" in out.getvalue()
    assert "crashed" not in out.getvalue(), "a line a cell is for -v and for pipes"
    assert out.getvalue().endswith("\x1b[2K"), "its lines are erased"


def test_a_notebook_gets_one_output_that_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    output = SimpleNamespace(update=written.append)

    def display(html: str, display_id: bool) -> Any:
        assert display_id
        return output

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    console = Console(file=io.StringIO(), width=120)
    console.is_jupyter = True
    with ProgressBar(console, quiet=False, verbose=False) as bar:
        bar.progress(Progress(0, 15, 0.0, None))
        bar.progress(Progress(7, 15, 0.48, HALF.left, ("<b>mine</b> depth 6 seed 0",)))
        bar.cell_ended(CELL, HALF)
    first, second, last = written
    assert "0%, 0 of 15 cells" in first
    assert '<progress max="1" value="0.480"' in second
    assert "about 2 min (2 to 3) left<br><small>&lt;b&gt;mine&lt;/b&gt; depth 6 seed 0</small>" in second
    assert last == ""
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]  # it is a StringIO
