"""Training that is interrupted goes on from its checkpoint to the same numbers, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresstest.errors import ConfigError, StoppedError
from stresstest.experiments.depth_sweep import measure as depth_sweep
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.experiments.lr_range import measure as lr_range
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import Plan
from stresstest.experiments.training import Group, Measured, train_cells
from stresstest.measurements import journal
from stresstest.specs.profiles import make_spec

COMMON: dict[str, Any] = {"num_steps": 24, "hold_steps": 20, "seeds": "2", "device": "cpu"}
DECODER = COMMON | {"width": 8, "heads": 2, "seq_len": 8, "batch_size": 2}
MLP = COMMON | {"model": "mlp", "width": 8, "batch_size": 8, "depths": "3", "train_steps": 30}

PLANS = {
    "ramp and hold": lambda: lr_range.plan(
        make_spec(LrRangeSpec, "quick", DECODER | {"depth": 1, "variant": "post-ln"})
    ),
    "profiled, clipped, in half precision": lambda: lr_range.plan(
        make_spec(
            LrRangeSpec,
            "quick",
            DECODER | {"depth": 1, "variant": "admin", "dtype": "float16", "clip_norm": 0.5, "optimizer": "radam"},
        )
    ),
    "with dropout, in micro-batches": lambda: lr_range.plan(
        make_spec(
            LrRangeSpec,
            "quick",
            DECODER | {"depth": 1, "variant": "pre-ln", "dropout": 0.2, "label_smoothing": 0.1, "accumulate": 2},
        )
    ),
    "recipe with probes, ramp": lambda: depth_sweep.plan(
        make_spec(
            DepthSweepSpec,
            "quick",
            MLP | {"variant": "residual", "measure": "outcome,ramp", "probe_steps": "9,20", "peak_lr": 0.05},
        )
    ),
}
EVERY_LOOK = "ramp and hold"  # is interrupted at each look, the others at every third
COSTS = ("seconds_per_step", "peak_bytes")


@contextmanager
def asked_to_stop_after(offers: int) -> Iterator[None]:
    """The process is asked to stop while it trains, after so many looks at the losses."""
    left = offers

    def look() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise StoppedError("asked to stop")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "stop_if_requested", look)
        yield


def group(plan: Plan, folder: Path) -> Group:
    return Group(plan.spec, "cpu", tuple(plan.cells), checkpoints=str(folder))


def same(found: list[Measured], wanted: list[Measured]) -> bool:
    for one, other in zip(found, wanted, strict=True):
        metrics = [{k: v for k, v in each.cell.metrics.items() if k not in COSTS} for each in (one, other)]
        cells = [
            each.cell.model_copy(update={"seconds": 0.0, "probe_seconds": 0.0, "metrics": kept}).model_dump_json()
            for each, kept in zip((one, other), metrics, strict=True)
        ]
        if cells[0] != cells[1] or one.curves.keys() != other.curves.keys():
            return False
        if any(one.curves[name].tobytes() != curve.tobytes() for name, curve in other.curves.items()):
            return False
    return True


@pytest.mark.parametrize("name", PLANS)
def test_training_interrupted_at_any_look_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]()
    whole = train_cells(plan.measure, group(plan, tmp_path / "none"))
    assert not (tmp_path / "none").exists(), "a short cell writes no checkpoint"
    offers = 0
    while True:
        offers += 1 if name == EVERY_LOOK else 3
        with asked_to_stop_after(offers):
            try:
                found = train_cells(plan.measure, group(plan, tmp_path / "once"))
                break
            except StoppedError:
                pass
        resumed = train_cells(plan.measure, group(plan, tmp_path / "once"))
        assert same(resumed, whole), f"interrupted after {offers} looks"
        (checkpoint,) = (tmp_path / "once").iterdir()
        checkpoint.unlink()
    assert offers > 10, "the test looks at many places"
    assert same(found, whole)


@pytest.mark.parametrize("name", PLANS)
def test_training_interrupted_again_and_again_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]()
    whole = train_cells(plan.measure, group(plan, tmp_path / "none"))
    for attempt in range(1000):
        with asked_to_stop_after(3):
            try:
                found = train_cells(plan.measure, group(plan, tmp_path / "often"))
                break
            except StoppedError:
                assert len(list((tmp_path / "often").iterdir())) == 1, attempt
    assert attempt > 2
    assert same(found, whole)


def test_a_checkpoint_is_written_by_the_clock_and_taken_up_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PLANS["ramp and hold"]()
    whole = train_cells(plan.measure, group(plan, tmp_path / "none"))
    monkeypatch.setattr(journal, "SAVE_SECONDS", 0.0)
    steps: list[int] = []
    save = journal.Journal._save

    def killed(self: journal.Journal, key: str, state: Any) -> None:
        save(self, key, state)
        steps.append(state()["step"])
        if len(steps) == 5:
            raise SystemExit

    monkeypatch.setattr(journal.Journal, "_save", killed)
    with pytest.raises(SystemExit):
        train_cells(plan.measure, group(plan, tmp_path))
    assert steps == [4, 8, 12, 16, 20]
    assert same(train_cells(plan.measure, group(plan, tmp_path)), whole)
    assert steps[5] == 24, "it went on from step 20"


def test_a_checkpoint_that_was_cut_short_is_no_obstacle(tmp_path: Path) -> None:
    plan = PLANS["ramp and hold"]()
    whole = train_cells(plan.measure, group(plan, tmp_path / "none"))
    with asked_to_stop_after(5), pytest.raises(StoppedError):
        train_cells(plan.measure, group(plan, tmp_path))
    checkpoint = group(plan, tmp_path).checkpoint
    assert checkpoint is not None
    stored = checkpoint.read_bytes()
    for length in (0, len(stored) // 2, len(stored) - 1):
        checkpoint.write_bytes(stored[:length])
        assert same(train_cells(plan.measure, group(plan, tmp_path)), whole)
    assert np.isfinite(whole[0].curves["ramp_loss"]).any()


def test_a_checkpoint_that_cannot_be_written_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLANS["ramp and hold"]()
    whole = train_cells(plan.measure, group(plan, tmp_path / "none"))
    (tmp_path / "file").touch()
    monkeypatch.setattr(journal, "SAVE_SECONDS", 0.0)
    assert same(train_cells(plan.measure, group(plan, tmp_path / "file")), whole)
    assert same(train_cells(plan.measure, group(plan, tmp_path / "gone" / "with its run")), whole)


def test_a_node_of_another_kind_trains_nothing(tmp_path: Path) -> None:
    plan = PLANS["ramp and hold"]()
    here = replace(group(plan, tmp_path), environment=plan.environment["key"])
    assert train_cells(plan.measure, here)[0].cell.status == "done"
    with pytest.raises(
        ConfigError, match=r"this node is torch.*, but the run started on torch9/tpu; use identical nodes"
    ):
        train_cells(plan.measure, replace(here, environment="torch9/tpu"))
