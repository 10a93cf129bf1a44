"""Updates that are left out: against a list of the last losses and gradient norms, kept by hand."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch

from stresstest.engine.guard import Guard, Watch
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import FINITE, Training
from stresstest.engine.train import Batches
from stresstest.models.build import make_model
from stresstest.specs.base import ModelSpec
from stresstest.tasks import load_task

STEPS = 400


def _seen(rows: int, seed: int = 0) -> torch.Tensor:
    """Losses and gradient norms, [steps, rows, 2], that fall, scatter, and now and then are far out or not finite."""
    rng = np.random.default_rng(seed)
    values = 1.0 + 3.0 * np.exp(-np.arange(STEPS) / 40)[:, None, None] + 0.1 * rng.standard_normal((STEPS, rows, 2))
    values[rng.random((STEPS, rows, 2)) < 0.03] *= 4.0
    values[rng.random((STEPS, rows, 2)) < 0.01] = math.inf
    values[rng.random((STEPS, rows, 2)) < 0.01] = math.nan
    return torch.from_numpy(values).float()


def _by_hand(values: list[tuple[float, float]], sigmas: float, window: int) -> list[bool]:
    """The rule as OLMo-core's SkipStepOptimizer has it, above alone, of what was finite."""
    skipped: list[bool] = []
    kept: list[tuple[float, float] | None] = []
    for pair in values:
        before = [one for one in kept[-window:] if one is not None]
        finite = all(map(math.isfinite, pair))
        out = not finite
        if sigmas and finite and len(before) + 1 >= max(20, window // 2):
            for place in (0, 1):
                past = [one[place] for one in before]
                out |= pair[place] > statistics.fmean(past) + sigmas * statistics.stdev(past)
        skipped.append(out)
        kept.append(pair if finite else None)
    return skipped


@pytest.mark.parametrize(("sigmas", "window"), [(6.0, 128), (4.0, 40), (2.0, 24), (0.0, 128)])
def test_each_replica_leaves_out_what_a_list_of_its_own_says(sigmas: float, window: int) -> None:
    values = _seen(rows=3)
    watch = Watch(Guard(sigmas, window), torch.empty(3, 0, 2).double())
    skips = torch.stack([watch.skips(one[:, 0], one[:, 1]) for one in values])
    for row in range(3):
        expected = _by_hand([(float(a), float(b)) for a, b in values[:, row]], sigmas, window)
        assert skips[:, row].tolist() == expected
        assert any(expected)
        assert not all(expected)
    assert watch.seen_RN2.shape[1] <= window


def test_a_replica_that_is_kept_goes_on_with_what_it_has_seen() -> None:
    values = _seen(rows=3, seed=1)
    all_of_them, kept = (Watch(Guard(6.0, 64), torch.empty(3, 0, 2).double()) for _ in range(2))
    for one in values[:100]:
        all_of_them.skips(one[:, 0], one[:, 1])
        kept.skips(one[:, 0], one[:, 1])
    kept.keep(torch.tensor([2, 0]))
    for one in values[100:]:
        assert torch.equal(all_of_them.skips(one[:, 0], one[:, 1])[[2, 0]], kept.skips(one[[2, 0], 0], one[[2, 0], 1]))


@pytest.fixture
def population() -> Population:
    return _population((0, 1))


def _population(seeds: tuple[int, ...]) -> Population:
    task, spec = load_task("language", "synthetic", 4, 6), ModelSpec(depth=1, width=8, heads=2, seq_len=6)
    training = Training(OPTIMIZERS["adam"], {}, torch.device("cpu"), guard=Guard(6.0, 4))
    return Population(make_model(spec, "pre-ln", 1, task), list(seeds), training)


def test_an_update_that_is_left_out_leaves_weights_state_and_count_and_the_run_alive(population: Population) -> None:
    batches = Batches(load_task("language", "synthetic", 4, 6), torch.device("cpu"))
    lr_R = torch.full((2,), 1e-2)
    population.step(batches.batch([0, 1], 0), lr_R)
    before = {name: matrix.clone() for name, matrix in {**population.state()["optimizer"]}.items()}
    theta_RP, step_R1 = population.theta_RP.clone(), population.state()["step_R1"].clone()
    population.between = lambda: population.grad_RP[0, 3].fill_(math.inf) and None
    readings = population.step(batches.batch([0, 1], 1), lr_R)
    assert readings.skipped_R.tolist() == [True, False]
    assert readings.health_R.tolist() == [FINITE, FINITE]
    assert torch.equal(population.theta_RP[0], theta_RP[0])
    assert not torch.equal(population.theta_RP[1], theta_RP[1])
    for name, matrix in population.state()["optimizer"].items():
        assert torch.equal(matrix[0], before[name][0])
    assert (population.state()["step_R1"] - step_R1).flatten().tolist() == [0.0, 1.0]
    population.between = None
    assert population.step(batches.batch([0, 1], 2), lr_R).health_R.tolist() == [FINITE, FINITE]


def test_what_a_guard_has_seen_goes_with_a_branch_and_a_restored_state(population: Population) -> None:
    batches = Batches(load_task("language", "synthetic", 4, 6), torch.device("cpu"))
    lr_R = torch.full((2,), 1e-2)
    for step in range(6):
        population.step(batches.batch([0, 1], step), lr_R)
    alone, restored = population.branch(1), _population((0, 1))
    restored.restore(population.state())
    seen_RN2 = population.state()["seen_RN2"]
    assert seen_RN2.shape == (2, 4, 2)
    assert torch.equal(alone.state()["seen_RN2"], seen_RN2[1:])
    assert torch.equal(restored.state()["seen_RN2"], seen_RN2)
    population.keep([1])
    assert torch.equal(population.state()["seen_RN2"], alone.state()["seen_RN2"])
