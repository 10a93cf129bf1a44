"""A run of very many cells is followed for a small share of the time that it takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stresstest.experiments import following
from stresstest.experiments.following import Following
from stresstest.experiments.table import EXPERIMENTS
from stresstest.results.records import Cell
from stresstest.runs.forecast import Forecast
from stresstest.runs.settings import RunSettings
from stresstest.specs.profiles import make_spec

MANY, FEW = 600, 100


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds of the run, and of a CPU in forecasts, of which each takes one; and how many cells were left at each."""
    made = SimpleNamespace(now=0.0, spent=0.0, asked=[])
    left = Forecast.left

    def slow(forecast: Forecast, now: float) -> Any:
        made.spent += 1.0
        made.asked.append(len(forecast.works))
        return left(forecast, now)

    monkeypatch.setattr(Forecast, "left", slow)
    monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: made.now, thread_time=lambda: made.spent))
    return made


def test_the_time_left_of_very_many_cells_is_reckoned_anew_now_and_then(clock: SimpleNamespace, tmp_path: Path) -> None:
    experiment: Any = EXPERIMENTS["lr-range"]
    spec = make_spec(experiment.spec, "quick", {"variant": ("pre-ln",), "seeds": range(MANY), "device": "cpu"})
    plan = experiment.plan(spec)
    store: Any = SimpleNamespace(path=tmp_path, write_progress=lambda progress: None)
    followed = Following(plan, store, RunSettings(), lambda progress: None)
    followed.cells_known(plan.cells, [])
    followed.grouped([[cell] for cell in plan.cells], 1)
    estimated: list[Any] = []
    first = Following(plan, store, RunSettings(), lambda progress: None, lambda *told: estimated.append(told[0].left))
    first.cells_known(plan.cells, [])
    first._forecast.timed = {first._forecast.works[plan.cells[0].key].kind: 0.01}
    first.look()  # as its own thread may, before it is known how cells train together
    first.grouped([plan.cells[:4], *([cell] for cell in plan.cells[4:])], 2)
    first.look()
    assert estimated == [first._foreseen[0]]
    assert first._forecast.left(clock.now) == estimated[0]
    told = []
    clock.asked.clear()
    for cell in plan.cells:
        followed.cell_started([cell])
        clock.now += 2.0
        ran = {"ramp": {"outcome": "exploded", "steps": 100}, "seconds": 2.0, "status": "done"}
        told.append(followed.cell_ended(Cell(key=cell.key, variant="pre-ln", depth=6, seed=cell.seed, **ran)))
    assert sum(left >= FEW for left in clock.asked) < 20
    assert sum(left < FEW for left in clock.asked) > FEW
    assert [progress.ended for progress in told] == list(range(1, MANY + 1))
    for place, progress in enumerate(told[20:], start=21):
        assert progress.left is not None
        assert progress.left.seconds == pytest.approx(2.0 * (MANY - place), rel=0.15, abs=5.0)
    assert told[-1].left.seconds == 0.0
