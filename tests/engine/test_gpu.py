"""On a GPU: the CPU's outcomes, and more replicas at little cost. Run with `pytest -m gpu -s`."""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Kernel, Training
from stresstest.engine.train import Batches
from stresstest.measurements.base import Bench
from stresstest.measurements.built_in import BuiltInBench
from stresstest.measurements.course import hold
from stresstest.measurements.hold import grid_lr
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.transformer import Transformer
from stresstest.models.variants import VARIANTS
from stresstest.specs.base import ModelSpec
from stresstest.specs.parsing import parse_choice
from stresstest.tasks import load_task
from tests.engine.native_models import EVERY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def bench(device: str, variant: str, kernel: Kernel = "torch") -> Bench:
    where = torch.device(device)
    training = Training(OPTIMIZERS["adam"], {}, where, kernel=kernel)
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


def mlp_bench(device: str, variant: str, kernel: Kernel = "torch") -> Bench:
    where = torch.device(device)
    task = load_task("images", "synthetic", 16, 1)
    choice = parse_choice(variant, VARIANTS)
    spec = ModelSpec(model="mlp", depth=12, width=20)
    model = ResidualMlp(spec, choice.name, choice.options, task.num_inputs, task.num_classes)
    training = Training(OPTIMIZERS["adam"], {}, where, kernel=kernel)
    return BuiltInBench(model, training, Batches(task, where))


@pytest.mark.parametrize("variant", EVERY)
def test_by_the_triton_kernel_outcomes_equal_the_cpu_s(variant: str) -> None:
    trials = [(seed, grid_lr(k)) for seed in (0, 1) for k in (-40, 8)]
    found = {
        kernel: [run.detector.judgement().outcome for run in hold(mlp_bench(device, variant, kernel), trials, 150)]
        for device, kernel in (("cpu", "torch"), ("cuda", "triton"))
    }
    assert found["triton"] == found["torch"]


def test_by_the_triton_kernel_a_replica_is_alone_what_it_is_among_neighbours() -> None:
    together, alone = mlp_bench("cuda", "rezero", "triton"), mlp_bench("cuda", "rezero", "triton")
    many, one = together.populate([0, 1, 2], [1e-3] * 3), alone.populate([1], [1e-3])
    for step in range(20):
        lr_R = torch.full((3,), 1e-3, device="cuda")
        expected = many.step(together.batches.batch([0, 1, 2], step), lr_R)
        found = one.step(alone.batches.batch([1], step), lr_R[:1])
        torch.testing.assert_close(found.loss_R, expected.loss_R[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["post-ln", "pre-ln", "rezero"])
def test_by_a_cuda_graph_a_step_is_what_it_is_without_one(variant: str) -> None:
    plain, captured = bench("cuda", variant), bench("cuda", variant, "graph")
    one, other = (which.populate([0, 1, 2], [1e-3] * 3) for which in (plain, captured))
    for step in range(12):
        lr_R = torch.full((3,), 1e-4 * (step + 1), device="cuda")
        expected = one.step(plain.batches.batch([0, 1, 2], step), lr_R)
        found = other.step(captured.batches.batch([0, 1, 2], step), lr_R)
        torch.testing.assert_close(found.loss_R, expected.loss_R, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.theta_RP, one.theta_RP, rtol=1e-3, atol=1e-4)


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
