"""Curvature and the learning rates that follow from it, against scipy, torch's own Hessian and torch.optim."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stresstest.engine.curvature import (
    CriticalLr,
    HessianProduct,
    critical_lr,
    first_step,
    largest_eigenvalue,
)
from stresstest.engine.optimizer import Stability
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import make_bench
from stresstest.measurements.theory import measure_theory
from stresstest.models.layout import Segment
from stresstest.specs.profiles import make_spec


def stability_of(name: str) -> Stability:
    found = OPTIMIZERS[name].stability
    assert found is not None
    return found


def symmetric(size: int, seed: int, shift: float = 0.0) -> Tensor:
    matrix = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (matrix + matrix.T) / 2.0 + shift * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("shift", [0.0, -30.0, 30.0])
@pytest.mark.parametrize("size", [20, 200])
def test_the_largest_eigenvalue_is_scipys_also_where_the_largest_magnitude_is_negative(size: int, shift: float) -> None:
    matrix = symmetric(size, size, shift)
    found = largest_eigenvalue(lambda v: matrix @ v, torch.zeros(size).double(), tolerance=1e-9, max_products=size)
    expected = eigsh(matrix.numpy(), k=1, which="LA")[0][0]
    assert found.value == pytest.approx(expected, rel=1e-8)
    assert found.converged
    if shift < 0:
        assert abs(np.linalg.eigvalsh(matrix.numpy())[0]) > 1.2 * abs(expected)


def test_repeated_eigenvalues_a_single_one_and_none_at_all_are_exact() -> None:
    repeated = torch.diag(torch.tensor([5.0] * 10 + [1.0] * 30)).double()
    found = largest_eigenvalue(lambda v: repeated @ v, torch.zeros(40).double())
    assert (found.value, found.products) == (pytest.approx(5.0), 2)
    assert largest_eigenvalue(lambda v: -3.0 * v, torch.zeros(1)).value == pytest.approx(-3.0)
    assert largest_eigenvalue(torch.zeros_like, torch.zeros(7)).value == 0.0


def test_many_steps_stay_orthogonal_and_do_not_invent_an_eigenvalue() -> None:
    # One eigenvalue far above a dense rest converges at once; without orthogonalisation copies of it appear, and
    # the residual of a long run is no bound any more.
    values = torch.cat([torch.linspace(0.0, 1.0, 199), torch.tensor([1e6])]).double()
    found = largest_eigenvalue(lambda v: values * v, torch.zeros(200).double(), tolerance=0.0, max_products=150)
    assert found.value == pytest.approx(1e6, rel=1e-12)
    assert found.error <= 1e-3


def test_a_product_that_is_not_finite_gives_no_eigenvalue() -> None:
    found = largest_eigenvalue(lambda v: v * torch.inf, torch.zeros(9))
    assert math.isnan(found.value)
    assert not found.converged


@pytest.mark.parametrize("scaled", [False, True])
def test_hessian_products_are_those_of_torchs_whole_hessian(scaled: bool) -> None:
    inputs = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta_P = torch.randn(5 * 4 + 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(at_P: Tensor) -> Tensor:
        return (torch.tanh(inputs @ at_P[:20].view(5, 4)) @ at_P[20:]).square().mean()

    scale_P = torch.rand(24, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) if scaled else None
    hessian = torch.autograd.functional.hessian(loss, theta_P)
    assert isinstance(hessian, Tensor)
    if scale_P is not None:
        hessian = scale_P[:, None] * hessian * scale_P
    product = HessianProduct(loss, theta_P, scale_P)
    columns = torch.stack([product(row) for row in torch.eye(24, dtype=torch.float64)])
    torch.testing.assert_close(columns, hessian)
    found = largest_eigenvalue(product, theta_P, tolerance=1e-10)
    assert found.value == pytest.approx(eigsh(hessian.numpy(), k=1, which="LA")[0][0], rel=1e-8)


@pytest.mark.parametrize("model", ["decoder", "mlp"])
def test_the_sharpness_of_a_built_in_model_is_that_of_its_whole_hessian(model: str) -> None:
    small = {"width": 4, "depth": 1, "batch_size": 2, "variant": "pre-ln" if model == "decoder" else "residual"}
    if model == "decoder":
        small |= {"heads": 2, "seq_len": 4, "ffn_width": 4}
    spec = make_spec(LrRangeSpec, "quick", {"model": model, **small})
    theta_P, loss = make_bench(spec, spec.variant[0], 1, "sgd", "cpu").objective(0)
    product = HessianProduct(loss, theta_P)
    found = largest_eigenvalue(product, theta_P, tolerance=1e-8)

    # Central differences of the gradient along the eigenvalue's neighbourhood know nothing of double backward.
    def differences(vector: np.ndarray) -> np.ndarray:
        direction, step = torch.from_numpy(vector.ravel()), 1e-6
        sides = []
        for sign in (1.0, -1.0):
            leaf = (theta_P + sign * step * direction).requires_grad_()
            sides.append(torch.autograd.grad(loss(leaf), leaf)[0])
        return ((sides[0] - sides[1]) / (2.0 * step)).numpy()

    size = theta_P.numel()
    expected = eigsh(LinearOperator((size, size), matvec=differences), k=1, which="LA", tol=1e-6)[0][0]
    assert found.value == pytest.approx(expected, rel=1e-4)


SPECTRUM = torch.tensor([10.0, 3.0, 1.0]).double()


def grows(step: Callable[[float], list[float]], lr: float) -> bool:
    sizes = step(lr)
    return sizes[-1] > 10.0 * sizes[0]


@pytest.mark.parametrize(
    ("name", "options", "build"),
    [
        ("sgd", {}, lambda p, lr: torch.optim.SGD(p, lr)),
        ("momentum", {"beta": 0.9}, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)),
        ("momentum", {"beta": 0.5}, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.5)),
        ("nesterov", {"beta": 0.9}, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True)),
    ],
)
def test_torchs_optimizers_break_within_two_per_cent_of_the_prediction(
    name: str, options: dict[str, float], build: Callable[[list[Tensor], float], torch.optim.Optimizer]
) -> None:
    predicted = stability_of(name).factor(options) / 10.0

    def sizes(lr: float) -> list[float]:
        theta = torch.ones(3, dtype=torch.float64, requires_grad=True)
        optimizer = build([theta], lr)
        found = []
        for _ in range(3000):
            optimizer.zero_grad()
            (0.5 * SPECTRUM * theta.square()).sum().backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            found.append(float(theta.detach().norm()))
            if found[-1] > 1e6:
                break
        return found

    assert not grows(sizes, 0.98 * predicted)
    assert grows(sizes, 1.02 * predicted)


def test_adam_with_a_stationary_preconditioner_breaks_within_two_per_cent_of_the_prediction() -> None:
    # Cohen et al. 2022: with v frozen, Adam is heavy ball on the running mean, preconditioned by sqrt(v) + eps.
    options = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-3}
    square = torch.tensor([4.0, 0.01, 1.0]).double()
    step = 10_000  # both corrections are 1 by then
    preconditioner = stability_of("adam").preconditioner
    assert preconditioner is not None
    p_P = preconditioner(options, {"square": square}, step)
    torch.testing.assert_close(p_P, square.sqrt() + 1e-3, rtol=1e-4, atol=0.0)
    sharpness = largest_eigenvalue(lambda v: SPECTRUM / p_P * v, torch.zeros(3).double(), tolerance=1e-10).value
    assert sharpness == pytest.approx(3.0 / 0.101, rel=1e-3)  # not the largest eigenvalue's own direction
    predicted = stability_of("adam").factor(options) / sharpness
    assert predicted == pytest.approx(38.0 / sharpness)

    def sizes(lr: float) -> list[float]:
        theta, mean, found = torch.ones(3).double(), torch.zeros(3).double(), []
        for _ in range(4000):
            mean = 0.9 * mean + 0.1 * SPECTRUM * theta
            theta = theta - lr * mean / p_P
            found.append(float(theta.norm()))
            if found[-1] > 1e6:
                break
        return found

    assert not grows(sizes, 0.98 * predicted)
    assert grows(sizes, 1.02 * predicted)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_the_first_step_is_the_optimizers_own_and_linear_in_the_lr(name: str) -> None:
    optimizer, generator = OPTIMIZERS[name], torch.Generator().manual_seed(3)
    theta_P, grad_P = (torch.randn(12, dtype=torch.float64, generator=generator) for _ in range(2))
    decay_P, segments = torch.ones(12).double(), [Segment(0, 12, 1, True, (3, 4))]
    found = first_step(optimizer, {}, theta_P, grad_P, decay_P, segments)
    reference = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(name)
    if reference is not None:
        leaf = theta_P.clone().requires_grad_()
        leaf.grad = grad_P.clone()
        reference([leaf], lr=0.25).step()
        torch.testing.assert_close(theta_P - 0.25 * found.direction_P, leaf.detach())
    assert found.direction_P.isfinite().all()
    assert float(found.direction_P @ grad_P) > 0.0
    assert set(found.state) == set(optimizer.slots)
    if optimizer.stability is None:
        assert name in ("radam", "lamb", "muon", "lion")  # which have no closed form


@pytest.mark.parametrize(("truth", "forwards"), [(3e-5, 12), (0.2, 18), (7.0, 24)])
def test_the_critical_lr_is_bracketed_wherever_it_lies_in_few_forwards(truth: float, forwards: int) -> None:
    found = critical_lr(lambda lr: 1.0 + lr * (lr - truth), 1.0)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= truth < found.high <= found.low * 2**0.0626
    assert found.forwards <= forwards


def test_a_loss_that_always_or_never_rises_or_is_not_finite_has_an_open_or_early_critical_lr() -> None:
    never = critical_lr(lambda lr: 0.0, 1.0)
    assert (never.low is not None, never.high) == (True, None)
    always = critical_lr(lambda lr: 2.0, 1.0)
    assert (always.low, always.high is not None) == (None, True)
    nonfinite = critical_lr(lambda lr: math.nan if lr > 0.5 else 0.0, 1.0)
    assert isinstance(nonfinite, CriticalLr)
    assert nonfinite.low is not None
    assert nonfinite.low <= 0.5 <= (nonfinite.high or 0.0)


@pytest.mark.parametrize(("variant", "depth"), [("pre-ln", 2), ("residual", 10)])  # the latter is lost in float32
def test_the_sharpness_is_that_of_scipy_in_float64_within_two_per_cent(variant: str, depth: int) -> None:
    small = {"width": 4, "batch_size": 2, "variant": variant, "heads": 2, "seq_len": 4, "ffn_width": 4}
    bench = make_bench(make_spec(LrRangeSpec, "quick", small), variant, depth, "adam", "cpu")
    theta_P, loss = bench.objective(0)
    theta_P.requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        (grad_P,) = torch.autograd.grad(loss(theta_P), theta_P, create_graph=True)
    scale_P = (0.1 * (grad_P.detach().abs() + 1e-8)).rsqrt()  # Adam's after one step; 3e4 where the gradient is zero

    def product(vector: np.ndarray) -> np.ndarray:
        along_P = scale_P * torch.from_numpy(vector.ravel())
        (image_P,) = torch.autograd.grad(grad_P, theta_P, along_P, retain_graph=True)
        return (scale_P * image_P).numpy()

    size = theta_P.numel()
    expected = eigsh(LinearOperator((size, size), matvec=product), k=1, which="LA", tol=1e-4)[0][0]
    [measured] = measure_theory(bench, [0])
    assert measured.metrics["sharpness"].low == pytest.approx(expected, rel=0.02)
    assert measured.metrics["predicted_lr"].low == pytest.approx(38.0 / expected, rel=0.02)


def test_a_stack_that_makes_much_of_a_rounding_has_the_critical_lr_of_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"model": "mlp", "width": 16, "batch_size": 4, "parametrization": "mup"}
    spec = make_spec(LrRangeSpec, "quick", settings | {"variant": "post-ln", "depth": 200})
    bench = make_bench(spec, "post-ln", 200, "sgd", "cpu")
    [measured] = measure_theory(bench, [3])
    monkeypatch.setattr("stresstest.measurements.theory._quick", lambda bench, theta_P: theta_P.dtype)
    [exact] = measure_theory(bench, [3])
    assert measured.metrics["critical_lr"] == exact.metrics["critical_lr"]
