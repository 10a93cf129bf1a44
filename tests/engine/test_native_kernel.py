"""The native kernel's losses, gradients and updates against autograd in float64 and the optimizers by torch."""

from __future__ import annotations

import pytest
import torch

from stresstest.engine.native.mlp import Rows
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.tasks.task import Batch
from tests.engine.native_models import EVERY, NAMES, autograd, build, examples, natively, population_of

SIZES = [  # width, batch, inputs, classes
    (2, 1, 1, 2),
    (3, 3, 5, 2),
    (16, 32, 16, 10),
    (17, 33, 40, 17),
    (31, 8, 7, 3),
    (32, 257, 33, 10),
    (48, 20, 64, 16),
    (100, 7, 15, 101),
    (300, 9, 129, 4),
]
UPDATED = [name for name, entry in OPTIMIZERS.items() if entry.elementwise]


def assert_the_derivative(population: Population, batch: Batch, tolerance: float = 2e-5) -> None:
    """Loss and gradient of each bank are autograd's, up to float32's rounding of the largest of the bank."""
    loss_R, grad_RP = autograd(population, batch)
    found_R = population._backward(batch, None)
    torch.testing.assert_close(found_R.double(), loss_R, rtol=tolerance, atol=tolerance)
    model = population.model
    assert isinstance(model, ResidualMlp)
    for kind, bank in model.layout.banks.items():
        expected, found = bank.view(grad_RP), bank.view(population.grad_RP).double()
        assert (found - expected).abs().max() <= tolerance * (expected.abs().max() + grad_RP.abs().max() / 100), kind
        assert expected.abs().max() > 0, kind


@pytest.mark.parametrize("norm", ["layer-norm", "rms-norm", "none"])
@pytest.mark.parametrize("variant", EVERY)
@natively
def test_the_gradients_of_every_variant_and_norm_are_autograds(variant: str, norm: str) -> None:
    model = build(variant, depth=4, width=19, norm=norm)
    assert_the_derivative(population_of(model, [0, 1]), examples([0, 1], 11))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("variant", ["rezero", "layerscale", "admin", "peri-ln"])
@natively
def test_they_are_so_at_every_width_and_batch(variant: str, size: tuple[int, int, int, int]) -> None:
    width, batch, inputs, classes = size
    model = build(variant, 2, width, inputs, classes)
    assert_the_derivative(population_of(model, [3]), examples([3], batch, inputs, classes), 1e-4)


@pytest.mark.parametrize(("depth", "width"), [(1, 8), (150, 8), (10_000, 4)])
@natively
def test_they_are_so_at_every_depth(depth: int, width: int) -> None:
    population = population_of(build("rezero", depth, width), [0], jitter=0.002)
    assert_the_derivative(population, examples([0], 3), 1e-3)


@pytest.mark.parametrize("settings", [{"label_smoothing": 0.2}, {"parametrization": "completep", "base_depth": 2}])
@natively
def test_smoothed_labels_and_parametrizations_are_in_it(settings: dict[str, str | float]) -> None:
    model = build("pre-ln", width=20, **settings)
    assert_the_derivative(population_of(model, [0, 1]), examples([0, 1], 6))


@natively
def test_the_micro_batches_of_a_step_add_up_to_its_batch() -> None:
    batch = examples([0, 1], 10)
    whole, parts = (population_of(build("pre-ln"), [0, 1], micro_batch=size) for size in (None, 4))
    assert_the_derivative(parts, batch)
    torch.testing.assert_close(parts._backward(batch, None), whole._backward(batch, None))


@pytest.mark.parametrize("parametrization", ["sp", "completep"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", UPDATED)
@natively
def test_every_update_is_that_of_torchs_operations(optimizer: str, weight_decay: float, parametrization: str) -> None:
    model = build("layerscale", width=19, parametrization=parametrization, base_width=8, base_depth=2)
    options = {"weight_decay": weight_decay}
    ours, theirs = (population_of(model, [0, 1], optimizer, kernel, options) for kernel in ("native", "torch"))
    lr_R, generator = torch.tensor([1e-3, 1e-1]), torch.Generator().manual_seed(5)
    for _ in range(12):
        theirs.grad_RP.normal_(generator=generator)
        ours.grad_RP.copy_(theirs.grad_RP)
        ours._update(lr_R)
        theirs._update(lr_R)
        torch.testing.assert_close(ours.theta_RP, theirs.theta_RP, rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(ours.grad_RP, theirs.grad_RP, rtol=1e-6, atol=1e-6)
    for slot, matrix in theirs._state.items():
        torch.testing.assert_close(ours._state[slot], matrix, rtol=1e-5, atol=1e-6)
    assert torch.equal(ours._step_R1, theirs._step_R1)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@natively
def test_weight_decay_of_every_parameter_is_that_of_torchs_operations(optimizer: str) -> None:
    """C++ has that of matrices alone: torch updates."""
    options, batch = {"weight_decay": 0.5, "decay_all": True}, examples([0, 1], 7)
    ends = []
    for kernel in ("native", "torch"):
        population = population_of(build("post-ln"), [0, 1], optimizer, kernel, options)
        population.step(batch, torch.full((2,), 0.1))
        ends.append(population.theta_RP)
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_lamb_alone_is_updated_by_torch() -> None:
    assert [name for name in OPTIMIZERS if name not in UPDATED] == ["lamb", "muon"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("variant", ["rezero", "layernorm", "sandwich-ln"])
@natively
def test_a_step_in_one_pass_is_gradient_norm_and_update_to_the_bit(variant: str, optimizer: str) -> None:
    model = build(variant, width=18)
    at_once, in_parts = (population_of(model, [0, 1], optimizer, clip_norm=limit) for limit in (None, 1e30))
    assert at_once._pauses(5) < in_parts._pauses(5)
    for step in range(3):
        ours, theirs = (p.step(examples([step, 9], 5), torch.full((2,), 1e-2)) for p in (at_once, in_parts))
        assert torch.equal(ours.loss_R, theirs.loss_R)
        assert torch.equal(ours.grad_norm_R, theirs.grad_norm_R)
    assert torch.equal(at_once.theta_RP, in_parts.theta_RP)
    assert torch.equal(at_once.grad_RP, in_parts.grad_RP)
    assert all(torch.equal(matrix, in_parts._state[slot]) for slot, matrix in at_once._state.items())


@pytest.mark.parametrize("variant", NAMES)
@natively
def test_training_goes_as_by_torchs_operations(variant: str) -> None:
    model = build(variant, depth=6, width=16)
    ours, theirs = (population_of(model, [0, 1], kernel=kernel) for kernel in ("native", "torch"))
    for step in range(10):
        batch, lr_R = examples([step, step + 50], 8), torch.full((2,), 1e-3)
        native, torchs = ours.step(batch, lr_R), theirs.step(batch, lr_R)
        torch.testing.assert_close(native.loss_R, torchs.loss_R, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(native.grad_norm_R, torchs.grad_norm_R, rtol=2e-3, atol=1e-4)


@natively
def test_the_norm_of_a_gradient_is_that_of_its_row_and_overflows_with_it() -> None:
    population = population_of(build("pre-ln", width=20), [0, 1, 2])
    population.grad_RP.normal_()
    population.grad_RP[1] *= 1e19
    population.grad_RP[2, -1] = torch.nan
    native = population._passes
    assert native is not None
    found_R = native.norms(Rows(population.theta_RP, population.grad_RP))
    torch.testing.assert_close(found_R, torch.linalg.vector_norm(population.grad_RP, dim=1), equal_nan=True)
    assert found_R.isfinite().tolist() == [True, False, False]


@natively
def test_a_class_that_the_model_does_not_have_has_no_loss() -> None:
    population, batch = population_of(build("rezero"), [0, 1]), examples([0, 1], 4)
    batch.targets[1, 2] = 3
    assert population.evaluate(batch).isfinite().tolist() == [True, False]
