"""Schedules equal torch's and fairseq's, and every entry keeps to what the module promises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.optim import lr_scheduler

from stresstest.engine.schedules import DECAYS, WARMUPS, schedule
from stresstest.errors import ConfigError

N = 40


def torch_lrs(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], steps: int = N) -> NDArray[np.float64]:
    """The learning rate that torch has at each step, of a peak of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(found)


@pytest.mark.parametrize(
    ("decay", "make"),
    [
        ("constant", lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ("linear", lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, N)),
        ("linear:end_share=0.2", lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, N)),
        ("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, N)),
        ("cosine:end_share=0.1", lambda o: lr_scheduler.CosineAnnealingLR(o, N, eta_min=0.1)),
        ("polynomial", lambda o: lr_scheduler.PolynomialLR(o, N, power=2.0)),
        ("polynomial:power=0.5", lambda o: lr_scheduler.PolynomialLR(o, N, power=0.5)),
        ("step", lambda o: lr_scheduler.MultiStepLR(o, [20, 30], 0.1)),
        ("step:first_share=0.2,to_share=0.5", lambda o: lr_scheduler.MultiStepLR(o, [8, 30], 0.5)),
        ("step:second_share=0", lambda o: lr_scheduler.MultiStepLR(o, [20], 0.1)),
        ("step:first_share=0,second_share=0", lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ],
)
@pytest.mark.parametrize("warmup", ["none", "linear"])
def test_a_decay_without_a_warm_up_equals_torchs(
    decay: str, make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], warmup: str
) -> None:
    for steps in (0, 1):
        np.testing.assert_allclose(schedule(warmup, steps, decay, N), torch_lrs(make), rtol=1e-9, atol=1e-12)


def test_a_linear_warm_up_and_a_cosine_decay_equal_torchs_in_a_row() -> None:
    def make(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        warmup = lr_scheduler.LinearLR(optimizer, 1 / 8, 1.0, 7)
        return lr_scheduler.SequentialLR(optimizer, [warmup, lr_scheduler.CosineAnnealingLR(optimizer, N - 7)], [7])

    np.testing.assert_allclose(schedule("linear", 8, "cosine", N), torch_lrs(make), rtol=1e-9)


def test_an_exponential_warm_up_multiplies_by_torchs_factor() -> None:
    factor = 0.01 ** (-1 / 10)
    grown = torch_lrs(lambda o: lr_scheduler.ExponentialLR(o, factor), 11)
    np.testing.assert_allclose(schedule("exponential", 10, "constant", N)[:10], 0.01 * grown[1:], rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_inverse_sqrt_is_fairseqs_and_with_since_the_other_normalisation(steps: int) -> None:
    t = np.arange(1, N + 1)
    fairseq = np.where(t < steps, t / steps, np.sqrt(steps) * t**-0.5)  # decay_factor = lr * sqrt(warmup_updates)
    np.testing.assert_allclose(schedule("linear", steps, "inverse-sqrt", N), fairseq, rtol=1e-12)
    other = np.minimum(np.minimum(1.0, t / steps), np.sqrt(16 / t))  # lr_max * min(t/T, sqrt(T0/t))
    np.testing.assert_allclose(schedule("linear", steps, "inverse-sqrt:since=16", N), other, rtol=1e-12)


def test_without_a_warm_up_fairseqs_inverse_sqrt_is_63_times_smaller_at_step_4000() -> None:
    lrs = schedule("linear", 1, "inverse-sqrt", 4000)
    assert lrs[0] == 1.0
    assert 1 / lrs[-1] == pytest.approx(63, abs=0.5)


@pytest.mark.parametrize("warmup", [name for name in WARMUPS if name != "none"])
@pytest.mark.parametrize("decay", DECAYS)
def test_a_schedule_rises_to_the_peak_and_never_rises_again(warmup: str, decay: str) -> None:
    lrs = schedule(warmup, 10, decay, N)
    assert len(lrs) == N
    assert lrs[9] == pytest.approx(1.0)
    assert np.all(np.diff(lrs[:10]) > 0)
    assert np.all(np.diff(lrs[9:]) <= 0)
    assert np.all(lrs > 0), "the first step trains, and so does the last"


@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("decay", DECAYS)
def test_one_step_of_warm_up_is_none(warmup: str, decay: str) -> None:
    none = schedule("none", 25, decay, N)
    np.testing.assert_array_equal(schedule(warmup, 0, decay, N), none)
    np.testing.assert_array_equal(schedule(warmup, 1, decay, N), none)
    assert none[0] == 1.0


def test_the_shapes_of_warm_up_are_in_order() -> None:
    lrs = {name: schedule(name, 20, "constant", N)[9] for name in WARMUPS}
    assert lrs == pytest.approx(
        {"none": 1.0, "linear": 0.5, "exponential": 0.1, "cosine": 0.5, "inverse-sqrt": np.sqrt(0.5)}
    )
    assert schedule("cosine", 20, "constant", N)[4] == pytest.approx((1 - np.cos(np.pi / 4)) / 2)


@pytest.mark.parametrize("wrong", ["sine", "exponential:end=1", "exponential:start_share=1"])
def test_an_unknown_warm_up_or_option_is_a_config_error(wrong: str) -> None:
    with pytest.raises(ConfigError):
        schedule(wrong, 10, "constant", N)
