"""A deep residual MLP in a population: as if alone, bit for bit, also where updates go part by part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from stresstest.engine.optimizer import Step
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import _CACHED_PARAMETERS, Training
from stresstest.engine.train import Batches, initialise, train
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.variants import VARIANTS
from stresstest.specs.base import ModelSpec
from stresstest.tasks.images import ImageTask
from stresstest.tasks.shapes import generate_images

CPU = torch.device("cpu")
SEEDS, LRS = (0, 1, 5), (1e-3, 1e-2, 1e-4)
NAMES = [name for name, variant in VARIANTS.items() if "mlp" not in variant.not_in]


def batches_of(size: int) -> Batches:
    pixels, classes = generate_images(0, 200)
    small = pixels[:, :, ::4, ::4].reshape(200, -1)
    return Batches(ImageTask((small, classes), (small[:50], classes[:50]), size), CPU)


@pytest.fixture(scope="module")
def batches() -> Batches:
    return batches_of(7)


def populate(batches: Batches, variant: str, optimizer: str, rows: Sequence[int], depth: int, width: int) -> Population:
    spec = ModelSpec.model_validate({"model": "mlp", "depth": depth, "width": width})
    model = ResidualMlp(spec, variant, {}, batches.task.num_inputs, batches.task.num_classes)
    population = Population(model, [SEEDS[row] for row in rows], Training(OPTIMIZERS[optimizer], {}, CPU))
    initialise(population, batches, [SEEDS[row] for row in rows])
    return population


def advance(population: Population, batches: Batches, rows: Sequence[int], steps: int = 4) -> Tensor:
    lr_R = torch.tensor([LRS[row] for row in rows])
    seeds = [SEEDS[row] for row in rows]
    return torch.stack([population.step(batches.batch(seeds, step), lr_R).loss_R for step in range(steps)])


@pytest.mark.parametrize("size", [8, 20])
@pytest.mark.parametrize("depth", [1, 3, 70])
def test_where_a_row_lies_in_memory_changes_no_bit(size: int, depth: int) -> None:
    """MKL's products depend on the alignment of their matrices, and no row of these is a whole 64 bytes long."""
    batches = batches_of(size)
    together = populate(batches, "residual", "adam", range(3), depth, width=8)
    assert together.theta_RP.shape[1] % 16
    advance(together, batches, range(3))
    for row in range(3):
        alone = populate(batches, "residual", "adam", [row], depth, width=8)
        advance(alone, batches, [row])
        assert torch.equal(alone.theta_RP[0], together.theta_RP[row])


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_trains_as_if_it_were_alone(batches: Batches, name: str) -> None:
    together = populate(batches, name, "adam", range(3), depth=70, width=8)
    loss_TR = advance(together, batches, range(3))
    for row in range(3):
        alone = populate(batches, name, "adam", [row], depth=70, width=8)
        torch.testing.assert_close(
            advance(alone, batches, [row])[:, 0], loss_TR[:, row], rtol=0, atol=0, equal_nan=True
        )
        torch.testing.assert_close(alone.theta_RP[0], together.theta_RP[row], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_does_so_where_updates_go_part_by_part(batches: Batches, optimizer: str) -> None:
    together = populate(batches, "rezero", optimizer, range(3), depth=140, width=32)
    assert together.theta_RP.shape[1] > _CACHED_PARAMETERS
    advance(together, batches, range(3), 2)
    alone = populate(batches, "rezero", optimizer, [1], depth=140, width=32)
    advance(alone, batches, [1], 2)
    assert torch.equal(alone.theta_RP[0], together.theta_RP[1])


@pytest.mark.parametrize("optimizer", [name for name, entry in OPTIMIZERS.items() if entry.elementwise])
def test_an_update_part_by_part_is_the_update_of_all(batches: Batches, optimizer: str) -> None:
    population = populate(batches, "rezero", optimizer, range(2), depth=140, width=32)
    advance(population, batches, (0, 1), 1)
    theta_RP, state = population.theta_RP.clone(), {k: v.clone() for k, v in population._state.items()}
    lr_R = torch.tensor(LRS[:2])
    population._update(lr_R)
    whole = Step(
        theta_RP, population.grad_RP.clone(), lr_R[:, None], state, population._step_R1, population._decay_P, []
    )
    OPTIMIZERS[optimizer].update(whole)
    assert torch.equal(population.theta_RP, theta_RP)
    assert all(torch.equal(population._state[slot], matrix) for slot, matrix in state.items())


def test_an_optimizer_that_looks_at_whole_tensors_is_not_cut() -> None:
    assert [name for name, entry in OPTIMIZERS.items() if not entry.elementwise] == ["lamb", "muon"]


def test_evaluation_between_two_steps_changes_nothing(batches: Batches) -> None:
    straight = populate(batches, "rezero", "adam", [0], depth=70, width=8)
    checked = populate(batches, "rezero", "adam", [0], depth=70, width=8)
    expected = advance(straight, batches, [0])
    losses = []
    for step in range(4):
        losses.append(checked.step(batches.batch([0], step), torch.tensor(LRS[:1])).loss_R)
        checked.evaluate(batches.batch([3], step))
    assert torch.equal(torch.stack(losses), expected)


def test_the_training_loop_can_be_cut_anywhere(batches: Batches) -> None:
    lr_TR = np.full((10, 1), 1e-3)
    whole = populate(batches, "rezero", "adam", [0], depth=3, width=8)
    expected = np.concatenate([block.loss for block in train(whole, batches, [0], lr_TR)])
    halves = populate(batches, "rezero", "adam", [0], depth=3, width=8)
    losses = [block.loss for block in train(halves, batches, [0], lr_TR[:3])]
    losses += [block.loss for block in train(halves, batches, [0], lr_TR[3:], first_step=3)]
    np.testing.assert_array_equal(np.concatenate(losses), expected)


def test_rezero_starts_as_the_identity_and_learns(batches: Batches) -> None:
    population = populate(batches, "rezero", "adam", [0], depth=300, width=16)
    loss_T = advance(population, batches, [0], 40)[:, 0]
    assert loss_T[-5:].mean() < loss_T[:5].mean() - 0.1
