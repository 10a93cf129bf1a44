"""Flipped bits and noise: words as numpy sees them, and a loop in plain torch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stresstest.experiments.shock.disturbance import Disturbance, Scene
from stresstest.experiments.shock.line import Line, scene_of
from stresstest.experiments.shock.noise import null_noise
from stresstest.measurements.base import Bench
from tests.experiments.shock.benches import AFTER, SEED, base, bench_of, schedule_of, spec_of
from tests.experiments.shock.by_hand import (
    LR,
    ByHand,
    by_hand,
    change_state,
    disturbance,
    module_of,
    same,
    shocked,
    words_of,
)


@pytest.mark.parametrize("bit", [0, 22, 23, 30, 31])
def test_one_bit_of_one_weight_of_the_layer_flips(before: Line, bit: int) -> None:
    line = before.branch()
    change_state(line, f"bit-flip:count=1,bit={bit},layer=1")
    flipped = words_of(before.population.theta_RP[0]) ^ words_of(line.population.theta_RP[0])
    [place] = np.flatnonzero(flipped)
    assert flipped[place] == 1 << bit
    sizes = [parameter.numel() for parameter in module_of(line).parameters()]
    assert sizes[0] <= place < sum(sizes[:3])
    held = torch.cat([parameter.detach().flatten() for parameter in module_of(line).parameters()])
    assert torch.equal(held, line.population.theta_RP[0])


def test_more_flips_hold_those_of_fewer(before: Line) -> None:
    found = []
    for count in (1, 4, 32):
        line = before.branch()
        change_state(line, f"bit-flip:count={count},bit=5")
        flipped = words_of(before.population.theta_RP[0]) ^ words_of(line.population.theta_RP[0])
        found.append(set(np.flatnonzero(flipped)))
    assert found[0] < found[1] < found[2]


def test_a_flip_in_bfloat16_is_one_of_the_number_that_the_layer_has() -> None:
    for own in ("half", "mixed"):
        line = base(bench_of(spec_of(own=own)), schedule_of(LR))
        old = [p.detach().clone() for p in module_of(line).parameters()]  # type: ignore[attr-defined]
        change_state(line, "bit-flip:count=1,bit=17,layer=0" if own == "half" else "bit-flip:count=1,bit=17,layer=body")
        new = list(module_of(line).parameters())  # type: ignore[attr-defined]
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
    flip = disturbance("bit-flip:count=1,bit=29,where=gradient,layer=3.weight")

    def watched(scene: Scene) -> None:
        old = words_of(scene.population.grad_RP[0])
        assert flip.gradient is not None
        flip.gradient(scene)
        seen.append((old, words_of(scene.population.grad_RP[0])))

    line = shocked(before, Disturbance(steps=1, gradient=watched))
    [(old, new)] = seen
    [place] = np.flatnonzero(old ^ new)
    assert (old ^ new)[place] == 1 << 29

    def step(hand: ByHand, step: int, lr: float) -> None:
        def clipped() -> None:
            parameters = list(hand.module.parameters())
            if step == AFTER:
                vector = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
                word = words_of(vector)
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
    same(line, hand)


def test_a_flipped_activation_is_one_element_of_what_the_layer_puts_out(bench: Bench, before: Line) -> None:
    """Of all elements of the layer's output one alone gives the weights that the shock gave."""
    line = before.branch()
    line.lr_N = line.lr_N[: AFTER + 1]
    line.shocked(disturbance("bit-flip:count=1,bit=31,where=activation,layer=3"), "drawn")
    hand = by_hand(bench, lambda hand, step, lr: None)
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
        line.shocked(disturbance("bit-flip:count=8,bit=30,where=activation"), f"drawn {draw}")
        assert line.run.losses == twin.run.losses
        changed += not torch.equal(line.population.theta_RP, twin.population.theta_RP)
    assert changed


def test_weight_noise_has_the_size_of_each_tensor(before: Line) -> None:
    line = before.branch()
    change_state(line, "weight-noise:size=0.5")
    with torch.no_grad():
        pairs = list(zip(module_of(before).parameters(), module_of(line).parameters(), strict=True))
        sizes = [float((new - old).square().mean() / old.square().mean()) ** 0.5 for old, new in pairs if old.ndim > 1]
    assert sizes == pytest.approx([0.5] * 3, rel=0.25)  # of a hundred numbers or so


def test_a_null_twin_differs_in_the_last_place_of_each_dtype() -> None:
    before = base(bench_of(spec_of(own="mixed")), schedule_of(LR))
    line = before.branch()
    null_noise(scene_of(line.bench, line.population, SEED, AFTER, "null"))
    with torch.no_grad():
        for old, new in zip(module_of(before).parameters(), module_of(line).parameters(), strict=True):
            size = float((new - old).float().square().mean() / old.float().square().mean()) ** 0.5
            last = 2.0**-7 if old.dtype == torch.bfloat16 else 1e-7
            assert 0.4 * last < size < 2.0 * last
