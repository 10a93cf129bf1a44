"""What a worker tells of its training: seldom, whole, and nothing where nobody listens."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import Group, train_cells
from stresstest.runs import live
from stresstest.runs.live import ENDED, LiveRecord, Pulse, read_records, telling


def test_steps_are_told_at_most_twice_a_second_and_the_end_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    pulse = Pulse(tmp_path / "a.json", ["a"])
    seen = []
    for step in range(1, 41):
        now = 100.0 + 0.1 * step
        pulse.stepped(4, 0.1, lambda step=step: LiveRecord(doing="hold", step=step, num_steps=40, loss=2.5))
        seen += [record.step for record in read_records(tmp_path)]
    assert list(dict.fromkeys(seen)) == [1, 6, 11, 16, 21, 26, 31, 36]
    pulse.end()
    (record,) = read_records(tmp_path)
    assert (record.doing, record.cells, record.taken, record.trained) == (ENDED, ["a"], 160, 160)
    assert record.step_seconds == pytest.approx(0.025)
    assert record.seconds == pytest.approx(4.0)


def test_a_pause_in_the_steps_does_not_change_what_a_step_takes(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path / "a.json", ["a"])
    for seconds in [0.1] * 10 + [30.0]:
        pulse.stepped(4, seconds, LiveRecord)
    pulse.end()
    assert read_records(tmp_path)[0].step_seconds == pytest.approx(0.025)


def test_a_folder_that_is_not_there_costs_nothing_but_the_news(tmp_path: Path) -> None:
    with telling(tmp_path / "missing" / "a.json", ["a"]):
        pulse = live.pulse()
        assert pulse is not None
        pulse.stepped(4, 0.1, LiveRecord)
    assert live.pulse() is None
    assert read_records(tmp_path / "missing") == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": ["a"], "of_another_version": 1}'])
def test_a_record_that_cannot_be_read_is_no_news(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read_records(tmp_path) == []


def test_what_is_told_is_what_was_trained_and_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "variant": ("pre-ln",),
        "depth": 1,
        "width": 16,
        "heads": 2,
        "seq_len": 8,
        "seeds": (0,),
    }
    planned = plan(LrRangeSpec.model_validate(settings | {"num_steps": 20, "hold_steps": 20, "theory": False}))
    silent = Group(planned.spec, "cpu", tuple(planned.cells))
    monkeypatch.setattr(live, "WRITE_SECONDS", 0.0)
    records: list[LiveRecord] = []
    write = Pulse._write
    monkeypatch.setattr(Pulse, "_write", lambda self, said: (write(self, said), records.extend(read_records(tmp_path))))
    (told,) = train_cells(planned.measure, replace(silent, live=str(tmp_path)))
    (one,) = train_cells(planned.measure, silent)
    assert told.cell.ramp == one.cell.ramp
    assert told.cell.hold == one.cell.hold
    assert all(np.array_equal(told.curves[name], one.curves[name], equal_nan=True) for name in one.curves)
    ramp = [record for record in records if record.doing == "ramp"]
    assert [record.step for record in ramp][:3] == [4, 8, 12]
    assert ramp[1].lrs == pytest.approx([told.curves["ramp_lr"][7]] * 2)
    assert ramp[1].loss == pytest.approx(told.curves["ramp_loss"][7])
    assert {record.num_steps for record in records if record.doing == "hold"} == {20}
    taken = told.cell.ramp["steps"] + sum(hold["steps"] for hold in told.cell.hold)
    assert 0 <= records[-1].taken - taken <= 3 * (1 + len(told.cell.hold)), "a block is stepped to its end"
    assert math.isfinite(records[-1].seconds)
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["doing"] == ENDED
