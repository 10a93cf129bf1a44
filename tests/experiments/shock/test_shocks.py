"""Each shock does to a run what a loop in plain torch does by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.engine.train import Batches
from stresstest.experiments.shock.disturbance import Disturbance, Scene
from stresstest.experiments.shock.line import Line, scene_of
from stresstest.experiments.shock.noise import null_noise
from stresstest.experiments.shock.table import parse_shock
from stresstest.measurements.base import Bench
from stresstest.tasks import load_task
from stresstest.user_model.lost_moments import lose
from stresstest.user_model.population import UserPopulation
from tests.experiments.shock.benches import AFTER, ON_TEXT, SEED, TOTAL, base, bench_of, schedule_of, spec_of

LR = 0.02


class ByHand:
    """A training loop in plain torch, on the batches and from the weights of a bench."""

    def __init__(self, bench: Bench, lr: float = LR) -> None:
        self.batches = bench.batches
        self.module: nn.Module = bench.model.make(SEED)  # type: ignore[attr-defined]  # of a model of the user's own
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=lr)
        self.losses: list[float] = []

    def data(self, step: int) -> Any:
        return self.batches.batch([SEED], step)[0].data

    def loss(self, data: Any) -> Tensor:
        x, y = data
        return F.cross_entropy(self.module(x).flatten(0, 1), y.flatten())

    def take(self, step: int, lr: float, data: Any = None, change: Callable[[], None] = lambda: None) -> None:
        """A step on `data`, whose loss is that of its own batch before; `change` meets the gradient."""
        with torch.no_grad():
            self.losses.append(float(self.loss(self.data(step))))
        for group in self.optimizer.param_groups:
            group["lr"] = float(np.float32(lr))
        self.optimizer.zero_grad()
        self.loss(self.data(step) if data is None else data).backward()
        change()
        self.optimizer.step()

    def vector(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.module.parameters()])


@pytest.fixture(scope="module")
def bench() -> Bench:
    return bench_of(spec_of(own="build", optimizer_fn="adam"))


@pytest.fixture(scope="module")
def before(bench: Bench) -> Line:
    return base(bench, schedule_of(LR))


def _shocked(before: Line, shock: str | Disturbance) -> Line:
    line = before.branch()
    chosen = shock if isinstance(shock, Disturbance) else _disturbance(shock)
    line.shocked(chosen, "drawn")
    return line


def _disturbance(text: str) -> Disturbance:
    shock = parse_shock(text)
    assert shock.only is not None
    return shock.at(shock.only)


def _by_hand(
    bench: Bench, shocked: Callable[[ByHand, int, float], None], at: Callable[[ByHand], None] | None = None
) -> ByHand:
    """Ordinary steps, and from the shock on those that `shocked` takes."""
    hand = ByHand(bench)
    for step, lr in enumerate(schedule_of(LR)):
        if step == AFTER and at is not None:
            at(hand)
        if step < AFTER:
            hand.take(step, lr)
        else:
            shocked(hand, step, lr)
    return hand


def _same(line: Line, hand: ByHand, rtol: float = 1e-6) -> None:
    np.testing.assert_allclose(line.run.losses, hand.losses, rtol=rtol)
    torch.testing.assert_close(line.population.theta_RP[0], hand.vector(), rtol=10 * rtol, atol=rtol)


def test_a_pulse_multiplies_the_learning_rate_for_its_steps(bench: Bench, before: Line) -> None:
    hand = _by_hand(bench, lambda hand, step, lr: hand.take(step, lr * (8 if step < AFTER + 3 else 1)))
    _same(_shocked(before, "lr-pulse:factor=8,steps=3"), hand)


def test_dropped_updates_leave_the_weights_and_spend_the_batches(bench: Bench, before: Line) -> None:
    def step(hand: ByHand, step: int, lr: float) -> None:
        if step < AFTER + 4:
            hand.losses.append(hand.loss(hand.data(step)).item())
        else:
            hand.take(step, lr)

    _same(_shocked(before, "dropped-updates:steps=4"), _by_hand(bench, step))


def test_data_order_trains_on_the_last_batches_again(bench: Bench, before: Line) -> None:
    def step(hand: ByHand, step: int, lr: float) -> None:
        hand.take(step, lr, hand.data(step - 4) if step < AFTER + 4 else None)

    _same(_shocked(before, "data-order:steps=4"), _by_hand(bench, step))


def test_tiny_batches_are_the_first_examples_of_the_batch(bench: Bench, before: Line) -> None:
    def step(hand: ByHand, step: int, lr: float) -> None:
        x, y = hand.data(step)
        hand.take(step, lr, (x[:2], y[:2]) if step < AFTER + 3 else None)

    _same(_shocked(before, "tiny-batch:steps=3,size=2"), _by_hand(bench, step))


def test_a_bad_batch_repeats_the_one_before(bench: Bench, before: Line) -> None:
    def step(hand: ByHand, step: int, lr: float) -> None:
        hand.take(step, lr, hand.data(AFTER - 1) if step < AFTER + 2 else None)

    _same(_shocked(before, "bad-batch:steps=2,kind=repeated"), _by_hand(bench, step))


def test_a_schedule_that_restarts_begins_with_its_warm_up(bench: Bench) -> None:
    lr_N = np.concatenate([np.linspace(0.0, LR, 4), schedule_of(LR)[4:]])
    line = base(bench, lr_N)
    line.shocked(_disturbance("schedule-restart:on=1"), "drawn")
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

    hand = _by_hand(bench, lambda hand, step, lr: hand.take(step, lr), lost)
    if not own:
        before = base(bench_of(spec_of(own="build", optimizer="adam")), schedule_of(LR))
    shocked = _shocked(before, f"lost-moments:on=1,moment={moment},count={count}")
    _same(shocked, hand, 1e-6 if own else 1e-3)  # losses of hundreds of nats magnify what two Adams round otherwise


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


def _words(vector: Tensor) -> Any:
    return vector.detach().numpy().view(np.uint32).copy()


@pytest.mark.parametrize("bit", [0, 22, 23, 30, 31])
def test_one_bit_of_one_weight_of_the_layer_flips(before: Line, bit: int) -> None:
    line = before.branch()
    _state(line, f"bit-flip:count=1,bit={bit},layer=1")
    flipped = _words(before.population.theta_RP[0]) ^ _words(line.population.theta_RP[0])
    [place] = np.flatnonzero(flipped)
    assert flipped[place] == 1 << bit
    sizes = [parameter.numel() for parameter in _module(line).parameters()]
    assert sizes[0] <= place < sum(sizes[:3])
    held = torch.cat([parameter.detach().flatten() for parameter in _module(line).parameters()])
    assert torch.equal(held, line.population.theta_RP[0])


def _module(line: Line) -> nn.Module:
    assert isinstance(line.population, UserPopulation)
    return line.population.modules[0]


def _state(line: Line, text: str, draw: str = "drawn") -> None:
    state = _disturbance(text).state
    assert state is not None
    state(scene_of(line.bench, line.population, SEED, AFTER, draw))


def test_more_flips_hold_those_of_fewer(before: Line) -> None:
    found = []
    for count in (1, 4, 32):
        line = before.branch()
        _state(line, f"bit-flip:count={count},bit=5")
        flipped = _words(before.population.theta_RP[0]) ^ _words(line.population.theta_RP[0])
        found.append(set(np.flatnonzero(flipped)))
    assert found[0] < found[1] < found[2]


def test_a_flip_in_bfloat16_is_one_of_the_number_that_the_layer_has() -> None:
    for own in ("half", "mixed"):
        line = base(bench_of(spec_of(own=own)), schedule_of(LR))
        old = [p.detach().clone() for p in _module(line).parameters()]  # type: ignore[attr-defined]
        _state(line, "bit-flip:count=1,bit=17,layer=0" if own == "half" else "bit-flip:count=1,bit=17,layer=body")
        new = list(_module(line).parameters())  # type: ignore[attr-defined]
        flips = [
            (a.view(torch.int16) ^ b.view(torch.int16)).flatten().tolist()
            for a, b in zip(old, new, strict=True)
            if a.dtype == torch.bfloat16
        ]
        assert sorted(word for words in flips for word in words if word) == [1 << 1]
        rows = torch.cat([p.detach().flatten() for p in new])
        assert torch.equal(rows, line.population.theta_RP[0])


def test_a_flipped_gradient_is_clipped_as_it_is() -> None:
    bench = bench_of(spec_of(own="build", optimizer_fn="adam", clip_norm=0.5))
    before = base(bench, schedule_of(LR))
    seen: list[tuple[Any, Any]] = []
    disturbance = _disturbance("bit-flip:count=1,bit=29,where=gradient,layer=3.weight")

    def watched(scene: Scene) -> None:
        old = _words(scene.population.grad_RP[0])
        assert disturbance.gradient is not None
        disturbance.gradient(scene)
        seen.append((old, _words(scene.population.grad_RP[0])))

    line = _shocked(before, Disturbance(steps=1, gradient=watched))
    [(old, new)] = seen
    [place] = np.flatnonzero(old ^ new)
    assert (old ^ new)[place] == 1 << 29

    def step(hand: ByHand, step: int, lr: float) -> None:
        def clipped() -> None:
            parameters = list(hand.module.parameters())
            if step == AFTER:
                vector = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
                word = _words(vector)
                word[place] ^= np.uint32(1 << 29)
                for p, part in zip(
                    parameters,
                    torch.from_numpy(word.view(np.float32)).split([p.numel() for p in parameters]),
                    strict=True,
                ):
                    p.grad = part.view_as(p).clone()
            nn.utils.clip_grad_norm_(parameters, 0.5)

        hand.take(step, lr, None, clipped)

    hand = ByHand(bench)
    for at, lr in enumerate(schedule_of(LR)):
        step(hand, at, lr)
    _same(line, hand)


def test_a_flipped_activation_is_one_element_of_what_the_layer_puts_out(bench: Bench, before: Line) -> None:
    """Of all elements of the layer's output one alone gives the weights that the shock gave."""
    line = before.branch()
    line.lr_N = line.lr_N[: AFTER + 1]
    line.shocked(_disturbance("bit-flip:count=1,bit=31,where=activation,layer=3"), "drawn")
    hand = _by_hand(bench, lambda hand, step, lr: None)
    start, state = hand.vector(), copy.deepcopy(hand.optimizer.state_dict())
    found = []
    for element in range(8 * 4 * 12):
        nn.utils.vector_to_parameters(start.clone(), hand.module.parameters())
        hand.optimizer.load_state_dict(copy.deepcopy(state))

        def flip(module: nn.Module, inputs: Any, out: Tensor, element: int = element) -> None:
            out.data.view(torch.int32).view(-1)[element] ^= -(1 << 31)

        handle = hand.module.get_submodule("3").register_forward_hook(flip)
        hand.take(AFTER, schedule_of(LR)[AFTER])
        handle.remove()
        if torch.equal(hand.vector(), line.population.theta_RP[0]):
            found.append(element)
    assert len(found) == 1
    twin = before.branch()
    twin.go(AFTER + 1)
    assert line.run.losses == twin.run.losses  # that of the undisturbed pass
    assert not torch.equal(line.population.theta_RP, twin.population.theta_RP)


@pytest.mark.parametrize("model", ["transformer", "encoder-decoder", "mlp", "resnet"])
def test_an_activation_flips_in_every_built_in_model(model: str) -> None:
    settings = {} if model == "transformer" else {"model": model}
    before = base(bench_of(spec_of(**settings, batch_size=4)), schedule_of(0.001), after=2)
    twin = before.branch()
    twin.go(3)
    changed = 0
    for draw in range(3):
        line = before.branch()
        line.lr_N = line.lr_N[:3]
        line.shocked(_disturbance("bit-flip:count=8,bit=30,where=activation"), f"drawn {draw}")
        assert line.run.losses == twin.run.losses
        changed += not torch.equal(line.population.theta_RP, twin.population.theta_RP)
    assert changed


def test_weight_noise_has_the_size_of_each_tensor(before: Line) -> None:
    line = before.branch()
    _state(line, "weight-noise:size=0.5")
    with torch.no_grad():
        pairs = list(zip(_module(before).parameters(), _module(line).parameters(), strict=True))
        sizes = [float((new - old).square().mean() / old.square().mean()) ** 0.5 for old, new in pairs if old.ndim > 1]
    assert sizes == pytest.approx([0.5] * 3, rel=0.25)  # of a hundred numbers or so


def test_a_null_twin_differs_in_the_last_place_of_each_dtype() -> None:
    before = base(bench_of(spec_of(own="mixed")), schedule_of(LR))
    line = before.branch()
    null_noise(scene_of(line.bench, line.population, SEED, AFTER, "null"))
    with torch.no_grad():
        for old, new in zip(_module(before).parameters(), _module(line).parameters(), strict=True):
            size = float((new - old).float().square().mean() / old.float().square().mean()) ** 0.5
            last = 2.0**-7 if old.dtype == torch.bfloat16 else 1e-7
            assert 0.4 * last < size < 2.0 * last


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

    hand = _by_hand(bench, step)
    line = before.branch()
    line.population.state()["scale_R"].fill_(2.0**19)
    line.shocked(_disturbance("half-precision:steps=4"), "drawn")
    assert scales[0] < 2.0**19
    assert len({*scales}) < 4  # of four steps, some are skipped and some taken
    np.testing.assert_allclose(line.run.losses, hand.losses, rtol=1e-5)
    torch.testing.assert_close(line.population.theta_RP[0], hand.vector(), rtol=1e-4, atol=1e-6)
    assert float(line.population.state()["scale_R"][0]) == scales[-1]
    assert line.population.training.dtype == torch.float32


def test_steps_that_overflow_in_float16_are_lost_and_no_more() -> None:
    """Outputs above 65504 make a loss that is not finite: a scaler skips, and float32 goes on from the same weights."""
    before = base(bench_of(spec_of(own="large")), schedule_of(1e-4))
    shocked, still = _shocked(before, "half-precision:steps=3"), _shocked(before, "dropped-updates:steps=3")
    assert not shocked.run.detector.over
    assert shocked.run.skipped == 3
    assert shocked.run.losses == still.run.losses
    assert torch.equal(shocked.population.theta_RP, still.population.theta_RP)


def test_a_shift_trains_on_other_data_and_is_judged_on_its_own() -> None:
    spec = spec_of(own=f"{ON_TEXT}:build", optimizer="adam", seq_len=6)
    bench = bench_of(spec)
    other = Batches(load_task("language", "pydoc", spec.batch_size, spec.seq_len), torch.device("cpu"))

    def step(hand: ByHand, step: int, lr: float) -> None:
        batch = other.batch([SEED], step)
        hand.take(step, lr, (batch.inputs[0], batch.targets[0]))

    _same(_shocked(base(bench, schedule_of(LR)), "shift:on=1,data=pydoc"), _by_hand(bench, step))
