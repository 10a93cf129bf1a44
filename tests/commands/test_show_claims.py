"""Where the reports of several runs lie, named once below them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from stresstest.commands.show_claims import show_reports


def test_the_pages_of_several_runs_are_named_and_that_of_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("sweep", "map"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "report.html").write_text("")
    show_reports(Path("runs"), ["sweep", "no-page"])
    assert capsys.readouterr().out == ""
    show_reports(Path("runs"), ["sweep", "no-page", "map"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line] == [
        ["2", "reports"],
        ["sweep:", "runs/sweep/report.html"],
        ["map:", "runs/map/report.html"],
    ]
