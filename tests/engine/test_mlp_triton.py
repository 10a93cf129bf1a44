"""The Triton kernel of the deep MLP, by Triton's interpreter: what autograd and torch's population compute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import BAD_GRADIENT, BAD_LOSS, FINITE
from stresstest.models.mlp_triton import TritonStack, takes
from stresstest.tasks.task import Batch
from tests.engine.native_models import EVERY, build, examples, population_of

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")  # numpy's, of the interpreter
SEEDS = (0, 1, 5)
TWO_PROGRAMS = 19  # rows of a batch: the second program has 3 of them


def losses_and_gradients(
    variant: str, by_triton: bool, dtype: torch.dtype, batch: int, **sizes: int | str
) -> tuple[Tensor, Tensor]:
    """Of parameters off their initial values: the losses, [R], and the gradients, [R, P], both in float64."""
    model = build(variant, **sizes)
    theta_RP = torch.stack([model.initial_row(seed) for seed in SEEDS])
    theta_RP += 0.1 * torch.randn(theta_RP.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    leaves = model.layout.leaves(theta_RP.float().to(dtype))
    one = examples(list(SEEDS), batch)
    if by_triton:
        model.compute_by_triton()
        loss_R = model.loss(leaves, one.inputs, one.targets)
    else:
        loss_R = model.plain_loss(leaves, one.inputs.to(dtype), one.targets)
    gradients = torch.autograd.grad(loss_R.sum(), list(leaves.values()))
    return loss_R.detach().double(), torch.cat([gradient.flatten(1) for gradient in gradients], dim=1).double()


def assert_close(variant: str, batch: int, **sizes: int | str) -> None:
    """To autograd's in float64, as near as autograd's in float32: a norm of next to nothing amplifies rounding."""
    expected_R, expected_RP = losses_and_gradients(variant, False, torch.float64, batch, **sizes)
    rounded_R, rounded_RP = losses_and_gradients(variant, False, torch.float32, batch, **sizes)
    loss_R, grad_RP = losses_and_gradients(variant, True, torch.float32, batch, **sizes)
    near_R = 2e-6 * expected_R.abs() + 3.0 * (rounded_R - expected_R).abs()
    assert ((loss_R - expected_R).abs() <= near_R).all()
    near_R = 4e-6 * expected_RP.norm(dim=1) + 3.0 * (rounded_RP - expected_RP).norm(dim=1)
    assert ((grad_RP - expected_RP).norm(dim=1) <= near_R).all()


@pytest.mark.parametrize("variant", EVERY)
def test_every_variant_has_autograds_losses_and_gradients(variant: str) -> None:
    assert_close(variant, TWO_PROGRAMS, depth=2, width=5)


@pytest.mark.parametrize("norm", ["rms-norm", "none"])
@pytest.mark.parametrize("variant", ["normformer:res_scale=true", "peri-ln", "mix-ln:post_share=0.5", "deepnorm"])
def test_every_norm_has_at_every_place(norm: str, variant: str) -> None:
    assert_close(variant, 3, depth=4, width=7, norm=norm)


@pytest.mark.parametrize(("width", "batch"), [(16, 16), (2, 1), (64, 33), (70, 5), (256, 2)])
def test_widths_of_whole_and_of_sliced_matrices_and_odd_batches(width: int, batch: int) -> None:
    assert_close("pre-ln", batch, depth=2, width=width)
    assert_close("rezero:alpha=1", batch, depth=1, width=width)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_population_trains_as_torchs_does_by_every_optimizer(optimizer: str) -> None:
    seeds = SEEDS[:2]
    by_torch, by_triton = (
        population_of(build("rezero", depth=2), seeds, optimizer, kernel=kernel, clip_norm=1.0)
        for kernel in ("torch", "triton")
    )
    lr_R = torch.tensor([1e-3, 1e-2])
    for step in range(2):
        batch = batch_of(seeds, step)
        expected, found = by_torch.step(batch, lr_R), by_triton.step(batch, lr_R)
        torch.testing.assert_close(found.loss_R, expected.loss_R, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.grad_norm_R, expected.grad_norm_R, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(by_triton.theta_RP, by_torch.theta_RP, rtol=1e-3, atol=1e-4)


def test_a_replica_is_alone_what_it_is_beside_one_that_is_not_finite() -> None:
    together = population_of(build("normformer", depth=3), SEEDS, kernel="triton")
    together.theta_RP[1, 0] = torch.inf
    alone = population_of(build("normformer", depth=3), SEEDS[2:], kernel="triton")
    for step in range(3):
        found = together.step(batch_of(SEEDS, step), torch.full((3,), 1e-2))
        expected = alone.step(batch_of(SEEDS[2:], step), torch.full((1,), 1e-2))
        assert torch.equal(found.loss_R[2:], expected.loss_R)
        assert torch.equal(found.grad_norm_R[2:], expected.grad_norm_R)
    assert torch.equal(together.theta_RP[2:], alone.theta_RP)


@pytest.mark.parametrize("kind", ["weight", "bias", "gate"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_what_is_not_finite_is_told_as_by_torch(kind: str, value: float) -> None:
    found = []
    for kernel in ("torch", "triton"):
        population = population_of(build("rezero:alpha=1", depth=3), SEEDS, kernel=kernel)
        bank = population.model.layout.banks[kind]
        population.theta_RP[1, bank.start : bank.start + bank.numel] = value
        readings = population.step(batch_of(SEEDS, 0), torch.full((3,), 1e-3))
        found.append((readings.loss_R.isfinite().tolist(), readings.health_R.tolist()))
    assert found[0] == found[1]
    assert found[0][1][::2] == [FINITE, FINITE]
    assert found[0][1][1] in (BAD_LOSS, BAD_GRADIENT)


def test_a_relu_that_is_shut_passes_no_gradient_and_one_of_nan_does() -> None:
    """As autograd's, whose derivative of ReLU is 1 where its input is not a number."""
    model = build("residual", depth=1, width=2)
    stack = TritonStack("layer-norm", list(model.wirings.values()))
    banks = {"weight": torch.zeros(1, 1, 2, 2), "bias": torch.tensor([[[-1.0, torch.nan]]])}
    for bank in banks.values():
        bank.requires_grad_()
    x = torch.ones(1, 1, 2)
    (by_bias,) = torch.autograd.grad(stack(x, banks).sum(), banks["bias"])
    plain = torch.nn.functional.relu(x @ banks["weight"][:, 0].mT + banks["bias"]) + x
    (expected,) = torch.autograd.grad(plain.sum(), banks["bias"])
    assert torch.equal(by_bias, expected)


@pytest.mark.parametrize(("width", "most_spilled"), [(32, 0), (256, 1024)])
def test_it_compiles_for_a_gpu_that_is_not_here(width: int, most_spilled: int, tmp_path: Path) -> None:
    """By a process of its own, since what is interpreted here cannot be compiled."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET")
    words = [sys.executable, "-m", "tests.engine.compiled_triton", str(width)]
    made = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    used = json.loads(made.stdout)
    assert set(used) == {"forward", "backward"}
    for one in used.values():
        assert one["shared"] <= 227 * 1024  # bytes that a program may have on an H100 or H200
        assert one["stack"] <= most_spilled
        assert one["tf32"] == 0


def test_what_it_does_not_take_is_said() -> None:
    assert takes(256, "none", "float32", "cuda") == ""
    assert "widths up to 256, and this is 257" in takes(257, "none", "float32", "cuda")
    assert "this is dyt" in takes(8, "dyt", "float32", "cuda")
    assert "float32, and the dtype is bfloat16" in takes(8, "none", "bfloat16", "cuda")


def test_on_a_cpu_it_is_for_the_interpreter_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    assert takes(8, "none", "float32", "cpu") == "the Triton kernel runs on a GPU, and the device is cpu"


def batch_of(seeds: tuple[int, ...], step: int) -> Batch:
    return examples([seed + 1000 * step for seed in seeds], 7)
