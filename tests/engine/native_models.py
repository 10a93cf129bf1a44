"""What the tests of the native kernel share: small models off their initial values, and examples."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec

import pytest
import torch
from torch import Tensor

from stresstest.engine import native
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.errors import ConfigError
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.variants import VARIANTS
from stresstest.specs.base import ModelSpec
from stresstest.specs.parsing import parse_choice
from stresstest.tasks.task import Batch

CPU = torch.device("cpu")
NUM_INPUTS, NUM_CLASSES = 6, 3
NAMES = [name for name, variant in VARIANTS.items() if "mlp" not in variant.not_in]
EVERY = [*NAMES, "normformer:res_scale=true", "rezero:alpha=1", "mix-ln:post_share=0.5"]

P = ParamSpec("P")


def natively(test: Callable[P, None]) -> Callable[P, None]:
    """The test with the kernel; without a compiler, that asking for the kernel names the reason."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if native.ready():
            test(*args, **kwargs)
            return
        with pytest.raises(ConfigError, match=re.escape(native.why_not())):
            population_of(build("rezero"), [0], kernel="native")

    return run


def build(
    variant: str,
    depth: int = 4,
    width: int = 5,
    inputs: int = NUM_INPUTS,
    classes: int = NUM_CLASSES,
    **settings: str | float,
) -> ResidualMlp:
    choice = parse_choice(variant, VARIANTS)
    spec = ModelSpec.model_validate({"model": "mlp", "depth": depth, "width": width, **settings})
    return ResidualMlp(spec, choice.name, choice.options, inputs, classes)


def population_of(
    model: ResidualMlp,
    seeds: Sequence[int],
    optimizer: str = "adam",
    kernel: str = "native",
    options: Mapping[str, float] | None = None,
    jitter: float = 0.1,
    **training: object,
) -> Population:
    """Replicas whose biases, gains and gates are off zero and one, each by its seed."""
    settings = Training(OPTIMIZERS[optimizer], dict(options or {}), CPU, kernel=kernel, **training)  # type: ignore[arg-type]
    population = Population(model, seeds, settings)
    for row, seed in zip(population.theta_RP, seeds, strict=True):
        row += jitter * torch.randn(row.shape, generator=torch.Generator().manual_seed(seed + 100))
    return population


def examples(seeds: Sequence[int], batch: int, inputs: int = NUM_INPUTS, classes: int = NUM_CLASSES) -> Batch:
    """A batch of each replica, by its seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    inputs_RBI = torch.stack([torch.randn(batch, inputs, generator=generator) for generator in generators])
    targets_RB = torch.stack([torch.randint(classes, (batch,), generator=generator) for generator in generators])
    return Batch(inputs_RBI, targets_RB)


def autograd(population: Population, batch: Batch) -> tuple[Tensor, Tensor]:
    """Losses [R] and gradients [R, P] in float64, by plain operations and torch's own derivatives."""
    model = population.model
    assert isinstance(model, ResidualMlp)
    leaves = model.layout.leaves(population.theta_RP.double())
    loss_R = model.plain_loss(leaves, batch.inputs.double(), batch.targets, as_trained=True)
    gradients = torch.autograd.grad(loss_R.sum(), list(leaves.values()))
    return loss_R.detach(), torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
