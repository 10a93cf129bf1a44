"""Diagnoses from Python."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import stresstest
from stresstest import ConfigError

FALLING = [1.0 + 2.0 * 0.97**i for i in range(150)]


def write(path: Path, losses: list[float]) -> Path:
    path.write_text("step,loss\n" + "".join(f"{i},{x}\n" for i, x in enumerate(losses)))
    return path


def test_a_path_or_several_give_a_diagnosis_for_each_run(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.csv", FALLING), write(tmp_path / "bad.csv", [*FALLING, math.nan])
    (one,) = stresstest.diagnose(good)
    assert (one.verdict, one.segments[0].rows) == ("stable", 150)
    assert [run.verdict for run in stresstest.diagnose([str(good), bad])] == ["stable", "broken"]
    assert {run.path for run in stresstest.diagnose(tmp_path)} == {str(good), str(bad)}


def test_a_printed_diagnosis_is_a_line(tmp_path: Path) -> None:
    (run,) = stresstest.diagnose(write(tmp_path / "bad.csv", [*FALLING, math.nan]))
    assert str(run).startswith(f"{tmp_path}/bad.csv: NONFINITE at step 150")
    assert "\n" not in str(run)


def test_a_log_that_is_not_read_is_an_error(tmp_path: Path) -> None:
    good = write(tmp_path / "good.csv", FALLING)
    with pytest.raises(ConfigError, match=r"absent\.csv: no such file"):
        stresstest.diagnose([good, tmp_path / "absent.csv"])
    with pytest.raises(ConfigError, match="no row below"):
        stresstest.diagnose(write(tmp_path / "none.csv", []))


def test_numbers_in_memory_are_judged_as_a_log_of_them(tmp_path: Path) -> None:
    losses = [*FALLING, math.inf, math.nan]
    (read,) = stresstest.diagnose(write(tmp_path / "x.csv", losses))
    given = stresstest.diagnose_losses(np.array(losses))
    assert (given.outcome, given.segments[0].broke_between) == (read.outcome, read.segments[0].broke_between)
    assert given.segments[0].broke_between == (149.0, 150.0)
    assert stresstest.diagnose_losses(iter(losses), steps=range(0, 1520, 10)).segments[0].broke_between == (1490, 1500)


@pytest.mark.parametrize(
    ("losses", "more", "told"),
    [
        ([], {}, "empty"),
        (["a"], {}, "sequence of numbers"),
        ([1.0, 2.0], {"steps": [1]}, "steps has 1 numbers and losses 2"),
        ([1.0, 2.0], {"baseline": 1.0, "vocab": 3}, "give one"),
    ],
)
def test_what_is_no_curve_is_said(losses: list[float], more: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        stresstest.diagnose_losses(losses, **more)  # type: ignore[arg-type]


def test_validation_may_be_missing_in_most_rows() -> None:
    validation = [2.0 if i % 50 == 0 else math.nan for i in range(len(FALLING))]
    run = stresstest.diagnose_losses(FALLING, lr=[1e-3] * len(FALLING), validation=validation)
    curves = {curve.role: len(curve.steps) for curve in run.segments[0].curves}
    assert curves["loss"] == 150
    assert curves["validation"] == 3
    assert run.verdict == "stable"
