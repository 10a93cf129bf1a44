"""The depth sweep on real trainings small enough to take a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stresstest.engine.population import Population
from stresstest.engine.replicas import Readings
from stresstest.errors import ConfigError
from stresstest.experiments.cells import Listener, _populations, run
from stresstest.experiments.depth_sweep.experiment import DepthSweep
from stresstest.experiments.depth_sweep.measure import plan, recipe_lrs
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.experiments.plan import Plan
from stresstest.measurements.base import CellPlan
from stresstest.results.records import Bracket, Cell
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.specs.profiles import make_spec
from stresstest.tasks.task import Batch

MLP: dict[str, Any] = {
    "model": "mlp",
    "width": 16,
    "batch_size": 20,
    "train_steps": 30,
    "depths": "3,30",
    "variant": "rezero,plain",
    "seeds": "2",
    "device": "cpu",
}
LEARNS: dict[str, Any] = {"batch_size": 50, "peak_lr": 3e-3, "train_steps": 60, "variant": "plain"}  # at depth 2
DECODER: dict[str, Any] = {
    "width": 8,
    "heads": 2,
    "seq_len": 8,
    "batch_size": 2,
    "num_steps": 24,
    "hold_steps": 20,
    "train_steps": 20,
    "depths": "1,2",
    "variant": "pre-ln,post-ln",
    "seeds": "0,",
    "device": "cpu",
}


def planned(base: dict[str, Any] = MLP, **settings: Any) -> Plan:
    return plan(make_spec(DepthSweepSpec, "quick", base | settings))


def run_all(plan: Plan, path: Path, jobs: int = 1, on_cell: Callable[[Cell], None] = lambda cell: None) -> list[Cell]:
    with open_run(path, {"identity": plan.identity, "command": "", "again": ""}) as store:
        return run(plan, store, RunSettings(jobs=jobs), Listener(ended=on_cell))[0]


def records(cells: Sequence[Cell]) -> list[str]:
    """All of the cells but what they cost."""
    costs = ("seconds_per_step", "peak_bytes")
    return [
        cell.model_copy(
            update={
                "seconds": 0.0,
                "probe_seconds": 0.0,
                "metrics": {k: v for k, v in cell.metrics.items() if k not in costs},
            }
        ).model_dump_json()
        for cell in cells
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Cell], Path]:
    path = tmp_path_factory.mktemp("whole")
    return run_all(planned(), path), path


def test_every_variant_depth_and_seed_is_a_cell_with_recipe_and_signal(whole: tuple[list[Cell], Path]) -> None:
    cells, path = whole
    points = {(cell.variant, cell.depth, cell.seed) for cell in cells}
    assert points == {(variant, depth, seed) for variant in ("rezero", "plain") for depth in (3, 30) for seed in (0, 1)}
    for cell in cells:
        assert (cell.status, cell.ramp, cell.hold) == ("done", {}, [])
        assert {"steps_to_target", "seconds_per_step", "peak_bytes", "stream_growth"} <= cell.metrics.keys()
        assert cell.recipe["target_loss"] == pytest.approx(0.9 * 2.3018575, rel=1e-6)
        with np.load(path / "curves" / f"{cell.key}.npz") as curves:
            assert curves["recipe_loss"].shape == curves["recipe_lr"].shape == (cell.recipe["steps"],)
            assert curves["signal_grad_norm"].shape == (cell.depth,)
            assert curves["signal_stream_rms"].shape == (cell.depth + 1,)


def test_two_jobs_and_seeds_alone_give_the_cells_of_one_bit_for_bit(
    whole: tuple[list[Cell], Path], tmp_path: Path
) -> None:
    assert records(run_all(planned(), tmp_path / "two", jobs=2)) == records(whole[0])
    alone = run_all(planned(seeds="1,"), tmp_path / "alone")
    assert records(alone) == records([cell for cell in whole[0] if cell.seed == 1])


def test_a_run_stopped_half_way_goes_on_to_the_same_records(whole: tuple[list[Cell], Path], tmp_path: Path) -> None:
    ended: list[str] = []

    def stop_after_three(cell: Cell) -> None:
        ended.append(cell.key)
        if len(ended) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(planned(), tmp_path, on_cell=stop_after_three)
    cells = run_all(planned(), tmp_path, on_cell=lambda cell: ended.append(cell.key))
    assert sorted(ended) == sorted(cell.key for cell in planned().cells), "each cell was trained once"
    assert records(cells) == records(whole[0])


def test_a_deeper_sweep_goes_on_from_the_cells_of_a_shallow_one() -> None:
    assert {cell.key for cell in planned(depths="3").cells} < {cell.key for cell in planned(depths="3,30,60").cells}
    assert planned(peak_lr=1e-2).cells[0].key != planned().cells[0].key


@pytest.mark.parametrize(
    ("measure", "metrics", "fields"),
    [
        ("outcome", {"steps_to_target"}, {"recipe"}),
        ("ramp", {"explosion_lr", "steps_survived"}, {"ramp"}),
        ("hold", {"explosion_lr", "max_stable_lr"}, {"ramp", "hold"}),
        ("outcome,hold", {"steps_to_target", "max_stable_lr", "explosion_lr"}, {"recipe", "ramp", "hold"}),
    ],
)
def test_what_is_measured_is_what_was_asked_for(
    measure: str, metrics: set[str], fields: set[str], tmp_path: Path
) -> None:
    cells = run_all(planned(DECODER, measure=measure, depths="1", variant="pre-ln"), tmp_path)
    every = {"steps_to_target", "explosion_lr", "steps_survived", "max_stable_lr"}
    for cell in cells:
        assert cell.metrics.keys() & every >= metrics
        assert not cell.metrics.keys() & (every - metrics - {"steps_survived"})
        assert {name for name in ("recipe", "ramp", "hold") if getattr(cell, name)} == fields
        assert cell.signal


def test_at_initialisation_alone_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Population, batch: Batch, lr_R: torch.Tensor) -> Readings:
        raise AssertionError("trained")

    monkeypatch.setattr(Population, "step", refuse)
    for base in (MLP, DECODER):
        cells = run_all(planned(base, init_only=True, seeds="1"), tmp_path / str(base["width"]))
        assert all(cell.status == "done" and cell.signal and not cell.recipe for cell in cells)


def test_the_boundary_of_a_depth_is_that_of_the_lr_range_test(tmp_path: Path) -> None:
    from stresstest.experiments.lr_range import measure as lr_range
    from stresstest.experiments.lr_range.spec import LrRangeSpec

    swept = {cell.depth: cell for cell in run_all(planned(DECODER, variant="pre-ln"), tmp_path / "sweep")}
    settings = {key: value for key, value in DECODER.items() if key not in ("depths", "train_steps", "variant")}
    for depth in (1, 2):
        spec = make_spec(LrRangeSpec, "quick", settings | {"depth": depth, "variant": "pre-ln"})
        [alone] = run_all(lr_range.plan(spec), tmp_path / f"range-{depth}")
        assert (swept[depth].ramp, swept[depth].hold) == (alone.ramp, alone.hold)
        assert alone.metrics.items() <= swept[depth].metrics.items()


def test_signals_are_taken_before_the_steps_asked_for_and_change_nothing(tmp_path: Path) -> None:
    quiet = run_all(planned(depths="3", variant="pre-ln"), tmp_path / "quiet")
    probed = run_all(planned(depths="3", variant="pre-ln", probe_steps="1,5,30"), tmp_path / "probed")
    for one, other in zip(quiet, probed, strict=True):
        assert one.signals == {}
        assert list(other.signals) == [1, 5, 30]
        assert {k: v for k, v in other.recipe.items() if k != "curve"} == {
            k: v for k, v in one.recipe.items() if k != "curve"
        }
        norms = [other.signal["grad_norm"], *(signal["grad_norm"] for signal in other.signals.values())]
        assert len({tuple(n) for n in norms}) == 4, "training changed the gradient"
        grown = other.metrics["activation_rms_trained"].low
        assert grown == other.signals[30]["activation_rms"][-1] != other.metrics["activation_rms"].low
    with np.load(next((tmp_path / "probed" / "curves").iterdir())) as curves:
        assert {"signal_5_grad_norm", "signal_grad_norm"} <= set(curves.files)


def test_the_signal_at_initialisation_is_the_one_before_training_starts(tmp_path: Path) -> None:
    [cell] = run_all(planned(depths="4", variant="admin", seeds="0,", init_only=True), tmp_path / "init")
    [also] = run_all(planned(depths="4", variant="admin", seeds="0,", probe_steps="30"), tmp_path / "trained")
    assert cell.signal == also.signal


def test_the_recipe_warms_up_linearly_and_then_holds() -> None:
    spec = planned(peak_lr=0.2, warmup_steps=4, train_steps=20).spec
    assert isinstance(spec, DepthSweepSpec)
    np.testing.assert_allclose(recipe_lrs(spec), [0.05, 0.1, 0.15, *[0.2] * 17])
    spec = planned(peak_lr=0.2, train_steps=20).spec
    assert isinstance(spec, DepthSweepSpec)
    assert recipe_lrs(spec).tolist() == [0.2] * 20


def test_steps_to_a_target_are_counted_or_lie_beyond_the_budget(tmp_path: Path) -> None:
    settings = LEARNS | {"depths": "2", "seeds": "0,"}
    [near] = run_all(planned(**settings, target_loss=2.2), tmp_path / "near")
    [far] = run_all(planned(**settings, target_loss=0.01), tmp_path / "far")
    steps = near.metrics["steps_to_target"]
    assert steps.low == steps.high
    assert 4 <= (steps.low or 0) < 60
    assert far.metrics["steps_to_target"] == Bracket(low=60, high=None)


def test_bisection_closes_in_on_the_depth_at_which_training_fails(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def known(cells: Sequence[CellPlan], finished: Sequence[Cell]) -> None:
        told.append((len(cells), len(finished)))

    sweep = planned(**LEARNS | {"depths": "2,30", "bisect": True})
    with open_run(tmp_path, {"identity": sweep.identity, "command": "", "again": ""}) as store:
        cells = run(sweep, store, RunSettings(jobs=1), Listener(known))[0]
    assert len(told) > 2, "several rounds"
    assert told[0] == (4, 0)
    [trend] = DepthSweep().reduce(sweep.spec, cells).trends
    for seed, bracket in trend.metrics["max_trainable_depth"].per_seed.items():
        assert bracket.low is not None, seed
        assert bracket.high is not None, seed
        assert bracket.low < bracket.high <= max(bracket.low + 1, 1.1 * bracket.low)
        outcomes = {c.depth: c.recipe["outcome"] in ("stable", "spiked") for c in cells if str(c.seed) == seed}
        assert outcomes[int(bracket.low)]
        assert not outcomes[int(bracket.high)]
    with open_run(tmp_path, {"identity": sweep.identity, "command": "", "again": ""}) as store:
        again = run(sweep, store, RunSettings(jobs=1), Listener(ended=lambda cell: pytest.fail("trained again")))[0]
    assert records(again) == records(cells)


def test_an_out_of_memory_at_one_depth_is_no_instability_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Population.step

    def too_deep(self: Population, batch: Batch, lr_R: torch.Tensor) -> Readings:
        if self.model.spec.depth == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return step(self, batch, lr_R)

    monkeypatch.setattr(Population, "step", too_deep)
    sweep = planned(**LEARNS | {"depths": "2,3"})
    cells = run_all(sweep, tmp_path)
    assert {(cell.depth, cell.status) for cell in cells} == {(2, "done"), (3, "oom")}
    reduced = DepthSweep().reduce(sweep.spec, cells)
    assert reduced.trends[0].metrics["max_trainable_depth"].median == Bracket(low=2, high=None)
    assert [finding.kind for finding in reduced.findings if "plain depth 3" in finding.text] == ["oom"]


def test_a_variant_that_the_model_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match="variant sub-ln does not exist for model mlp; it has plain, residual"):
        planned(variant="rezero,sub-ln")
    assert "sub-ln" not in planned(variant="all").spec.variant
    assert "sub-ln" in planned(DECODER, variant="all").spec.variant


def test_deep_cells_come_first_and_thin_mlps_train_their_seeds_together() -> None:
    sweep = planned(depths="3,30", seeds="4")
    groups = _populations(sweep, sweep.cells, jobs=2)
    assert [group[0].depth for group in groups] == [30, 30, 3, 3]
    assert all(len(group) == 4 for group in groups)
    few = planned(depths="3", variant="rezero", seeds="4")
    assert [len(group) for group in _populations(few, few.cells, jobs=2)] == [2, 2], "no process is idle"


@pytest.mark.parametrize("jobs", [1, 2, 3, 16, 100])
def test_transformers_on_a_cpu_train_a_few_seeds_together_and_fewer_towards_the_end(jobs: int) -> None:
    sweep = planned(DECODER, variant="pre-ln,post-ln,rezero", depths="1", seeds="5")
    groups = _populations(sweep, sweep.cells, jobs)
    assert sorted(cell.key for group in groups for cell in group) == sorted(cell.key for cell in sweep.cells)
    assert all(len({(cell.variant, cell.depth) for cell in group}) == 1 for group in groups)
    sizes = [len(group) for group in groups]
    if jobs == 1:
        assert sizes == [4, 1] * 3
        return
    busy = [0] * jobs
    for size in sizes:
        busy[busy.index(min(busy))] += size
    assert max(busy) - min(busy) <= 1, "no process waits for another"


def test_rezero_trains_where_plain_does_not(tmp_path: Path) -> None:
    sweep = planned(depths="2,400", train_steps=100, peak_lr=1e-3, batch_size=50)
    reduced = DepthSweep().reduce(sweep.spec, run_all(sweep, tmp_path))
    rezero, plain = reduced.trends
    assert rezero.metrics["max_trainable_depth"].median == Bracket(low=400, high=None)
    assert plain.metrics["max_trainable_depth"].median.high == 400
    [text] = [finding.text for finding in reduced.findings if finding.subject == "plain"]
    assert "vanishes" in text


def test_a_recipe_is_judged_by_its_end_and_not_by_adagrads_first_steps(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimizer": "adagrad", "peak_lr": 0.02, "width": 64, "batch_size": 50}
    sweep = planned(variant="rezero", depths="32", seeds="0,", train_steps=60, **settings)
    (cell,) = run_all(sweep, tmp_path)
    (path,) = tmp_path.glob("curves/*.npz")
    loss = np.load(path)["recipe_loss"]
    assert min(loss[1:6]) > 2.0 * loss[0]
    assert loss[-10:].max() < loss[0]
    assert (cell.recipe["outcome"], cell.recipe["steps"]) == ("spiked", 60)
