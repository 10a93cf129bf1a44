"""The LR range test on real trainings small enough to take a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from torch import Tensor

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Readings
from stresstest.errors import ConfigError
from stresstest.experiments.cells import Listener, run
from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import Plan
from stresstest.experiments.training import Group, train_cells
from stresstest.measurements.base import CellPlan
from stresstest.measurements.boundary import measure_boundary, ramp_lrs
from stresstest.measurements.built_in import BuiltInBench
from stresstest.results.records import Bracket, Cell
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.specs.parsing import parse_choice
from stresstest.specs.profiles import make_spec
from stresstest.tasks.task import Batch

TINY: dict[str, Any] = {
    "depth": 1,
    "width": 8,
    "heads": 2,
    "seq_len": 8,
    "batch_size": 2,
    "num_steps": 24,
    "hold_steps": 20,
    "variant": "post-ln,pre-ln",
    "seeds": "2",
    "device": "cpu",
}
LEARNS: dict[str, Any] = {
    "width": 16,
    "seq_len": 16,
    "batch_size": 4,
    "num_steps": 120,
    "hold_steps": 60,
    "variant": "pre-ln",
    "seeds": "0,",
}


def planned(**settings: Any) -> Plan:
    return plan(make_spec(LrRangeSpec, "quick", TINY | settings))


def run_all(plan: Plan, path: Path, on_cell: Callable[[Cell], None] = lambda cell: None, **settings: Any) -> list[Cell]:
    with open_run(path, {"identity": plan.identity, "command": "", "again": ""}) as store:
        return run(plan, store, RunSettings(**{"jobs": 1, **settings}), Listener(ended=on_cell))[0]


def records(cells: Sequence[Cell]) -> list[str]:
    """All of the cells but how long they took, and the checksum that is known once the curves are stored."""
    left_out = {"seconds": 0.0, "probe_seconds": 0.0, "curves_sum": ""}
    return [cell.model_copy(update=left_out).model_dump_json() for cell in cells]


def keys(plan: Plan) -> dict[tuple[str, int], str]:
    return {(cell.variant, cell.seed): cell.key for cell in plan.cells}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Cell], Path]:
    """The cells of an undisturbed run in one process, and where they are stored."""
    path = tmp_path_factory.mktemp("whole")
    return run_all(planned(), path), path


def test_every_cell_is_done_and_has_its_boundary_and_curves(whole: tuple[list[Cell], Path]) -> None:
    cells, path = whole
    assert [(cell.seed, cell.variant) for cell in cells] == [*product((0, 1), ("post-ln", "pre-ln"))]
    for cell in cells:
        assert cell.status == "done"
        assert {"max_stable_lr", "explosion_lr", "steps_survived"} <= cell.metrics.keys()
        with np.load(path / "curves" / f"{cell.key}.npz") as curves:
            assert curves["ramp_loss"].shape == curves["ramp_lr"].shape == (cell.ramp["steps"],)
            assert list(curves["hold_lr"]) == [trial["lr"] for trial in cell.hold]


def test_two_jobs_give_the_cells_of_one_bit_for_bit(whole: tuple[list[Cell], Path], tmp_path: Path) -> None:
    assert records(run_all(planned(), tmp_path, jobs=2)) == records(whole[0])
    for curves in (whole[1] / "curves").iterdir():
        with np.load(curves) as one, np.load(tmp_path / "curves" / curves.name) as two:
            for name in one.files:
                np.testing.assert_array_equal(one[name], two[name])


def test_seeds_in_one_population_give_the_cells_they_give_alone(whole: tuple[list[Cell], Path]) -> None:
    small = planned()
    together = [
        measured.cell
        for variant in small.spec.variant
        for measured in train_cells(
            measure_boundary, Group(small.spec, "cpu", tuple(c for c in small.cells if c.variant == variant))
        )
    ]
    assert records(sorted(together, key=lambda cell: cell.seed)) == records(whole[0])


def test_a_run_stopped_half_way_goes_on_to_the_same_records(whole: tuple[list[Cell], Path], tmp_path: Path) -> None:
    ended: list[str] = []

    def stop_after_two(cell: Cell) -> None:
        ended.append(cell.key)
        if len(ended) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(planned(), tmp_path, on_cell=stop_after_two)
    found: list[int] = []

    def cells_known(cells: Sequence[CellPlan], finished: Sequence[Cell]) -> None:
        found.append(len(finished))

    with open_run(tmp_path, {"identity": planned().identity, "command": "", "again": ""}) as store:
        listener = Listener(cells_known, ended=lambda cell: ended.append(cell.key))
        cells = run(planned(), store, RunSettings(jobs=1), listener)[0]
    assert found == [2]
    assert sorted(ended) == sorted(keys(planned()).values()), "each cell was trained once"
    assert records(cells) == records(whole[0])


def another(name: str) -> Any:
    """A value of the setting that is not the tiny spec's."""
    field, value = LrRangeSpec.model_fields[name], getattr(planned().spec, name)
    given = {
        "optimizer": "adam:beta1=0.8",
        "data": "pydoc",
        "clip_norm": 1.0,
        "heads": 4,
        "end_lr": 5.0,
        "ffn_width": 9,
        "vocab_size": 300,
        "dropout": 0.1,
        "label_smoothing": 0.1,
        "z_loss": 1e-4,
        "beam": 3,
        "length_penalty": 0.6,
    }
    if name in given:
        return given[name]
    if get_origin(field.annotation) is Literal:
        return next((choice for choice in get_args(field.annotation) if choice != value), None)
    return not value if isinstance(value, bool) else value * 2


OF_OWN_MODELS = ("set", "batch_fn", "loss_fn", "optimizer_fn", "step_fn", "from_weights", "random_init", "parallel")
OF_TRANSLATIONS = ("beam", "length_penalty", "penalized_length")
DECIDES = [
    name
    for name, field in LrRangeSpec.model_fields.items()
    if name not in ("variant", "seeds", "device", "model", "task", "kernel", *OF_OWN_MODELS)  # a decoder has one kernel
    and len(get_args(field.annotation)) != 1
]


@pytest.mark.parametrize("name", DECIDES)
def test_a_cell_has_another_key_when_a_setting_that_decides_it_differs(name: str) -> None:
    model = {"model": "encoder-decoder", "task": "translation"} if name in OF_TRANSLATIONS else {}
    base, other = planned(**model), planned(**model, **{name: another(name)})
    assert not set(keys(base).values()) & set(keys(other).values())


def test_a_cell_has_another_key_for_another_variant_option_seed_or_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    base = set(keys(planned(variant="rezero", seeds="0,")).values())
    assert base.isdisjoint(keys(planned(variant="rezero:alpha=0.5", seeds="0,")).values())
    assert base.isdisjoint(keys(planned(variant="rezero", seeds="1,")).values())
    monkeypatch.setattr("stresstest.experiments.plan.code_fingerprint", lambda: "other code")
    assert base.isdisjoint(keys(planned(variant="rezero", seeds="0,")).values())


def test_a_key_depends_on_no_other_cell_of_the_run() -> None:
    few, many = keys(planned(variant="pre-ln", seeds="1,")), keys(planned(variant="all", seeds="0,1,2"))
    assert few.items() <= many.items()
    assert keys(planned(variant="rezero:alpha=0,pre-ln:,pre-ln", seeds="1,")).items() >= few.items()
    assert planned(seeds="0,1").identity == planned(seeds="1,0", variant="pre-ln,post-ln").identity
    assert planned(seeds="2").identity != planned(seeds="3").identity


def test_the_exponential_ramp_multiplies_by_the_same_factor_each_step() -> None:
    lrs = ramp_lrs(planned(num_steps=50).spec)
    assert (lrs[0], lrs[-1], len(lrs)) == (1e-4, 10.0, 50)
    np.testing.assert_allclose(lrs[1:] / lrs[:-1], 1e5 ** (1 / 49))


@pytest.mark.parametrize("given", [{}, {"num_steps": 100}, {"num_steps": 20}])
def test_the_linear_ramp_starts_at_zero_and_rises_by_the_papers_step(given: dict[str, Any]) -> None:
    lrs = ramp_lrs(make_spec(LrRangeSpec, "quick", {"ramp": "linear"} | given))
    assert lrs[0] == 0.0
    np.testing.assert_allclose(np.diff(lrs), 5e-5, rtol=1e-6)


def test_a_ramp_that_ends_too_low_leaves_every_boundary_open_above(tmp_path: Path) -> None:
    [cell] = run_all(planned(**LEARNS, end_lr=0.05), tmp_path)
    assert cell.ramp["learned"]
    assert cell.metrics["onset_lr"] == cell.metrics["explosion_lr"] == Bracket(low=0.05, high=None)
    assert cell.metrics["steps_survived"] == Bracket(low=120, high=None)
    assert cell.metrics["max_stable_lr"] == Bracket(low=2**-5, high=None)


def test_a_ramp_that_starts_too_high_leaves_the_explosion_open_below(tmp_path: Path) -> None:
    [cell] = run_all(planned(**LEARNS, start_lr=5.0, end_lr=1e3), tmp_path)
    assert cell.metrics["explosion_lr"] == Bracket(low=None, high=5.0)
    assert "onset_lr" not in cell.metrics, "nothing was learned that could be lost"


def test_a_model_that_is_not_finite_from_the_start_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    [cell] = run_all(planned(variant="rezero:alpha=1e30", seeds="0,"), tmp_path)
    assert (cell.status, cell.error) == ("done", "")
    assert cell.ramp["outcome"] == "nonfinite"
    assert cell.metrics["max_stable_lr"].low is None


Step = Callable[[Population, Batch, Tensor], Readings]


def fail_when(monkeypatch: pytest.MonkeyPatch, condition: Callable[[Population], bool], error: Exception) -> list[int]:
    """Make `Population.step` raise where the condition holds; returns the sizes it was tried with."""
    step: Step = Population.step
    sizes: list[int] = []

    def failing(self: Population, batch: Batch, lr_R: Tensor) -> Readings:
        sizes.append(self.num_replicas)
        if condition(self):
            raise error
        return step(self, batch, lr_R)

    monkeypatch.setattr(Population, "step", failing)
    return sizes


OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def test_a_population_that_does_not_fit_is_halved_and_gives_the_same(
    whole: tuple[list[Cell], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BuiltInBench, "rows_are_cheap", True)  # so that a search trains three places at once
    sizes = fail_when(monkeypatch, lambda population: population.num_replicas > 1, OOM)
    cells = run_all(planned(), tmp_path)
    assert max(sizes) > 1
    assert records(cells) == records(whole[0])


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OOM, "oom", "CUDA out of memory"),
        (MemoryError(), "oom", "out of memory"),
        (ZeroDivisionError("in the model's own code"), "crashed", "in the model's own code"),
    ],
)
def test_a_cell_that_fails_is_no_instability_and_the_others_go_on(
    whole: tuple[list[Cell], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: str,
    said: str,
) -> None:
    first_seed = planned(seeds="0,")
    with monkeypatch.context() as patch:
        fail_when(patch, lambda population: population.model.variant.name == "post-ln", error)
        failed, done = run_all(first_seed, tmp_path)
    assert (failed.variant, failed.status, failed.metrics) == ("post-ln", status, {})
    assert said in failed.error
    assert records([done]) == records(whole[0][1:2])
    ended: list[Cell] = []
    assert records(run_all(first_seed, tmp_path, on_cell=ended.append)) == records([failed, done])
    assert not ended, "what failed is not tried again unasked"
    again = run_all(first_seed, tmp_path, on_cell=ended.append, retry_errors=True)
    assert records(again) == records(whole[0][:2])
    assert [cell.variant for cell in ended] == ["post-ln"], "what failed is tried again, and nothing else"
    assert records(run_all(first_seed, tmp_path)) == records(again), "the later record of a cell counts"


@pytest.mark.parametrize(("key", "value"), [("beta2", 0.9999999), ("eps", 1.23456789e-8), ("weight_decay", 1.0)])
def test_an_option_is_trained_with_the_value_that_was_given(key: str, value: float) -> None:
    label = planned(optimizer=f"adam:{key}={value!r}").spec.optimizer
    assert parse_choice(label, OPTIMIZERS).options == {key: value}


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"variant": "pre-lm"}, "pre-ln"), ({"optimizer": "adan"}, "adam"), ({"data": "enwiki"}, "enwik8")],
)
def test_a_plan_refuses_unknown_names(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        planned(**settings)
