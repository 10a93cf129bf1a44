"""Every built-in architecture, wired as every variant it has, trains with every optimizer, and the same way again."""

from __future__ import annotations

import pytest
import torch

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import FINITE, Training
from stresstest.engine.train import Batches
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.models.build import make_model
from stresstest.models.variants import VARIANTS
from stresstest.specs.kinds import MODELS
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task

STEPS = 10
AGAIN = 8  # past the step from which RAdam rectifies
LRS = {"sgd": 0.01, "momentum": 0.003, "nesterov": 0.003, "adagrad": 0.01, "lamb": 0.01, "radam": 3e-4}
SHAPE = {"transformer": {"depth": 2, "width": 16, "heads": 2, "seq_len": 8, "batch_size": 4}, "other": {"depth": 3}}
COMBINATIONS = [
    (model, variant)
    for model in MODELS
    for variant, entry in VARIANTS.items()
    if model not in entry.not_in and variant in (MODELS[model].has or VARIANTS)
]


def course(model: str, variant: str, optimizer: str, steps: int) -> tuple[list[list[float]], list[torch.Tensor]]:
    """Losses of two replicas over some steps on one batch, and where they are after each."""
    transformer = model in ("decoder", "encoder", "encoder-decoder")
    shape = SHAPE["transformer"] if transformer else SHAPE["other"] | {"width": 8, "batch_size": 16}
    if model == "resnet":
        shape |= {"width": 2, "batch_size": 8}
    spec = make_spec(LrRangeSpec, "quick", {"model": model, **shape})
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    batches = Batches(task, torch.device("cpu"))
    training = Training(OPTIMIZERS[optimizer], {}, torch.device("cpu"))
    population = Population(make_model(spec, variant, spec.depth, task), [0, 1], training)
    batch = batches.batch([0, 1], 0)
    population.profile(batch)
    losses, thetas = [], []
    for _ in range(steps):
        readings = population.step(
            batch, torch.full((2,), (1.0 if transformer else 0.1 if model == "mlp" else 3.0) * LRS.get(optimizer, 1e-3))
        )
        assert readings.health_R.tolist() == [FINITE, FINITE]
        losses.append(readings.loss_R.tolist())
        thetas.append(population.theta_RP.clone())
    return losses, thetas


@pytest.mark.parametrize(("model", "variant"), COMBINATIONS)
def test_it_trains_and_does_so_again(model: str, variant: str) -> None:
    for optimizer in OPTIMIZERS:
        losses, thetas = course(model, variant, optimizer, STEPS)
        for first, last in zip(losses[0], losses[-1], strict=True):
            assert last < first, (optimizer, losses)
        assert not torch.equal(*thetas[-1])
        again, same = course(model, variant, optimizer, AGAIN)
        assert losses[:AGAIN] == again, optimizer
        assert all(map(torch.equal, thetas, same)), optimizer
