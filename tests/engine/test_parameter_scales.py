"""A parameter whose learning rate or eps is scaled trains as if that were its optimizer's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stresstest.engine.optimizer import Step
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.models.layout import Segment
from stresstest.models.scales import Scales
from stresstest.registry import OptionValue

HALF, SIZE = 6, 12
SEGMENTS = [Segment(0, HALF, 2, True), Segment(HALF, SIZE, 1, True)]
FACTORS = (0.25, 3.0)
SCALE_P = torch.tensor(FACTORS, dtype=torch.float64).repeat_interleave(HALF)


def after(
    name: str,
    options: dict[str, OptionValue],
    lr: float = 0.1,
    scales: Scales = Scales(),
    gradient: float = 1.0,
    steps: int = 8,
) -> Tensor:
    """One row after some steps, [P]: as many as RAdam needs to rectify."""
    optimizer = OPTIMIZERS[name]
    generator = torch.Generator().manual_seed(3)
    theta_RP = torch.randn(1, SIZE, generator=generator, dtype=torch.float64)
    state = {slot: torch.zeros_like(theta_RP) for slot in optimizer.slots}
    for count in range(1, steps + 1):
        grad_RP = gradient * torch.randn(1, SIZE, generator=generator, dtype=torch.float64)
        lr_R1, step_R1 = (torch.full((1, 1), value, dtype=torch.float64) for value in (lr, count))
        decay_P = torch.ones(SIZE, dtype=torch.float64)
        optimizer.update(Step(theta_RP, grad_RP, lr_R1, state, step_R1, decay_P, SEGMENTS, scales), **options)
    return theta_RP[0]


def assert_half_by_half(scaled_P: Tensor, each: list[Tensor]) -> None:
    """The first half is that of the first factor, the second half that of the other."""
    torch.testing.assert_close(scaled_P, torch.cat([each[0][:HALF], each[1][HALF:]]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_by_each_parameters_own_learning_rate(name: str) -> None:
    options: dict[str, OptionValue] = {"weight_decay": 0.0}
    each = [after(name, options, lr=0.1 * factor) for factor in FACTORS]
    assert_half_by_half(after(name, options, scales=Scales(lr_P=SCALE_P)), each)


@pytest.mark.parametrize("name", [name for name, optimizer in OPTIMIZERS.items() if "eps" in optimizer.options])
def test_every_optimizer_with_an_eps_adds_each_parameters_own(name: str) -> None:
    options: dict[str, OptionValue] = {"weight_decay": 0.0}
    each = [after(name, options | {"eps": 0.5 * factor}) for factor in FACTORS]
    assert_half_by_half(after(name, options | {"eps": 0.5}, scales=Scales(eps_P=SCALE_P)), each)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion"])
def test_weight_decay_shrinks_all_parameters_at_the_same_rate(name: str) -> None:
    options: dict[str, OptionValue] = {"weight_decay": 0.2}
    start_P = after(name, options, steps=0)
    shrunk_P = after(name, options, scales=Scales(lr_P=SCALE_P), gradient=0.0, steps=2)
    torch.testing.assert_close(shrunk_P, start_P * (1.0 - 0.1 * 0.2) ** 2, rtol=1e-12, atol=0.0)
