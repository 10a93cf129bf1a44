"""What is said before a run whose dtype makes its steps slower on this CPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from stresstest.cli.main import run
from stresstest.experiments import half_precision
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.step_time import step_seconds
from stresstest.runs.forecast import Kind
from stresstest.specs.base import TrainingSpec
from stresstest.specs.profiles import make_spec

LINE = (
    "lr-range --variant pre-ln --depth 4 --width 8 --heads 2 --seq-len 8 --batch-size 2 --device cpu --dry-run".split()
)
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(("bfloat16", "said"), [(1.5, True), (1.1, False), (0.5, False)])
def test_a_dtype_that_is_slower_here_is_said_with_the_remedy(
    bfloat16: float, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[str, Kind]] = []

    def seconds(spec: TrainingSpec, device: str, kind: Kind) -> float:
        asked.append((spec.dtype, kind))
        return 0.02 * (bfloat16 if spec.dtype == "bfloat16" else 1.0)

    monkeypatch.setattr(half_precision, "step_seconds", seconds)
    assert run([*LINE, "--dtype", "bfloat16"]) == 0
    line = "use --dtype float32: a step of bfloat16 takes 1.5 times as long on this CPU\n"
    assert capsys.readouterr().err == line * said
    assert asked == [(dtype, Kind("pre-ln", 2, "adam", 2)) for dtype in ("bfloat16", "float32")]


def test_float32_is_not_timed_beside_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(half_precision, "step_seconds", lambda *_: pytest.fail("it was timed"))
    assert run(LINE) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_either_can_be_timed(dtype: str) -> None:
    spec = make_spec(LrRangeSpec, "quick", {"width": 8, "heads": 2, "seq_len": 8, "batch_size": 2, "dtype": dtype})
    assert math.isfinite(step_seconds(spec, "cpu", Kind("pre-ln", 1, "adam", 2)))
