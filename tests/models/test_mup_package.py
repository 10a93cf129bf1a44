"""Our muP trains as the package mup does: mup.json is what tests/benchmarks/mup_package.py measured with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.models.block import Model
from stresstest.models.parametrization import Growth
from stresstest.tasks.task import Batch
from tests.models.mup_models import BASE, EXAMPLES, LR, STEPS, WIDTH, mlp, transformer

MODELS: dict[str, Model] = {"mlp": mlp(), "transformer": transformer()}
FOUND: dict[str, Any] = json.loads((Path(__file__).parent / "mup.json").read_text())


def more_in_the_forward_pass(model: str, kind: str) -> float:
    """How much more our form, Table 9, multiplies a tensor in the forward pass than the package's, Table 8."""
    is_end = kind in ("embedding", "unembedding") or (model, kind) == ("mlp", "output.weight")
    return float((WIDTH / BASE) ** 0.5) if is_end else 1.0


def growth(model: str, kind: str) -> Growth:
    return MODELS[model].layout.growth[kind]


@pytest.mark.parametrize("model", MODELS)
def test_initial_weights_have_the_packages_std(model: str) -> None:
    for kind, ratio in FOUND[model]["std"].items():
        assert growth(model, kind).std * more_in_the_forward_pass(model, kind) == pytest.approx(ratio, rel=0.03), kind


@pytest.mark.parametrize("model", MODELS)
def test_learning_rates_are_those_of_muadam_and_musgd(model: str) -> None:
    for kind, ratio in FOUND[model]["adam"]["lr"].items():
        assert growth(model, kind).lr("unit") * more_in_the_forward_pass(model, kind) == pytest.approx(ratio), kind
    for kind, ratio in FOUND[model]["sgd"]["lr"].items():
        factor = more_in_the_forward_pass(model, kind) ** 2
        assert growth(model, kind).lr("gradient") * factor == pytest.approx(ratio), kind


@pytest.mark.parametrize("optimizer", LR)
@pytest.mark.parametrize("model", MODELS)
def test_losses_are_the_packages_step_by_step(model: str, optimizer: str) -> None:
    options = {"eps": 1e-12} if optimizer == "adam" else {}
    training = Training(OPTIMIZERS[optimizer], dict(options), torch.device("cpu"))
    population = Population(MODELS[model], [0], training)
    inputs, targets = EXAMPLES[model]
    batch = Batch(inputs[None], targets.view(1, *inputs.shape[: 2 if model == "transformer" else 1]))
    lr_R = torch.tensor([LR[optimizer]])
    losses = [float(population.step(batch, lr_R).loss_R) for _ in range(STEPS)]
    assert losses == pytest.approx(FOUND[model][optimizer]["loss"], rel=1e-5)
