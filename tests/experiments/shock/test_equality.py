"""A twin, and a shock of no dose, go on as if nothing had happened, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.errors import StoppedError
from stresstest.experiments.shock.disturbance import Disturbance
from stresstest.experiments.shock.measure import measure_shocks, plan
from stresstest.experiments.shock.table import SHOCKS, parse_shock
from stresstest.measurements.journal import Journal
from tests.experiments.shock import benches

KINDS: dict[str, dict[str, Any]] = {
    "decoder": {},
    "encoder": {"model": "encoder"},
    "encoder-decoder": {"model": "encoder-decoder"},
    "decoder with dropout": {"dropout": 0.1, "label_smoothing": 0.1},
    "admin": {"variant": "admin"},
    "micro-batches": {"accumulate": 2},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "mlp": {"model": "mlp"},
    "resnet": {"model": "resnet", "batch_size": 4},
    "own": {"own": "build"},
    "own with a counter": {"own": "counting"},
    "own in bfloat16": {"own": "half"},
    "own in two dtypes": {"own": "mixed"},
    "own optimizer": {"own": "build", "optimizer_fn": "adam"},
    "own with a counter and optimizer": {"own": "counting", "optimizer_fn": "adam"},
    "own optimizer with a closure": {"own": "build", "optimizer_fn": "lbfgs"},
    "own optimizer with an attribute": {"own": "build", "optimizer_fn": "remembers"},
    "own optimizer of two modes": {"own": "build", "optimizer_fn": "schedule_free"},
    "own optimizer inside another": {"own": "build", "optimizer_fn": "sharpness_aware"},
    "own patched": {"own": "patched", "optimizer_fn": "adam"},
    "hf": {"model": "hf:gpt2", "depth": 1, "width": 16, "seq_len": 8, "batch_size": 2},
    "own step": {"own": "counted", "step_fn": "whole_step"},
    "own loader": {"own": "build", "batch_fn": "loaded", "batch_size": 4},
}


def _is_undisturbed(settings: dict[str, Any], *disturbances: Disturbance) -> None:
    bench = benches.bench_of(benches.spec_of(**settings))
    lr_N = benches.schedule_of(0.01)
    losses, population = benches.trained(bench, lr_N)
    expected = benches.bits([losses, _numbers(population)])
    before = benches.base(bench, lr_N)
    for disturbance in disturbances:
        line = before.branch()
        line.shocked(disturbance, "dose")
        assert line.run.losses == losses
        assert benches.bits([line.run.losses, _numbers(line.population)]) == expected
    before.go(benches.TOTAL)
    assert benches.bits([before.run.losses, _numbers(before.population)]) == expected


def _numbers(population: Any) -> dict[str, Any]:
    return {key: value for key, value in population.state().items() if key != "whole"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_of_every_kind_of_model_is_the_undisturbed_run(kind: str) -> None:
    _is_undisturbed(KINDS[kind], Disturbance(), Disturbance())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_twin_of_every_optimizer_is_the_undisturbed_run(optimizer: str) -> None:
    _is_undisturbed({"model": "mlp", "optimizer": optimizer, "clip_norm": 1.0}, Disturbance())


NEUTRAL = {  # a disturbance that is there, and changes nothing
    "lr-pulse": (1.0, {"steps": 3.0}),
    "bad-batch": (0.0, {}),
    "lost-moments": None,
    "schedule-restart": None,
    "data-order": (0.0, {}),
    "dropped-updates": (0.0, {}),
    "bit-flip": (0.0, {"where": "weight"}),
    "weight-noise": (0.0, {}),
    "half-precision": (0.0, {}),
    "tiny-batch": (3.0, {"size": 8.0}),
    "shift": (1.0, {"data": "synthetic"}),
}


def _neutral(name: str) -> list[Disturbance]:
    shock = SHOCKS[name]
    there = NEUTRAL[name]
    none = [shock.at(shock.dose.none, {}), parse_shock(name).at(shock.dose.none)]
    if there is None:
        return none
    dose, options = there
    return [*none, shock.make(dose, **options)]


@pytest.mark.parametrize("name", SHOCKS)
@pytest.mark.parametrize("settings", [{"dropout": 0.1, "batch_size": 8}, {"own": "counting"}], ids=["decoder", "own"])
def test_no_dose_of_a_shock_is_the_undisturbed_run(name: str, settings: dict[str, Any]) -> None:
    found = _neutral(name)
    if "own" in settings and name == "shift":
        settings = {"own": f"{benches.ON_TEXT}:build"}
    _is_undisturbed(settings, *found)


def test_the_loss_of_a_disturbed_step_is_that_of_the_weights_that_are_trained() -> None:
    _is_undisturbed(KINDS["own optimizer of two modes"], *_neutral("tiny-batch"))


@pytest.mark.parametrize("where", ["gradient", "activation"])
@pytest.mark.parametrize("kind", ["mlp", "resnet", "decoder", "own with a counter and optimizer"])
def test_a_step_in_which_no_bit_flips_is_the_undisturbed_one(where: str, kind: str) -> None:
    _is_undisturbed(KINDS[kind], SHOCKS["bit-flip"].make(0.0, where=where))


class Stops(Journal):
    """A journal of a process that is asked to stop after so many blocks of steps."""

    def __init__(self, path: Path, blocks: int) -> None:
        super().__init__(path)
        self._left = blocks

    def offer(self, key: str, state: Callable[[], Any]) -> None:
        self._left -= 1
        if not self._left:
            self._save(key, state)
            raise StoppedError


def test_what_is_stopped_and_taken_up_again_gives_the_same(tmp_path: Path) -> None:
    spec = benches.spec_of(model="mlp", shock=("lr-pulse:factor=4", "bit-flip"), after=25, train_steps=60, peak_lr=0.01)
    cells = [cell for cell in plan(spec).cells if cell.seed == 0 and cell.variant == spec.variant[0]]
    whole = measure_shocks(benches.bench_of(spec), spec, cells)
    found, times = None, 0
    while found is None:
        bench = replace(benches.bench_of(spec), journal=Stops(tmp_path / "journal.pt", 25))
        try:
            found = measure_shocks(bench, spec, cells)
        except StoppedError:
            times += 1
    assert times > 1
    for one, other in zip(whole, found, strict=True):
        assert (one.metrics, one.records) == (other.metrics, other.records)
        assert benches.bits({name: torch.from_numpy(curve) for name, curve in one.curves.items()}) == benches.bits(
            {name: torch.from_numpy(curve) for name, curve in other.curves.items()}
        )
