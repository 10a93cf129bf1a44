"""A population by the native kernel: each replica as if alone, what is not finite as by torch, cut and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from stresstest.engine.guard import Guard
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Readings
from stresstest.errors import ConfigError
from stresstest.tasks.task import Batch
from tests.engine.native_models import CPU, NAMES, build, examples, natively, population_of

SEEDS = (0, 1, 5)
LRS = torch.tensor([1e-3, 1e-2, 1e-4])


def advance(population: Population, rows: list[int], steps: range = range(3)) -> list[Readings]:
    seeds = [SEEDS[row] for row in rows]
    return [population.step(batch_of(seeds, step), LRS[rows]) for step in steps]


def batch_of(seeds: list[int], step: int) -> Batch:
    return examples([seed + 1000 * step for seed in seeds], 7)


def assert_equal(found: list[Readings], expected: list[Readings], row: int) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.loss_R[0], other.loss_R[row])
        assert torch.equal(one.grad_norm_R[0], other.grad_norm_R[row])
        assert torch.equal(one.health_R[0], other.health_R[row])


@pytest.mark.parametrize("variant", NAMES)
@natively
def test_a_replica_trains_as_if_it_were_alone(variant: str) -> None:
    together = population_of(build(variant), SEEDS)
    expected = advance(together, [0, 1, 2])
    for row in range(3):
        alone = population_of(build(variant), [SEEDS[row]])
        assert_equal(advance(alone, [row]), expected, row)
        assert torch.equal(alone.theta_RP[0], together.theta_RP[row])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 0.1])
@natively
def test_it_does_so_by_every_optimizer_beside_one_that_is_not_finite(optimizer: str, clip_norm: float | None) -> None:
    together = population_of(build("rezero", width=17), SEEDS, optimizer, clip_norm=clip_norm)
    together.theta_RP[1, 0] = torch.inf
    expected = advance(together, [0, 1, 2])
    alone = population_of(build("rezero", width=17), [SEEDS[2]], optimizer, clip_norm=clip_norm)
    assert_equal(advance(alone, [2]), expected, 2)
    assert torch.equal(alone.theta_RP[0], together.theta_RP[2])


@natively
def test_rows_that_are_kept_and_branches_and_what_is_restored_go_on_to_the_bit() -> None:
    population = population_of(build("pre-ln"), SEEDS)
    advance(population, [0, 1, 2])
    branch = population.branch(1)
    restored = population_of(build("pre-ln"), [7, 8, 9])
    restored.restore({name: _copied(part) for name, part in population.state().items()})
    expected = advance(population, [0, 1, 2], range(3, 6))
    assert_equal(advance(branch, [1], range(3, 6)), expected, 1)
    restored.keep([2, 0])
    found = advance(restored, [2, 0], range(3, 6))
    assert_equal(found, expected, 2)
    assert torch.equal(restored.theta_RP, population.theta_RP[[2, 0]])


def _copied(part: object) -> object:
    return {slot: matrix.clone() for slot, matrix in part.items()} if isinstance(part, dict) else part.clone()


@natively
def test_the_loss_that_is_asked_for_is_the_loss_of_the_step() -> None:
    population = population_of(build("layernorm", label_smoothing=0.1), SEEDS)
    batch = batch_of(list(SEEDS), 0)
    asked_R, plain_R = population.step_loss(batch), population.evaluate(batch, as_trained=False)
    assert torch.equal(asked_R, population.step(batch, LRS).loss_R)
    assert not torch.equal(asked_R, plain_R)


@pytest.mark.parametrize("lr", [1e-2, 1e2, 1e10, 1e20, 1e30])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lion"])
@pytest.mark.parametrize("variant", ["plain", "residual", "rezero", "pre-ln", "post-ln", "layernorm", "peri-ln"])
@natively
def test_what_overflows_does_so_in_the_step_and_place_that_it_does_by_torch(
    variant: str, optimizer: str, lr: float
) -> None:
    ours, theirs = (population_of(build(variant, 6, 16), [0], optimizer, kernel) for kernel in ("native", "torch"))
    for step in range(6):
        batch = examples([step], 8)
        native, torchs = (population.step(batch, torch.tensor([lr])) for population in (ours, theirs))
        assert native.health_R.item() == torchs.health_R.item(), step
        if torchs.health_R.item():
            return


@pytest.mark.parametrize("norm", ["layer-norm", "rms-norm"])
@pytest.mark.parametrize("lr", [1e6, 1e8, 1e10, 1e13])
@natively
def test_the_gradient_of_a_final_norm_overflows_where_autograds_does(norm: str, lr: float) -> None:
    model = build("pre-ln", 6, 17, norm=norm)
    ours, theirs = (population_of(model, [0], kernel=kernel) for kernel in ("native", "torch"))
    for step in range(3):
        batch = examples([step], 8)
        native, torchs = (population.step(batch, torch.tensor([lr])) for population in (ours, theirs))
        assert native.health_R.item() == torchs.health_R.item(), step
        if torchs.health_R.item():
            return


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize("where", ["input.weight", "weight", "mlp.pre.gain", "output.bias", "inputs"])
@natively
def test_a_number_that_is_not_finite_shows_where_it_does_by_torch(where: str, value: float) -> None:
    found = []
    for kernel in ("native", "torch"):
        population = population_of(build("pre-ln", width=16), [0, 1], kernel=kernel)
        batch = examples([0, 1], 5)
        place = batch.inputs if where == "inputs" else population._leaves[where].detach()
        place[1].flatten()[0] = value
        found.append(population.step(batch, LRS[:2]))
    native, torchs = found
    assert native.health_R.tolist() == torchs.health_R.tolist()
    torch.testing.assert_close(native.loss_R, torchs.loss_R, rtol=1e-4, atol=1e-4, equal_nan=True)


@natively
def test_a_guard_leaves_out_what_it_leaves_out_by_torch() -> None:
    ours, theirs = (
        population_of(build("rezero"), [0, 1], kernel=kernel, guard=Guard()) for kernel in ("native", "torch")
    )
    bad = batch_of([0, 1], 0)
    bad.inputs[1, 0, 0] = torch.nan
    for batch in (bad, batch_of([0, 1], 1)):
        native, torchs = (population.step(batch, LRS[:2]) for population in (ours, theirs))
        assert native.skipped_R.tolist() == torchs.skipped_R.tolist()
        assert native.health_R.tolist() == torchs.health_R.tolist()
    torch.testing.assert_close(ours.theta_RP, theirs.theta_RP, rtol=1e-4, atol=1e-5)


def _reads_the_gradient(population: Population) -> None:
    population.between = lambda: population.grad_RP.mul_(2.0)


def _watches_the_pass(population: Population) -> None:
    population.within = lambda: nullcontext()


def _rounds(population: Population) -> None:
    population.training = replace(population.training, dtype=torch.bfloat16)


@pytest.mark.parametrize("disturb", [_reads_the_gradient, _watches_the_pass, _rounds])
@natively
def test_a_disturbed_step_is_what_it_is_by_torch(disturb: Callable[[Population], None]) -> None:
    ours, theirs = (population_of(build("rezero"), [0], kernel=kernel) for kernel in ("native", "torch"))
    for population in (ours, theirs):
        disturb(population)
    native, torchs = (advance(population, [0], range(1))[0] for population in (ours, theirs))
    torch.testing.assert_close(native.loss_R, torchs.loss_R)
    torch.testing.assert_close(native.grad_norm_R, torchs.grad_norm_R, rtol=1e-4, atol=1e-5)
    if disturb is not _reads_the_gradient:  # a context is there to see torch's operations
        assert torch.equal(native.loss_R, torchs.loss_R)
        assert torch.equal(ours.grad_RP, theirs.grad_RP)


def test_what_the_kernel_does_not_take_is_one_line_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match=r"kernel torch: .*norms layer-norm, rms-norm, none, and this is dyt"):
        population_of(build("pre-ln", norm="dyt"), [0])
    assert population_of(build("pre-ln", norm="dyt"), [0], kernel="torch").training.device == CPU


@natively
def test_memory_is_of_one_replica_and_given_back() -> None:
    model = build("rezero", depth=50, width=16)
    population = population_of(model, SEEDS)
    advance(population, [0, 1, 2])
    assert model.memory is not None
    assert 50 * 7 * 16 < len(model.memory) < 2 * 50 * 7 * 16
    model.release()
    assert model.memory is None
