"""Theory knows that a parametrization gives parameters their own learning rates: P^-1 becomes scale P^-1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench
from stresstest.measurements.theory import measure_theory
from stresstest.specs.profiles import make_spec

SHAPE = {"width": 16, "base_width": 4, "heads": 2, "seq_len": 4, "batch_size": 2, "base_depth": 1}


def bench_of(optimizer: str) -> Bench:
    settings = SHAPE | {"variant": "pre-ln", "parametrization": "completep", "optimizer": optimizer}
    return make_bench(make_spec(LrRangeSpec, "quick", settings), "pre-ln", 2, optimizer, "cpu")


def largest(bench: Bench, scale_P: Tensor) -> float:
    """The largest eigenvalue of scale^1/2 H scale^1/2 by power iteration."""
    theta_P, loss = bench.objective(0)
    theta_P.requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        (grad_P,) = torch.autograd.grad(loss(theta_P), theta_P, create_graph=True)
    vector_P = torch.randn(len(theta_P), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    size = 0.0
    for _ in range(100):
        vector_P = vector_P / vector_P.norm()
        (image_P,) = torch.autograd.grad(grad_P, theta_P, scale_P.sqrt() * vector_P, retain_graph=True)
        image_P = scale_P.sqrt() * image_P
        size, vector_P = float(image_P @ vector_P), image_P
    return size


def test_of_gradient_descent() -> None:
    bench = bench_of("sgd")
    lr_P = bench.model.layout.scales("gradient").lr_P
    assert lr_P is not None
    found = measure_theory(bench, [0])[0].metrics["predicted_lr"]
    assert found.low == pytest.approx(2.0 / largest(bench, lr_P.double()), rel=0.01)
    assert found.low != pytest.approx(2.0 / largest(bench, torch.ones_like(lr_P).double()), rel=0.1)


def test_of_adams_first_preconditioner_with_its_scaled_eps() -> None:
    eps = 1e-2  # so large that its scale counts
    bench = bench_of(f"adam:eps={eps}")
    lr_P, eps_P = bench.model.layout.scales("unit")
    assert lr_P is not None
    assert eps_P is not None
    theta_P, loss = bench.objective(0)
    grad_P = torch.autograd.functional.jacobian(loss, theta_P)
    preconditioner_P = 0.1 * (grad_P.abs() + eps * eps_P)  # 1 - beta1 of the first step
    found = measure_theory(bench, [0])[0].metrics["predicted_lr"]
    assert found.low == pytest.approx(38.0 / largest(bench, lr_P.double() / preconditioner_P), rel=0.01)
