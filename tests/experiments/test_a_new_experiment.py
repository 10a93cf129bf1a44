"""An experiment that is registered, a folder of five files and one line, works everywhere without another edit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stresstest
from stresstest.cli.main import run
from stresstest.errors import ConfigError
from stresstest.experiments.base import PARTS, Experiments
from stresstest.experiments.estimate import estimates
from stresstest.experiments.table import EXPERIMENTS
from stresstest.scenario.schema import scenario_schema
from tests.experiments.toy.experiment import LrPoints

TINY = "--width 16 --heads 2 --seq-len 12 --depth 1 --variant pre-ln --seeds 2 -j 1 -q".split()
SCENARIO = """
experiments:
  points: {command: lr-points, lrs: [0.001, 0.01], width: 16, heads: 2, seq_len: 12, depth: 1, variant: pre-ln,
           seeds: 8}
thresholds:
  validation_loss{peak_lr=0.01}: "med <= 20"
"""


@pytest.fixture(autouse=True)
def _registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    EXPERIMENTS.register(LrPoints())
    yield
    EXPERIMENTS.unregister("lr-points")


def test_it_is_a_folder_of_five_files() -> None:
    folder = Path(__file__).parent / "toy"
    assert sorted(path.name for path in folder.glob("*.py")) == [
        "document.py",
        "experiment.py",
        "findings.py",
        "measure.py",
        "spec.py",
    ]


def test_it_is_a_command_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "lr-points" in capsys.readouterr().out
    assert run(["lr-points", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "which one ends lowest?" in text
    assert "--lrs" in text


def test_its_command_trains_and_every_format_shows_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [word for name in ("page.html", "note.md", "data.json") for word in ("-o", name)]
    assert run(["lr-points", *TINY, "--run-dir", "run", *outputs]) == 0
    shown = capsys.readouterr().out
    for text in (shown, Path("page.html").read_text(), Path("note.md").read_text()):
        assert "Losses at a few learning rates" in text
        assert "is best" in text
    assert len(json.loads(Path("data.json").read_text())["cells"]) == 4


def test_its_cells_are_named_by_what_varies(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lr-points", *TINY[:-1], "--lrs", "0.002"]) == 0
    assert "pre-ln depth 1 peak lr 0.002 seed 0" in capsys.readouterr().err


def test_it_is_in_scenarios_their_schema_selectors_and_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    commands = scenario_schema()["properties"]["experiments"]["additionalProperties"]["oneOf"]
    assert "lr-points" in [each["properties"]["command"]["const"] for each in commands]
    Path("points.yaml").write_text(SCENARIO)
    assert run(["validate", "points.yaml"]) == 0
    assert "16 cells in 1 experiment" in capsys.readouterr().out
    spec = LrPoints.spec(variant="pre-ln", width=16, heads=2, seq_len=12, depth=1)
    assert [(one.runs, one.steps) for one in estimates(spec)] == [(6, 120)]


def test_a_selector_of_another_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("points.yaml").write_text(SCENARIO.replace("peak_lr=0.01}", "peak_lr=0.5}"))
    assert run(["validate", "points.yaml"]) == 2
    assert "peak_lr '0.5'" in capsys.readouterr().err


def test_it_is_a_function() -> None:
    result = stresstest.lr_points("decoder", variant="pre-ln", width=16, heads=2, seq_len=12, depth=1, seeds=2)
    assert [row.point["peak_lr"] for row in result.summary] == [0.001, 0.01]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_left_out_is_named_when_it_is_registered(part: str) -> None:
    from stresstest.experiments.base import Experiment

    given: dict[str, Any] = {name: value for name, value in vars(LrPoints).items() if name != part}
    incomplete = type("Incomplete", (Experiment,), given)
    with pytest.raises(ConfigError, match=rf"has no {part}; give "):
        Experiments().register(incomplete())


def test_parts_that_do_not_fit_are_refused() -> None:
    unnamed = type("Unnamed", (LrPoints,), {"name": "Lr Points"})
    bare = type("Bare", (LrPoints,), {"name": "bare", "varies": ()})
    unknown = type("Unknown", (LrPoints,), {"name": "unknown", "metrics": lambda self, spec: {"speed": None}})
    for kind, words in ((unnamed, "lower case"), (bare, "'peak_lr'; add it to varies"), (unknown, "'speed'")):
        with pytest.raises(ConfigError, match=words):
            Experiments().register(kind())
    with pytest.raises(ConfigError, match="already"):
        EXPERIMENTS.register(LrPoints())


@pytest.mark.parametrize(
    ("part", "value"),
    [("varies", "peak_lr"), ("gated", 3), ("details", 3), ("plan", 3), ("cost", []), ("document", "a table")],
)
def test_a_part_of_another_type_is_named_when_it_is_registered(part: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{part} is .*; give "):
        Experiments().register(type("Odd", (LrPoints,), {part: value})())
