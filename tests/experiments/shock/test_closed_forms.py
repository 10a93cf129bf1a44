"""Shocks of a quadratic, beside what becomes of it on paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from stresstest.experiments.plan import canonical
from stresstest.experiments.shock.measure import measure_shocks
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench, CellPlan, Measurement

H = np.array([1.0, 0.25])  # of bowl.py
BASELINE = 2.0
AFTER, TOTAL = 30, 100
LAST = 30
SEEDS = (0, 1, 2)
SHARP = 0.02, 0.05, 0.1  # lr h of the sharper of the two


def spec_of(optimizer: str, shock: str) -> ShockSpec:
    model = f"{Path(__file__).with_name('bowl.py')}:build"
    found: ShockSpec = canonical(
        ShockSpec(
            model=model, variant=("as-built",), optimizer=optimizer, shock=(shock,), after=AFTER, train_steps=TOTAL
        )
    )
    return found


def measured(
    optimizer: str, shock: str, lr: float, seeds: Sequence[int] = SEEDS, guard: str = ""
) -> list[tuple[np.ndarray, Measurement]]:
    """Where each seed begins, and what was measured of its shock."""
    spec = spec_of(optimizer, shock)
    bench = make_bench(spec, "as-built", spec.depth, optimizer, "cpu")
    cells = [
        CellPlan(f"{s}", "as-built", spec.depth, s, {"shock": shock, "guard": guard, "peak_lr": lr}) for s in seeds
    ]
    return [
        (start_of(bench, cell.seed), one) for cell, one in zip(cells, measure_shocks(bench, spec, cells), strict=True)
    ]


def start_of(bench: Bench, seed: int) -> np.ndarray:
    return np.array(bench.populate([seed], [0.1]).theta_RP[0].double().tolist())


def losses(x: np.ndarray, lr: float, factor: float = 1.0, steps: int = 0) -> np.ndarray:
    """Of gradient descent, by its error: each step multiplies it by 1 - lr h, those of a pulse by 1 - k lr h."""
    found = []
    for t in range(TOTAL):
        found.append(0.5 * float((H * x**2).sum()))
        x = x * (1.0 - (factor if AFTER <= t < AFTER + steps else 1.0) * lr * H)
    return np.array(found)


def lasting(x: np.ndarray, lr: float, factor: float, steps: int) -> tuple[float, float]:
    """(the mean excess of the last steps, what the twin has learned by then)."""
    twin_N = losses(x, lr)
    twin = twin_N[-LAST:].mean()
    untaught = BASELINE if twin_N[0] > 0.95 * BASELINE else twin_N[0]  # a seed may start surely below it
    return float(losses(x, lr, factor, steps)[-LAST:].mean() - twin), float(untaught - twin)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_pulse_multiplies_the_error_of_gradient_descent_by_one_minus_k_lr_h_for_each_of_its_steps(steps: int) -> None:
    lr, factor = 0.05, 64.0
    for x, found in measured("sgd", f"lr-pulse:factor=64,steps={steps}", lr):
        excess = losses(x, lr, factor, steps) - losses(x, lr)
        np.testing.assert_allclose(found.curves["shock_loss"][0], losses(x, lr, factor, steps)[AFTER:], rtol=0.01)
        assert found.metrics["peak_excess"].low == pytest.approx(excess.max(), rel=0.01)
        assert found.metrics["lasting_damage"].low == pytest.approx(excess[-LAST:].mean(), rel=0.01)


@pytest.mark.parametrize("lr", SHARP)
def test_the_brackets_of_tolerance_hold_the_pulse_that_costs_a_twentieth_and_half_of_what_was_learned(
    lr: float,
) -> None:
    """Beyond 1/(lr h) the error only grows with the factor, so that the threshold is a root."""
    for x, found in measured("sgd", "lr-pulse:steps=3", lr):
        for name, share in (("shock_tolerance", 0.05), ("break_tolerance", 0.5)):

            def above(factor: float, x: np.ndarray = x, share: float = share) -> float:
                damage, learned = lasting(x, lr, factor, 3)
                return damage - share * learned

            exact = brentq(above, 2.0 / lr, 1e5)
            bracket = found.metrics[name]
            assert bracket.low is not None
            assert bracket.high is not None
            assert bracket.low <= exact <= bracket.high
            assert bracket.high == 2.0 * bracket.low


def heavy_ball(x: np.ndarray, lr: float, lost: bool) -> np.ndarray:
    """v = 0.9 v + h x, x -= lr v, with v zeroed once."""
    found, v = [], np.zeros(2)
    for t in range(TOTAL):
        found.append(0.5 * float((H * x**2).sum()))
        v = (0.0 if lost and t == AFTER else 0.9) * v + H * x
        x = x - lr * v
    return np.array(found)


def test_lost_momentum_costs_what_the_recursion_says() -> None:
    lr = 0.004
    for x, found in measured("momentum", "lost-moments", lr):
        excess = heavy_ball(x, lr, True) - heavy_ball(x, lr, False)
        assert excess.max() > 0.05
        np.testing.assert_allclose(found.curves["shock_loss"][0], heavy_ball(x, lr, True)[AFTER:], rtol=0.01)
        assert found.metrics["peak_excess"].low == pytest.approx(excess.max(), rel=0.01)
        assert found.metrics["lasting_damage"].low == pytest.approx(excess[-LAST:].mean(), rel=0.01)


@pytest.mark.parametrize("number", [4, 16])
def test_updates_that_are_lost_leave_the_run_as_many_steps_behind(number: int) -> None:
    lr = 0.05
    for x, found in measured("sgd", f"dropped-updates:steps={number}", lr):
        twin = losses(x, lr)
        late = np.concatenate([np.full(number, twin[AFTER]), twin[AFTER : TOTAL - number]])
        np.testing.assert_allclose(found.curves["shock_loss"][0], late, rtol=0.01)
        assert found.records["shock"]["doses"][0]["lasting_steps"] == pytest.approx(number, abs=1.5)


Change = Callable[[torch.nn.Parameter, torch.optim.Adam], None]


def adam_in_torch(x: np.ndarray, lr: float, change: Change) -> np.ndarray:
    """By torch.optim.Adam, with something done to a gradient or the state before one step."""
    weights = torch.nn.Parameter(torch.tensor(x, dtype=torch.float32))
    optimizer = torch.optim.Adam([weights], lr)
    found = []
    for t in range(TOTAL):
        optimizer.zero_grad()
        loss = 0.5 * (torch.tensor(H, dtype=torch.float32) * weights**2).sum()
        loss.backward()
        if t == AFTER:
            change(weights, optimizer)
        optimizer.step()
        found.append(loss.item())
    return np.array(found[AFTER:])


def test_a_gradient_whose_norm_overflows_costs_what_it_costs_in_torch() -> None:
    """The highest bit of the exponent of a number below 1: its square is infinite, and Adam never moves it again."""

    def flipped(element: int) -> Change:
        def change(weights: torch.nn.Parameter, optimizer: torch.optim.Adam) -> None:
            assert weights.grad is not None
            weights.grad[element] = weights.grad[element] * 2.0**64 * 2.0**64

        return change

    for x, found in measured("adam", "bit-flip:count=1,where=gradient,bit=30", 0.04):
        either = [adam_in_torch(x, 0.04, flipped(element)) for element in (0, 1)]
        assert min(float(np.abs(found.curves["shock_loss"][0] - losses).max()) for losses in either) < 1e-5


@pytest.mark.parametrize("moment", ["all", "first", "second"])
@pytest.mark.parametrize("count", ["lost", "kept"])
def test_a_resume_without_its_moments_costs_what_it_costs_in_torch(moment: str, count: str) -> None:
    lr = 0.005

    def lose(weights: torch.nn.Parameter, optimizer: torch.optim.Adam) -> None:
        state = optimizer.state[weights]
        if moment != "second":
            state["exp_avg"].zero_()
        if moment != "first":
            state["exp_avg_sq"].zero_()
        if count == "lost":
            state["step"].zero_()

    for x, found in measured("adam", f"lost-moments:moment={moment},count={count}", lr, SEEDS[:1]):
        losses = adam_in_torch(x, lr, lose)
        np.testing.assert_allclose(found.curves["shock_loss"][0], losses, rtol=1e-3, atol=1e-5)


def test_a_lost_second_moment_multiplies_the_next_step_by_what_the_guide_says() -> None:
    """By sqrt((1 - beta2^t) / (1 - beta2)): of equal gradients, 5.5 after 30 steps, and 31.6 in the long run."""
    for _, found in measured("adam", "lost-moments:moment=second,count=kept", 0.001, SEEDS[:1]):
        lost, kept = found.curves["shock_loss"][0], found.curves["twin_loss"][AFTER:]
        ratio = (lost[0] - lost[1]) / (kept[0] - kept[1])
        assert ratio == pytest.approx(math.sqrt((1.0 - 0.999 ** (AFTER + 1)) / 0.001), rel=0.03)


def test_a_warm_up_after_a_shock_comes_only_where_there_was_one() -> None:
    (_, plain), (_, warmed), (_, none) = (
        measured("momentum", shock, 0.004, SEEDS[:1], guard)[0]
        for shock, guard in (("lost-moments", ""), ("lost-moments", "rewarm"), ("lost-moments:on=0", "rewarm"))
    )
    assert (warmed.curves["shock_loss"] != plain.curves["shock_loss"]).any()
    np.testing.assert_array_equal(warmed.curves["null_loss"], plain.curves["null_loss"])
    np.testing.assert_array_equal(none.curves["shock_loss"][0], none.curves["twin_loss"][AFTER:])
