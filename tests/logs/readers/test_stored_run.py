"""A run that stresstest stored, written by its own store."""

from pathlib import Path

import numpy as np
import pytest

from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile
from stresstest.logs.readers.stored_run import StoredRun
from stresstest.results.records import Cell
from stresstest.runs.store import RunStore

_CELL = Cell(
    key="0123456789abcdef",
    variant="pre-ln",
    depth=2,
    seed=7,
    status="done",
    seconds=1.0,
    hold=[{"lr": 0.5, "steps": 3}, {"lr": 1.0, "steps": 2}],
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = RunStore(tmp_path / "run", {"command": "lr-range", "identity": "x"})
    store.append(
        _CELL,
        {
            "ramp_lr": np.array([0.1, 0.2, 0.4]),
            "ramp_loss": np.array([3.0, 2.0, np.inf]),
            "ramp_grad_norm": np.array([1.0, 1.0, 9.0]),
            "hold_lr": np.array([0.5, 1.0]),
            "hold_loss": np.array([[3.0, 2.0, np.nan], [3.0, 2.5, np.nan]]),
            "looks": np.zeros((2, 5)),
        },
    )
    store.close()
    return tmp_path / "run"


def test_each_curve_of_a_cell_is_a_run_with_its_learning_rates(folder: Path):
    file = LogFile(folder / "cells.jsonl", "cells.jsonl")
    assert StoredRun().fits(file)
    ramp, low, high = StoredRun().read(file)
    assert ramp.name == "pre-ln, depth 2, seed 7, ramp"
    assert ramp.curves["loss"].value.tolist() == [3, 2, np.inf]
    assert ramp.curves["lr"].value.tolist() == [0.1, 0.2, 0.4]
    assert low.name == "pre-ln, depth 2, seed 7, hold at LR 0.5"
    assert high.curves["lr"].value.tolist() == [1, 1]


def test_the_padding_of_a_shorter_trial_is_no_loss_but_a_nan_that_was_reached_is(folder: Path):
    _, low, high = StoredRun().read(LogFile(folder / "cells.jsonl", "cells.jsonl"))
    assert np.isnan(low.curves["loss"].value[-1])
    assert high.curves["loss"].value.tolist() == [3, 2.5]


def test_one_cells_curves_are_read_alone(folder: Path):
    file = LogFile(folder / "curves" / f"{_CELL.key}.npz", "cell.npz")
    assert StoredRun().fits(file)
    assert next(iter(StoredRun().read(file))).name == "pre-ln, depth 2, seed 7, ramp"


def test_damaged_curves_are_one_line(folder: Path):
    (folder / "curves" / f"{_CELL.key}.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ConfigError, match=r"^cells\.jsonl: the curves in 0123456789abcdef\.npz are damaged"):
        list(StoredRun().read(LogFile(folder / "cells.jsonl", "cells.jsonl")))
