"""The sizes of logits that a run ends with, against attention written out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.engine.logit_sizes import logit_sizes
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.engine.train import VALIDATION_BATCHES, Batches
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import make_bench
from stresstest.models.build import make_model
from stresstest.specs.base import ModelSpec
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from stresstest.tasks.task import VALIDATION

CPU = torch.device("cpu")
SEEDS = [3, 4]
TASKS = {"decoder": "language", "encoder": "masked-language", "encoder-decoder": "translation"}


def trained(
    model: str = "decoder", micro_batch: int | None = None, depth: int = 2, **settings: Any
) -> tuple[Population, Batches]:
    """Two replicas with weights and gains off their start, and their task."""
    task = load_task(TASKS[model], "synthetic", 4, 12)
    spec = ModelSpec(model=model, depth=depth, width=16, heads=2, seq_len=12, **settings)
    training = Training(OPTIMIZERS["adam"], {}, CPU, micro_batch=micro_batch)
    population = Population(make_model(spec, "pre-ln", depth, task), SEEDS, training)
    noise_RP = torch.randn(population.theta_RP.shape, generator=torch.Generator().manual_seed(0))
    population.theta_RP.add_(0.3 * noise_RP)
    return population, Batches(task, CPU)


def first_block(population: Population, inputs: Tensor, row: int) -> float:
    """The largest product of a query and a key of the first block, as far as a position sees."""
    spec, layout = population.model.spec, population.model.layout
    p = {key: tensor[row] for key, tensor in layout.unbind(layout.views(population.theta_RP)).items()}
    x = population.model.embed({("embedding", 0): p["embedding", 0][None]}, inputs[row][None])[0]
    x = F.layer_norm(x, (16,), p["attention.pre.gain", 1], p["attention.pre.bias", 1])
    q, k = (x @ p["qkv.weight", 1][i].T + p["qkv.bias", 1][i] for i in (0, 1))
    q, k = (part.view(*part.shape[:2], spec.heads, -1).transpose(1, 2) for part in (q, k))
    logits = q @ k.mT / math.sqrt(16 / spec.heads)
    return float(logits.tril().abs().max())


def test_of_one_block_they_are_those_of_attention_and_softmax_by_hand() -> None:
    population, batches = trained(depth=1)
    drawn = [batches.batch(SEEDS, step, VALIDATION) for step in range(VALIDATION_BATCHES)]
    for row, found in enumerate(logit_sizes(population, batches, SEEDS)):
        largest = max(first_block(population, batch.inputs, row) for batch in drawn)
        assert found["max_attention_logit"] == pytest.approx(largest, rel=1e-5)
        log_z = torch.stack([population.logits(batch.inputs)[row].double().exp().sum(1).log() for batch in drawn])
        assert found["log_z_rms"] == pytest.approx(float(log_z.square().mean().sqrt()), rel=1e-5)


@pytest.mark.parametrize("model", TASKS)
def test_each_replica_has_its_own_whatever_the_micro_batch(model: str) -> None:
    population, batches = trained(model)
    both = logit_sizes(population, batches, SEEDS)
    assert both[0] != both[1]
    for micro_batch in (1, 2):
        for found, expected in zip(logit_sizes(*trained(model, micro_batch), SEEDS), both, strict=True):
            assert found == pytest.approx(expected, rel=1e-5)
    population.keep([1])
    assert logit_sizes(population, batches, SEEDS[1:])[0] == pytest.approx(both[1], rel=1e-6)


def test_only_outputs_that_are_asked_for_count() -> None:
    population, batches = trained("encoder")
    squares: list[float] = []
    for step in range(VALIDATION_BATCHES):
        batch = batches.batch(SEEDS, step, VALIDATION)
        log_z = population.logits(batch.inputs)[0].double().logsumexp(1)
        squares += log_z[batch.targets[0].flatten() >= 0].square().tolist()
    found = logit_sizes(population, batches, SEEDS)[0]["log_z_rms"]
    assert found == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-5)


def test_queries_and_keys_that_are_twice_as_large_have_four_times_the_logits_but_with_a_norm() -> None:
    for qk_norm, times in ((False, 4.0), (True, 1.0)):
        sizes = []
        for factor in (1.0, 2.0):
            population, batches = trained(qk_norm=qk_norm)
            banks = population.model.layout.views(population.theta_RP)
            for kind in ("qkv.weight", "qkv.bias"):
                banks[kind][:, :1, :2] *= factor
                banks[kind][:, 1:, :2] = 0.0
            sizes.append(logit_sizes(population, batches, SEEDS)[0]["max_attention_logit"])
        assert sizes[1] / sizes[0] == pytest.approx(times, rel=1e-2)


def test_what_is_not_finite_is_left_out() -> None:
    population, batches = trained()
    population.theta_RP[0] = math.nan
    broken, whole = logit_sizes(population, batches, SEEDS)
    assert broken == {}
    assert set(whole) == {"max_attention_logit", "log_z_rms"}


@pytest.mark.parametrize(("model", "there"), [("decoder", True), ("mlp", False)])
def test_a_bench_gives_them_of_transformers(model: str, there: bool) -> None:
    shape = {"width": 16, "depth": 1, "device": "cpu", "seeds": "1"}
    bench = make_bench(make_spec(LrRangeSpec, "quick", {"model": model} | shape), "residual", 1, "adam", "cpu")
    population = bench.populate([0], [1.0])
    scores = bench.scores(population, [0], torch.ones(1).numpy())[0]
    assert ("max_attention_logit" in scores) == ("log_z_rms" in scores) == there
