"""What is shown and written of a check while its sides run: one bar over both, and lines in a pipe."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from stresstest.cli.main import run
from stresstest.commands.check_progress import CheckProgress
from stresstest.gate.forecast import CheckForecast, Expected
from stresstest.gate.sides import Side
from stresstest.reports.progress import ProgressBar
from stresstest.results.progress import Progress, TimeLeft

DOING = "pre-ln depth 2 seed 1, hold at 0.031, step 80 of 150, loss 2.31"
TOLD = Progress(3, 8, 0.4, TimeLeft(120.0, 100.0, 150.0), (DOING,))
CELL = "[3/8] pre-ln depth 2 seed 0: onset_lr 0.1, max_stable_lr 0.03, 9 s"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def showing(out: io.StringIO, quiet: bool = False, verbose: bool = False, terminal: bool = False) -> CheckProgress:
    forecast = CheckForecast({"a": Expected(8, 200.0, 0.2), "b": Expected(8, 400.0, 0.2)}, True, ["base", "head"])
    bar = ProgressBar(Console(file=out, width=120, force_terminal=terminal, color_system=None), quiet, verbose)
    return CheckProgress(forecast, bar, Path("gate.progress.json").resolve())


def base(**told: Progress) -> Side:
    side = Side("base", None, None, "gate", [])
    for name, progress in told.items():
        (side.path / name).mkdir(parents=True, exist_ok=True)
        (side.path / name / "progress.json").write_text(progress.to_json())
    return side


def say(shown: CheckProgress, side: Side) -> None:
    with shown, shown.running(side, ["a", "b"], 0):
        base(a=TOLD)
        for text in ("a note", "a: lr-range", "8 cells: about 2 min on 2 processes"):
            shown.said(text)
        shown.said("40%; pre-ln depth 2; about 2 min left")
        shown.said(f"{CELL}, about 2 min (1 to 3) left")


def test_in_a_pipe_the_lines_of_a_side_have_the_time_of_the_whole_check() -> None:
    out = io.StringIO()
    say(showing(out), base())
    *others, cell = out.getvalue().splitlines()
    assert others == ["base: a note", "base: a: lr-range"]
    assert cell == f"base: {CELL}, about 19 min (15 to 23) left", "120 s, 200 s and twice 400 s"


def test_on_a_terminal_one_bar_shows_it_and_what_trains_on_which_side() -> None:
    out = io.StringIO()
    say(showing(out, terminal=True), base())
    said = out.getvalue()
    assert "   0%  0/32 cells" in said
    assert "  7%  3/32 cells" in said
    assert f"  base: a: {DOING}" in said
    assert "base: a note" in said
    assert CELL not in said
    assert "a: lr-range" not in said
    out = io.StringIO()
    say(showing(out, terminal=True, verbose=True), base())
    assert f"base: {CELL}" in out.getvalue()


def test_a_second_look_does_not_repeat_what_the_first_said() -> None:
    out = io.StringIO()
    shown = showing(out)
    with shown:
        for look in (0, 1):
            with shown.running(base(), ["a", "b"], look):
                shown.said("a note of a model")
                shown.said("a note of a model")
                shown.said(f"look {look}")
    said = [line.removeprefix("base: ") for line in out.getvalue().splitlines()]
    assert said == ["a note of a model", "a note of a model", "look 0", "look 1"]


def test_a_quiet_check_shows_nothing_and_writes_how_far_it_is() -> None:
    out, side, file = io.StringIO(), base(b=TOLD), Path("gate.progress.json")
    with (shown := showing(out, quiet=True)), shown.running(side, ["a", "b"], 0):
        shown.look()
        starting = Progress.from_json(file.read_text())
        base(a=TOLD)
        shown.said(f"{CELL}, about 2 min left")
        stored = json.loads(file.read_text())
    assert out.getvalue() == ""
    assert starting is not None
    assert (starting.ended, starting.running) == (0, ("base: starting",)), "what is told of b is of a run before"
    assert (stored["ended"], stored["total"], stored["running"]) == (3, 32, [f"base: a: {DOING}"])
    assert set(stored) == {*json.loads(TOLD.to_json())}
    assert not file.exists(), "it ends with the check"


def test_the_status_is_of_a_check_that_runs_and_not_of_one_that_was_killed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = Path(".stresstest/checks/gate.progress.json")
    file.parent.mkdir(parents=True)
    file.write_text(Progress(3, 32, 0.07, TimeLeft(120.0, 100.0, 150.0, 400.0), (f"base: {DOING}",)).to_json())
    assert run(["status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: check, 32 cells: 3 ended; 7%, about 2 min, at most 7 min left",
        f"  running: base: {DOING}",
    ]
    assert run(["status", str(file.parent), "--json"]) == 0
    (stored,) = json.loads(capsys.readouterr().out)
    assert (stored["path"], stored["share"], stored["left"]["at_most"]) == (str(file), 0.07, 400.0)
    os.utime(file, (0, 0))
    assert run(["status", str(file.parent)]) == 2
    assert capsys.readouterr().err == "stresstest: no check is under way in .stresstest/checks\n"
