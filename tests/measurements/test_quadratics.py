"""Quadratics, where the truth is known: 0.5 sum h_i theta_i^2 breaks at a learning rate of a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import spence
from torch import Tensor, nn

import stresstest
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.measurements.course import recipe
from stresstest.results.records import TRAINED, Bracket, Result
from stresstest.specs.profiles import make_spec
from stresstest.user_model.bench import user_bench
from stresstest.user_model.factory import register_callable

SPECTRUM = (10.0, 3.0, 1.0, 0.3)
LARGEST = SPECTRUM[0]
EPS = 1e12  # so large that the preconditioner is stationary also while the loss grows: eps, and nothing else
B = 0.9

# Cohen et al. 2021, App. B, and 2022: heavy ball without and with the factor 1 - beta, Nesterov, Adam.
TRUTH = {
    "sgd": 2.0 / LARGEST,
    "momentum": (2.0 + 2.0 * B) / LARGEST,
    "momentum:beta=0.5": 3.0 / LARGEST,
    "nesterov": (2.0 + 2.0 * B) / (1.0 + 2.0 * B) / LARGEST,
    f"rmsprop:eps={EPS:g}": EPS * 2.0 / LARGEST,
}


class Quadratic(nn.Module):
    """0.5 theta' H theta with a diagonal H."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn(len(SPECTRUM)))
        self.register_buffer("spectrum", torch.tensor(SPECTRUM))

    def forward(self) -> Tensor:
        assert isinstance(self.spectrum, Tensor)
        return 0.5 * (self.spectrum * self.theta.square()).sum()


def nothing(step: int, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {}


def measured(optimizer: str, **settings: object) -> Result:
    scale = EPS if "eps" in optimizer else 1.0
    defaults: dict[str, object] = {
        "seeds": 2,
        "start_lr": 1e-3 * scale,
        "end_lr": 100.0 * scale,
        "num_steps": 100,
        "hold_steps": 500,
        "hold_resolution": "quarter-octave",
        "quiet": True,
    }
    return stresstest.lr_range(
        Quadratic, batch=nothing, loss_fn=lambda model, batch: model(), optimizer=optimizer, **(defaults | settings)
    )


def per_seed(result: Result, metric: str) -> list[Bracket]:
    return [cell.metrics[metric] for cell in result.cells]


@pytest.mark.parametrize("optimizer", list(TRUTH))
def test_the_hold_brackets_the_truth_and_the_prediction_is_within_two_per_cent(optimizer: str) -> None:
    result = measured(optimizer)
    truth = TRUTH[optimizer]
    for held in per_seed(result, "max_stable_lr"):
        assert held.low is not None
        assert held.high is not None
        assert held.low <= truth <= held.high
        assert held.high / held.low == pytest.approx(2**0.25)
    for predicted in per_seed(result, "predicted_lr"):
        assert predicted.low == predicted.high
        assert predicted.low == pytest.approx(truth, rel=0.02)


def test_adam_in_its_stationary_regime_breaks_at_38_over_the_preconditioned_sharpness() -> None:
    # Held after steps that hardly move it, when the correction of the running mean, 1 - beta1^t, is 1.
    truth = EPS * (2.0 + 2.0 * B) / (1.0 - B) / LARGEST
    assert truth == pytest.approx(38.0 * EPS / LARGEST)
    with register_callable(Quadratic, {}, batch=nothing, loss_fn=lambda model, batch: model()) as name:
        spec = make_spec(LrRangeSpec, "quick", {"model": name, "optimizer": f"adam:eps={EPS:g}"})
        bench = user_bench(spec, "as-built", 1, spec.optimizer, "cpu")
        below, above = (
            [np.r_[np.full(100, 1e-3), np.full(steps, factor * truth)] for factor in factors]
            # 80: far above eps the preconditioner would grow with the loss, and bring it back.
            for steps, factors in ((300, (0.95, 0.98)), (80, (1.02, 1.05)))
        )
        outcomes = [
            [run.detector.judgement().outcome for run in recipe(bench, [(0, lrs) for lrs in each])]
            for each in (below, above)
        ]
    assert set(outcomes[0]) <= TRAINED
    assert set(outcomes[1]) == {"exploded"}


def test_at_a_constant_lr_adam_breaks_between_what_its_first_step_and_its_stationary_regime_allow() -> None:
    # Its first steps divide by 1 - beta1^t, so that they are up to ten times as large.
    result = measured(f"adam:eps={EPS:g}")
    for held, predicted in zip(per_seed(result, "max_stable_lr"), per_seed(result, "predicted_lr"), strict=True):
        assert predicted.low == pytest.approx(3.8 * EPS / LARGEST, rel=0.02)
        assert held.low is not None
        assert held.high is not None
        assert predicted.low < held.low
        assert held.high < 38.0 * EPS / LARGEST


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam", "adagrad", "lion"])
def test_the_critical_lr_is_that_of_one_step_along_the_optimizers_direction(optimizer: str) -> None:
    result = measured(optimizer, hold_steps=20)
    for cell in result.cells:
        torch.manual_seed(cell.seed)
        theta = torch.randn(len(SPECTRUM)).double()
        spectrum = torch.tensor(SPECTRUM).double()
        gradient = spectrum * theta
        direction = {"sgd": gradient, "momentum": gradient, "nesterov": (1.0 + B) * gradient}.get(
            optimizer, gradient.sign()
        )
        truth = float(2.0 * (gradient @ direction) / (direction @ (spectrum * direction)))
        found = cell.metrics["critical_lr"]
        assert found.low is not None
        assert found.high is not None
        assert found.low * 0.999 <= truth <= found.high * 1.001
        assert found.high / found.low <= 2**0.0626
        assert cell.theory["forwards"] <= 25
    if optimizer == "sgd":
        assert all(
            bracket.low is not None and bracket.low > TRUTH["sgd"] for bracket in per_seed(result, "critical_lr")
        )


@pytest.mark.parametrize("num_steps", [50, 100, 200])
def test_a_ramp_overshoots_by_a_constant_factor_at_any_speed(num_steps: int) -> None:
    # While the LR is small the loss falls, and it must first grow back. With lr = u / h the largest mode ends at
    # the sum of ln |1 - u| over the steps; on an exponential ramp that is the integral of ln |1 - u| du / u, which
    # is -Re Li2(u): zero at u = 12.6, where the threshold is 2.
    def real_dilogarithm(u: float) -> float:
        return float(np.pi**2 / 3 - 0.5 * np.log(u) ** 2 - spence(1.0 - 1.0 / u))

    overshoot = brentq(real_dilogarithm, 2.0, 100.0) / 2.0
    assert overshoot == pytest.approx(6.3, abs=0.01)
    result = measured("sgd", num_steps=num_steps, theory=False, hold_steps=20)
    step = (100.0 / 1e-3) ** (1.0 / (num_steps - 1))
    for exploded in per_seed(result, "explosion_lr"):
        assert exploded.low is not None
        ratio = exploded.low / (overshoot * TRUTH["sgd"])
        assert 1.0 / step**1.5 <= ratio <= step**1.5
