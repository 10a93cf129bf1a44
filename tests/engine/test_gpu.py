"""On a GPU: the CPU's outcomes, and more replicas at little cost. Run with `pytest -m gpu -s`."""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.engine.train import Batches
from stresstest.measurements.base import Bench
from stresstest.measurements.built_in import BuiltInBench
from stresstest.measurements.course import hold
from stresstest.measurements.hold import grid_lr
from stresstest.models.transformer import Transformer
from stresstest.specs.base import ModelSpec
from stresstest.tasks import load_task

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def bench(device: str, variant: str) -> Bench:
    where = torch.device(device)
    training = Training(OPTIMIZERS["adam"], {}, where)
    return BuiltInBench(
        Transformer(ModelSpec(), variant, {}), training, Batches(load_task("language", "synthetic", 8, 64), where)
    )


def outcomes(device: str, variant: str) -> list[str]:
    """Of two seeds, each far below and far above the edge."""
    trials = [(seed, grid_lr(k)) for seed in (0, 1) for k in (-40, 8)]
    return [run.detector.judgement().outcome for run in hold(bench(device, variant), trials, 150)]


@pytest.mark.parametrize("variant", ["post-ln", "pre-ln", "rezero"])
def test_outcomes_far_from_the_edge_equal_the_cpu_s(variant: str) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        assert outcomes("cuda", variant) == outcomes("cpu", variant)


@pytest.mark.parametrize("variant", ["post-ln", "pre-ln", "rezero"])
def test_with_the_gpu_s_own_attention_kernel_the_same_runs_train(variant: str) -> None:
    """How the others break may differ: with attention logits of some 1e8 the backward of CUDA's memory-efficient
    kernel returns gradients of 1e34, and a loss that was exploding becomes non-finite."""
    trains = {device: [outcome == "stable" for outcome in outcomes(device, variant)] for device in ("cpu", "cuda")}
    assert trains["cuda"] == trains["cpu"] == [True, False, True, False]


def test_throughput_over_replicas_is_printed() -> None:
    shared = bench("cuda", "pre-ln")
    for replicas in (1, 4, 16, 64):
        seeds = list(range(replicas))
        population = Population(shared.model, seeds, shared.training)
        lr_R = torch.full((replicas,), 1e-3, device="cuda")
        for step in range(10):
            population.step(shared.batches.batch(seeds, step), lr_R)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for step in range(50):
            readings = population.step(shared.batches.batch(seeds, step), lr_R)
        torch.cuda.synchronize()
        milliseconds = (time.perf_counter() - started) * 1000 / 50
        print(f"R = {replicas:3d}: {milliseconds:7.2f} ms a step, {milliseconds / replicas:7.3f} ms a replica")
        assert bool(readings.loss_R.isfinite().all())
