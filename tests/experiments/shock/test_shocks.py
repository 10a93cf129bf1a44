"""Each shock does to a run what a loop in plain torch does by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stresstest.engine.train import Batches
from stresstest.experiments.shock.line import Line
from stresstest.measurements.base import Bench
from stresstest.tasks import load_task
from stresstest.user_model.lost_moments import lose
from tests.experiments.shock.benches import AFTER, ON_TEXT, SEED, TOTAL, base, bench_of, schedule_of, spec_of
from tests.experiments.shock.by_hand import (
    LR,
    ByHand,
    by_hand,
    disturbance,
    same,
    shocked,
)


def test_a_pulse_multiplies_the_learning_rate_for_its_steps(bench: Bench, before: Line) -> None:
    hand = by_hand(bench, lambda hand, step, lr: hand.take(step, lr * (8 if step < AFTER + 3 else 1)))
    same(shocked(before, "lr-pulse:factor=8,steps=3"), hand)


def test_dropped_updates_leave_the_weights_and_spend_the_batches(bench: Bench, before: Line) -> None:
    def step(hand: ByHand, step: int, lr: float) -> None:
        if step < AFTER + 4:
            hand.losses.append(hand.loss(hand.data(step)).item())
        else:
            hand.take(step, lr)

    same(shocked(before, "dropped-updates:steps=4"), by_hand(bench, step))


def test_data_order_trains_on_the_last_batches_again(bench: Bench, before: Line) -> None:
    def step(hand: ByHand, step: int, lr: float) -> None:
        hand.take(step, lr, hand.data(step - 4) if step < AFTER + 4 else None)

    same(shocked(before, "data-order:steps=4"), by_hand(bench, step))


def test_tiny_batches_are_the_first_examples_of_the_batch(bench: Bench, before: Line) -> None:
    def step(hand: ByHand, step: int, lr: float) -> None:
        x, y = hand.data(step)
        hand.take(step, lr, (x[:2], y[:2]) if step < AFTER + 3 else None)

    same(shocked(before, "tiny-batch:steps=3,size=2"), by_hand(bench, step))


def test_a_bad_batch_repeats_the_one_before(bench: Bench, before: Line) -> None:
    def step(hand: ByHand, step: int, lr: float) -> None:
        hand.take(step, lr, hand.data(AFTER - 1) if step < AFTER + 2 else None)

    same(shocked(before, "bad-batch:steps=2,kind=repeated"), by_hand(bench, step))


def test_a_schedule_that_restarts_begins_with_its_warm_up(bench: Bench) -> None:
    lr_N = np.concatenate([np.linspace(0.0, LR, 4), schedule_of(LR)[4:]])
    line = base(bench, lr_N)
    line.shocked(disturbance("schedule-restart:on=1"), "drawn")
    assert line.run.lrs == [*lr_N[:AFTER], *lr_N[: TOTAL - AFTER]]


KEPT = {"first": "exp_avg", "second": "exp_avg_sq"}


@pytest.mark.parametrize("moment", ["all", "first", "second"])
@pytest.mark.parametrize("count", ["lost", "kept"])
@pytest.mark.parametrize("own", [True, False], ids=["their optimizer", "adam of the table"])
def test_lost_moments_are_zero_and_the_rest_goes_on(
    bench: Bench, before: Line, moment: str, count: str, own: bool
) -> None:
    def lost(hand: ByHand) -> None:
        for state in hand.optimizer.state.values():
            for name in KEPT.values() if moment == "all" else [KEPT[moment]]:
                state[name].zero_()
            if count == "lost":
                state["step"].zero_()

    hand = by_hand(bench, lambda hand, step, lr: hand.take(step, lr), lost)
    if not own:
        before = base(bench_of(spec_of(own="build", optimizer="adam")), schedule_of(LR))
    line = shocked(before, f"lost-moments:on=1,moment={moment},count={count}")
    same(line, hand, 1e-6 if own else 1e-3)  # losses of hundreds of nats magnify what two Adams round otherwise


def test_the_second_moment_lost_alone_makes_the_next_step_31_times_as_large() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.Adam([parameter], lr=1.0, eps=0.0)
    steps = []
    for k in range(3):
        if k == 2:
            for name in ("exp_avg", "exp_avg_sq"):  # as after many steps of one gradient
                optimizer.state[parameter][name].fill_(0.25 if name == "exp_avg_sq" else 0.5)
            optimizer.state[parameter]["step"].fill_(1e5)
            assert lose(optimizer, frozenset({"second"}), count=False) == 1
        parameter.grad = torch.full((4,), 0.5)
        start = parameter.detach().clone()
        optimizer.step()
        steps.append(float((parameter.detach() - start).abs().max()))
    assert steps[2] / steps[1] == pytest.approx(1 / np.sqrt(1 - 0.999), rel=1e-3)


def test_a_resume_of_nadam_starts_its_product_of_momenta_anew() -> None:
    """Against an optimizer that is built anew, whose first step it takes."""
    gradients = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.NAdam([parameter], lr=0.1)
    for gradient in gradients[:3]:
        parameter.grad = gradient.clone()
        optimizer.step()
    fresh = nn.Parameter(parameter.detach().clone())
    lose(optimizer, frozenset({"first"}), count=True)
    lose(optimizer, frozenset({"second"}), count=False)
    for each, takes in ((parameter, optimizer), (fresh, torch.optim.NAdam([fresh], lr=0.1))):
        each.grad = gradients[3].clone()
        takes.step()
    assert torch.equal(parameter, fresh)


def test_half_precision_is_autocast_with_a_scaler_that_skips(bench: Bench, before: Line) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**19, growth_interval=200)  # which overflows
    scales = []

    def step(hand: ByHand, step: int, lr: float) -> None:
        if not AFTER <= step < AFTER + 4:
            return hand.take(step, lr)
        for group in hand.optimizer.param_groups:
            group["lr"] = float(np.float32(lr))
        hand.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = hand.loss(hand.data(step))
        with torch.no_grad():
            hand.losses.append(hand.loss(hand.data(step)).item())
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(hand.optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        return None

    hand = by_hand(bench, step)
    line = before.branch()
    line.population.state()["scale_R"].fill_(2.0**19)
    line.shocked(disturbance("half-precision:steps=4"), "drawn")
    assert scales[0] < 2.0**19
    assert len({*scales}) < 4  # of four steps, some are skipped and some taken
    np.testing.assert_allclose(line.run.losses, hand.losses, rtol=1e-5)
    torch.testing.assert_close(line.population.theta_RP[0], hand.vector(), rtol=1e-4, atol=1e-6)
    assert float(line.population.state()["scale_R"][0]) == scales[-1]
    assert line.population.training.dtype == torch.float32


def test_steps_that_overflow_in_float16_are_lost_and_no_more() -> None:
    """Outputs above 65504 make a loss that is not finite: a scaler skips, and float32 goes on from the same weights."""
    before = base(bench_of(spec_of(own="large")), schedule_of(1e-4))
    line, still = shocked(before, "half-precision:steps=3"), shocked(before, "dropped-updates:steps=3")
    assert not line.run.detector.over
    assert line.run.skipped == 3
    assert line.run.losses == still.run.losses
    assert torch.equal(line.population.theta_RP, still.population.theta_RP)


def test_a_shift_trains_on_other_data_and_is_judged_on_its_own() -> None:
    spec = spec_of(own=f"{ON_TEXT}:build", optimizer="adam", seq_len=6)
    bench = bench_of(spec)
    other = Batches(load_task("language", "pydoc", spec.batch_size, spec.seq_len), torch.device("cpu"))

    def step(hand: ByHand, step: int, lr: float) -> None:
        batch = other.batch([SEED], step)
        hand.take(step, lr, (batch.inputs[0], batch.targets[0]))

    same(shocked(base(bench, schedule_of(LR)), "shift:on=1,data=pydoc"), by_hand(bench, step))
